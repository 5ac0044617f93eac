//! What a sandbox may see and change of a workspace.
//!
//! No I/O: the share asks, and the daemon and the command use the same types to refuse what cannot be meant.
//!
//! - [`pattern`], [`set`]: names, in the grammar of gitignore(5), and many of them at once.
//! - [`rules`]: what a share is told, and [`protect`]: the list that is protected unless somebody says otherwise.
//! - [`hide`]: lists of hidden names, in files and by name.
//! - [`mounts`]: which directories may be shared at all.
//! - [`mask`]: which directories are the sandbox's own, and [`late_mask`]: those that appear while it runs.
//! - [`git_config`], [`git_link`]: the git files that guest and host both write, and of which some contents run on the
//!   host; and [`git_places`]: where git is told to find more of them.
//! - [`event`]: what the share says when somebody tried.
#![forbid(unsafe_code)]

pub mod event;
pub mod git_config;
pub mod git_link;
pub mod git_places;
mod glob;
pub mod hide;
pub mod late_mask;
pub mod mask;
pub mod mounts;
pub mod pattern;
pub mod protect;
pub mod rules;
pub mod set;

pub use pattern::{Pattern, PatternError};
pub use protect::Level;
pub use rules::{Guarding, Mode, Protection, Rules, Stay, What};
pub use set::{PatternSet, State, Step};
