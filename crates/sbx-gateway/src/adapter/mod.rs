//! Room 1: everything the guest says is parsed and made canonical here, once.

mod chunks;
pub mod dns;
pub mod frame;
pub mod framing;
pub mod guarded;
pub mod h2_frames;
pub mod hello;
pub mod request;
pub mod websocket;
pub(crate) mod written;
