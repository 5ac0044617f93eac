//! The share's promises, tried on real directories through the same trait the transport calls, and on the real
//! process.
#![expect(
    clippy::unwrap_used,
    reason = "tests: the helpers fail the test they serve"
)]

mod bounds;
mod confinement;
mod consistency;
mod content;
mod hide;
mod ownership;
mod process;
mod protect;
mod support;
