//! One binary for all tests of the crate.

mod git_config;
mod git_link;
mod hide;
mod mounts;
mod pattern;
mod protect;
