//! What a program was told is on the disk stays there, whoever is killed: host and guest write into one workspace, make
//! each change last and say so, while a process of the sandbox is killed at a random moment.
//!
//! | module | what it knows |
//! |---|---|
//! | [`campaign`] | whom to kill and when, and that the sandbox goes on afterwards |
//! | `writer` | a program on one side, and what it says |
//! | `promised` | what has to be in the files after it was said |

pub mod campaign;
mod promised;
mod writer;

pub use campaign::run;
