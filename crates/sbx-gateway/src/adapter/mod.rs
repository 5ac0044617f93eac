//! Room 1: everything the guest says is parsed and made canonical here, once.

pub mod dns;
pub mod frame;
pub mod hello;
pub mod request;
