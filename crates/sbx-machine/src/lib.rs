//! A virtual machine, as far as the host is concerned.
//!
//! | module | what it knows |
//! |---|---|
//! | [`args`] | the one QEMU command line, from a typed description |
//! | [`qmp`] | QEMU's monitor protocol |
//! | [`qemu`] | finding QEMU and its version |
//! | [`probe`] | whether hardware virtualisation really works here |
//! | [`trial`] | which of two kernels starts sooner here |
//! | [`disk`] | overlay disks |
//! | [`snapshot`] | a saved machine: memory and state |
//! | [`migration`] | saving and loading the state |
//! | [`plug`] | shares that come to a running machine |
//! | [`tsc`] | the frequency of the host's time stamp counter |
//!
//! Every machine is snapshot-ready from its first boot: shared guest memory, q35 with spare hot-plug
//! ports, disks as overlays, and not a word about the sandbox on the kernel command line.
#![deny(unsafe_code)] // but for one instruction in `tsc`

pub mod args;
pub mod disk;
pub mod migration;
pub mod plug;
pub mod probe;
mod probe_guest;
pub mod qemu;
pub mod qmp;
pub mod snapshot;
pub mod trial;
pub mod tsc;
