//! What is stored on the host and never enters a sandbox: credentials of services, custom secrets, logins of registries.
//!
//! - [`Vault`]: one encrypted file that lists everything, and holds the values that are in no other store;
//! - [`Secret`]: what is stored, for whom, and where its value comes from;
//! - [`SignIn`]: tokens that were issued (OAuth), and how they stand;
//! - [`Keychain`]: the keychain of the user's session, with a time limit on every call; [`SecretService`]: that of Linux;
//! - [`Recipe`]: how a value is fetched that is not stored;
//! - [`Values`]: values in memory, and when they are fetched anew.
#![forbid(unsafe_code)]

mod document;
mod fetch;
mod keychain;
mod recipe;
mod secret;
mod secret_service;
mod sign_in;
mod values;
mod vault;

pub use document::Verdict;
pub use fetch::{Failure, LIMIT as FETCH_LIMIT, fetch};
pub use keychain::{Keychain, Person, SecretStore, Trouble};
pub use recipe::{Origin, Recipe, Refresh};
pub use secret::{
    AwsUse, Custom, InKeychain, Key, Kind, Registry, Scope, Secret, ShortLived, Source, mask,
};
pub use secret_service::SecretService;
pub use sign_in::{SIGN_IN, SignIn, Standing, put_in_front};
pub use values::{Held, Values};
pub use vault::{FILE_STORE, FOLDER, KEYCHAIN_STORE, Shown, Vault};
