//! The real daemon at its process boundary.
