//! One binary for all tests of the crate.

mod git_config;
mod git_link;
mod git_places;
mod hide;
mod mounts;
mod pattern;
mod protect;
