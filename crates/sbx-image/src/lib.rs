//! Images: what a sandbox's machine starts from.
//!
//! An image is a folder `<cache>/images/<key>/` that is complete from the moment it has that name. The base
//! image holds the kernel, the modules of the initramfs, a read-only EROFS root file system and two empty,
//! sparse ext4 disks; the image of an agent is one more EROFS layer on top of a base image. It is
//! built by `sbx-image-worker`, a short-lived process of the same user, and inside it by a child in a user
//! namespace of its own, so that the daemon runs none of the tools.
//!
//! - [`ensure`] is what the daemon calls: it opens the image or has the worker build it;
//! - [`ensure_small`] does the same for the small kernel, which can take the place of an image's own;
//! - [`build_initramfs`] joins a kernel's modules with the guest binary.

#![forbid(unsafe_code)]

pub mod apt;
mod build;
mod client;
mod customise;
mod debian;
mod disks;
mod elf;
mod error;
mod image;
mod initramfs;
mod inside;
mod kernel;
mod layer;
mod manifest;
mod modules;
mod namespace;
mod preflight;
mod prune;
mod recipe;
mod request;
mod run;
mod scratch;
mod small;
mod store;
mod tools;
pub mod worker;

pub use client::ensure;
pub use disks::create_ext4;
pub use error::ImageError;
pub use image::Image;
pub use initramfs::{build_initramfs, initramfs_path};
pub use manifest::{Disk, FinishStep, Kernel, Manifest};
pub use namespace::check as check_namespaces;
pub use preflight::check as preflight;
pub use prune::Leftovers;
pub use recipe::SUITE;
pub use request::{AptSources, Request};
pub use small::{Priority, SmallKernel, SmallRequest, ensure_small};
pub use store::Store;
