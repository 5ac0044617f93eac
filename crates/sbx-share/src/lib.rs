//! The file system behind a sandbox's workspace mount.
//!
//! The guest speaks FUSE over virtio-fs (vhost-user, VIRTIO 1.2 section 5.11). `device` carries the bytes, [`fuse`]
//! decodes the requests, and the file system is [`Share`]. All of it is on one thread. The guest is hostile and the tree
//! belongs to the host user:
//!
//! - **Nothing outside the root.** The root is opened once. Every name below it is one component, every path is walked
//!   by the kernel with `RESOLVE_BENEATH`, no symbolic link is ever followed (the guest resolves them, in its own
//!   tree), and what was reached is compared with what the guest means, by device, inode number and birth time, before
//!   it is used. What is used then is that descriptor, not the path.
//! - **No descriptor per cached inode.** A node of the table is an identity and where it was last seen. Descriptors are
//!   held for open files and directories, whose number is bounded (the guest gets `ENFILE`), and for some directories
//!   that were used lately (`descriptors`).
//! - **The host user is uid 1000 inside**, whatever its uid; nothing the guest asks makes the server change owner.
//! - **Read-only is enforced here**, not by the guest's mount flags.
//!
//! Limits: see [`limits`].

#![deny(unsafe_code)] // `sys` is the one exception, and says why

mod attributes;
mod by_name;
mod content;
mod descriptors;
mod device;
mod directory;
mod filesystem;
pub mod fuse;
mod guard;
mod handles;
mod late;
pub mod limits;
pub mod log;
mod names;
mod nodes;
mod owner;
pub mod serve;
mod share;
mod state;
mod sys;
mod tree;
mod virtuals;

pub use device::{DeviceError, RingError};
pub use owner::GuestOwner;
pub use share::{Bounds, OpenError, Share};
