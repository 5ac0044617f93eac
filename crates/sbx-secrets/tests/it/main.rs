//! What is stored, on a folder of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fetch;
mod values;
mod vault;
