//! The share's promises, tried on real directories through the same trait the transport calls, and on the real
//! process.
#![expect(
    clippy::unwrap_used,
    reason = "tests: the helpers fail the test they serve"
)]

mod attack_73;
mod attack_74;
mod attack_75;
mod attack_76;
mod attack_76_links;
mod attack_76_locks;
mod attack_77;
mod bounds;
mod chains;
mod confinement;
mod consistency;
mod content;
mod guest;
mod hide;
mod hostile;
mod late_mask;
mod late_waiting;
mod listing;
mod mask;
mod ownership;
mod process;
mod protect;
mod saved;
mod support;
mod ways;
