//! The agent as an ordinary process, driven over the real protocol.

mod client;
