//! The real daemon at its process boundary: started with a home of its own, spoken to over its socket.
//! Supervisors and gateways are played by the test where one is needed; those with machines are in the
//! workspace's end-to-end suite.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod adoption;
mod aws;
mod aws_endpoints;
mod aws_short_lived;
mod browser;
mod creation;
mod custom;
mod fetched;
mod harness;
mod keychain;
mod life;
mod never_lost;
mod policy;
mod secrets;
mod sessions;
mod settings;
mod ssh_agent;
mod waiting;
