//! The real gateway process between a guest's TCP/IP stack and stand-ins.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod authority;
mod credentials;
mod dns;
mod guest;
mod lab;
mod packets;
mod policy;
mod proxy;
mod transparent;
