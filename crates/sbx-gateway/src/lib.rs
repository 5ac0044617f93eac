//! Everything one sandbox sends to a network.
//!
//! The guest's network card ends in this process. Every byte that wants to leave goes through the same
//! five rooms, in this order and never back:
//!
//! 1. [`adapter`] parses and canonicalises once;
//! 2. [`intent`]: which way, where to, what kind;
//! 3. [`decision`]: the one evaluator of `sbx-policy`, on one immutable [`generation`];
//! 4. [`connector`] dials only what the decision pinned and writes the credential it named;
//! 5. [`relay`] streams, bounds and records one event.
//!
//! [`netstack`] is the guest's TCP/IP, [`doors`] joins it to the rooms, [`control`] is the daemon's way
//! in. A hostile guest is the normal case: every parser is bounded, every failure closes.
#![forbid(unsafe_code)]

pub mod adapter;
pub mod addresses;
pub mod connector;
pub mod control;
pub mod credentials;
pub mod decision;
pub mod desk;
pub mod doors;
pub mod gateway;
pub mod generation;
pub mod intent;
pub mod limits;
pub mod live;
pub mod log;
pub mod mint;
pub mod netstack;
pub mod pin_file;
pub mod pins;
pub mod process;
pub mod reason;
pub mod record_file;
pub mod records;
pub mod relay;
pub mod resolver;

/// The system gave no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no randomness")]
pub struct NoRandomness;

/// Fills the bytes from the operating system's generator. Only for a few bytes at a time.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    let length = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty());
    // Up to 256 bytes come whole (getrandom(2)).
    if length == Ok(bytes.len()) {
        Ok(())
    } else {
        Err(NoRandomness)
    }
}
