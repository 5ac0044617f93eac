//! The command at its process boundary: the real `sbx`, the real daemon, no machine.
