//! The worker as the daemon sees it.
