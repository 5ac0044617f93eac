//! Room 5: streams, bounds, counts, records.

pub mod body;
mod clean;
pub mod decoding;
pub mod direct;
mod exchange;
mod guarded_body;
mod handing_in;
pub mod headers;
pub mod http;
mod issuing;
pub mod page;
mod registry;
pub mod serve;
mod signing;
mod small;
pub mod source;
mod stage;
mod supply;
pub mod tunnel;
mod websocket;
mod zstd;
