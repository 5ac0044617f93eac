//! Kills over the life cycle: for each verb, each process is killed at each of its state-changing system calls in turn (or
//! at as many as are asked for, evenly chosen), and at random times. After each kill one invariant has to hold ([`case`]):
//! a fresh daemon lists every sandbox that was confirmed; it starts, or is removed; then nothing of it is left, no
//! process, socket, file, rule or memory, and `sbx diagnose` finds nothing wrong.
//!
//! | module | |
//! |---|---|
//! | [`campaign`] | which kills, and their outcome |
//! | [`case`] | one kill, and the invariant |
//! | `place` | an installation with its daemon below a tracer |
//! | `traces` | what is left |
//! | `tracer`, `sys`, `calls`, `role`, `status` | counting system calls, and killing at one |
//! | `api` | requests |

mod api;
mod calls;
pub mod campaign;
pub mod case;
mod place;
mod role;
mod status;
mod sys;
mod tracer;
mod traces;

pub use campaign::{Options, run};
pub use case::{At, Case, Verb};
pub use place::Machine;
pub use role::{GUEST_FLAG, Role};
