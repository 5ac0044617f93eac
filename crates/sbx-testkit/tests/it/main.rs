//! The stand-ins at their process boundary, with clients that know nothing of them: curl, sockets, hyper.

mod anthropic;
mod client;
mod dns;
mod programs;
mod upstream;
