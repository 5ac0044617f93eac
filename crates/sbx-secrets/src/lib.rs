//! What is stored on the host and never enters a sandbox: credentials of services, custom secrets, logins of registries.
//!
//! - [`Vault`]: one encrypted file that lists everything, and holds the values that are in no other store;
//! - [`Secret`]: what is stored, for whom, and where its value comes from.
#![forbid(unsafe_code)]

mod document;
mod secret;
mod vault;

pub use secret::{Custom, Key, Kind, Registry, Scope, Secret, Source, mask};
pub use vault::{FILE_STORE, FOLDER, Shown, Vault};
