//! A folder that host and guest share, looked at and changed from both sides.
//!
//! | module | what it knows |
//! |---|---|
//! | [`peer`] | a program on one side that does what it is told |
//! | [`model`] | what the files have to be after every operation |
//! | [`campaign`] | random operations of both sides in turn, compared with the model |

pub mod campaign;
pub mod model;
pub mod peer;

pub use peer::Peer;
