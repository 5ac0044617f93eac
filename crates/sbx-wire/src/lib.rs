//! What crosses a process boundary in sbx, and nothing else.
//!
//! | module | boundary |
//! |---|---|
//! | [`frame`] | the bounded, length-prefixed framing that the binary protocols share |
//! | [`guest`] | supervisor to the agent inside the VM, over virtio-serial |
//! | [`session`] | command (or daemon) to supervisor, over the sandbox's Unix socket |
//! | [`launch`] | daemon to supervisor: the document a machine is started from |
//! | [`gateway`] | daemon to gateway: policy, credentials, certificate authority; and the records that come out |
//! | [`api`] | command to daemon: the local HTTP/JSON API |
//! | [`browser`] | a program inside to the host's browser |
//! | [`report`] | how every process states an error: blame, message, next step |
//! | [`home`] | where state, cache, configuration and sockets live |
//! | [`name`] | sandbox names |
//! | [`secret`] | values that must not be printed |
//! | [`time`] | how times are written |
//! | [`trust`] | names that the trust in an installation's root hangs on |
#![forbid(unsafe_code)]

pub mod api;
pub mod browser;
pub mod diagnosis;
pub mod frame;
pub mod gateway;
pub mod guest;
pub mod home;
pub mod keys;
pub mod launch;
pub mod name;
pub mod report;
pub mod secret;
pub mod session;
pub mod ssh_agent;
pub mod time;
pub mod trust;
