//! The supervisor of one sandbox.
//!
//! ```text
//! supervisor (jailed) ──socketpair── spawner ──┬─ sbx-share, one per mount
//!    │  supervisor.sock  ← sbx, daemon          ├─ QEMU
//!    │  qmp.sock, guest.sock → QEMU (jailed)    └─ sbx-gateway
//! ```
//!
//! The supervisor reads what a hostile guest says, so it can start nothing: a spawner, forked before the
//! first guest byte, starts exactly the programs of the launch document. Every helper dies with the spawner
//! (`PR_SET_PDEATHSIG`), the spawner with the supervisor, so nothing is ever orphaned.
#![deny(unsafe_code)] // but for one call in `os`

pub mod confine;
pub mod console;
pub mod guest;
pub mod idle;
pub mod launch;
pub mod life;
pub mod log;
mod os;
pub mod prepare;
pub mod server;
pub mod spawner;
pub mod state;
pub mod terminal;
