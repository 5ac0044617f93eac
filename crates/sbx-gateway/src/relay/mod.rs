//! Room 5: streams, bounds, counts, records.

pub mod body;
pub mod http;
pub mod page;
pub mod placeholder;
pub mod tunnel;
