//! Room 5: streams, bounds, counts, records.

pub mod body;
pub mod direct;
mod exchange;
pub mod headers;
pub mod http;
pub mod page;
pub mod placeholder;
pub mod serve;
pub mod tunnel;
