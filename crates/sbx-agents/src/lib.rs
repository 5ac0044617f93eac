//! The agents that a sandbox can be made for, as data: one [`Row`] each, in a file of its own below `rows/`.
//!
//! A row says where the agent's program comes from ([`Install`]), how it is started, which services' secrets
//! it works with, which hosts it needs, which files and variables it is given, and how far all of that was
//! ever tried ([`Tried`]). What is done with it lies elsewhere: `sbx-image` makes a layer of the programs,
//! the daemon writes the files.
//!
//! No package is ever run on the host: what an agent's package wants to run at its installation runs inside a
//! machine, or not at all.

#![forbid(unsafe_code)]

mod agent;
mod home;
mod inside;
mod note;
mod row;
mod rows;

pub use agent::{Agent, UnknownAgent};
pub use home::{Seed, Tokens};
pub use note::Facts;
pub use row::{Body, Install, Layer, Package, Program, Recipe, Row, Tried};
