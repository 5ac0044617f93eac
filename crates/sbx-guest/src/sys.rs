//! The few system calls that have no safe form in rustix, each with its argument.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::ioctl::{self, Setter};
use rustix::process::{Gid, Signal, Uid};
use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Which step failed between `fork` and `exec`; one byte on [`ChildSetup::stage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Session or controlling terminal.
    Terminal,
    /// User or groups.
    Identity,
    /// Working directory.
    Directory,
}

impl Stage {
    const fn byte(self) -> u8 {
        match self {
            Self::Terminal => b't',
            Self::Identity => b'i',
            Self::Directory => b'd',
        }
    }

    /// The stage that a byte from the child stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Terminal, Self::Identity, Self::Directory]
            .into_iter()
            .find(|stage| stage.byte() == byte)
    }
}

/// What a child does to itself before it becomes the requested program.
#[derive(Debug)]
pub struct ChildSetup {
    /// Standard input is a terminal that becomes the controlling one.
    pub terminal: bool,
    /// User, group and supplementary groups; `None` keeps the caller's.
    pub identity: Option<(Uid, Gid, Vec<Gid>)>,
    /// Working directory.
    pub workdir: CString,
    /// Close-on-exec pipe that receives the byte of a failed [`Stage`].
    pub stage: OwnedFd,
}

impl ChildSetup {
    /// Runs in the child, after `fork` and the set-up of the standard streams.
    fn apply(&self) -> Result<(), (Stage, Errno)> {
        rustix::process::setsid().map_err(|error| (Stage::Terminal, error))?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())
                .map_err(|error| (Stage::Terminal, error))?;
        }
        if let Some((uid, gid, groups)) = &self.identity {
            rustix::thread::set_thread_groups(groups)
                .and_then(|()| rustix::thread::set_thread_res_gid(*gid, *gid, *gid))
                .and_then(|()| rustix::thread::set_thread_res_uid(*uid, *uid, *uid))
                .map_err(|error| (Stage::Identity, error))?;
        }
        rustix::process::chdir(self.workdir.as_c_str()).map_err(|error| (Stage::Directory, error))
    }
}

/// Makes `command`'s child a session of its own with the given identity, terminal and directory.
pub fn prepare_child(command: &mut Command, setup: ChildSetup) {
    let hook = move || {
        setup.apply().map_err(|(stage, error)| {
            // The byte explains the error that spawn returns; without it the error is still reported.
            let _ = rustix::io::write(&setup.stage, &[stage.byte()]);
            io::Error::from(error)
        })
    };
    // SAFETY: the hook runs in a child forked from a threaded process, so it must be async-signal-safe.
    // It makes only direct system calls (rustix's linux_raw backend takes no locks and calls no libc),
    // touches only memory allocated before the fork, and allocates nothing: an `io::Error` made from an
    // errno is a plain value. The thread-level identity calls are the whole process there, because a
    // forked child has one thread.
    unsafe {
        command.pre_exec(hook);
    }
}

/// A signal by number, including the real-time ones. `None` outside 1..=64.
pub fn signal(number: i32) -> Option<Signal> {
    (1..=64).contains(&number).then(|| {
        // SAFETY: the value is in the kernel's range (1..=_NSIG, 64 on Linux) and is only ever passed to
        // `kill`, for which the numbers that libc reserves for itself (32, 33) are ordinary.
        unsafe { Signal::from_raw_unchecked(number) }
    })
}

/// Most bytes that one [`add_entropy`] takes.
pub const ENTROPY_MAX: usize = 256;

/// `struct rand_pool_info` (`linux/random.h`) with a buffer of fixed size.
#[repr(C)]
struct RandPoolInfo {
    entropy_bits: i32,
    buffer_bytes: i32,
    buffer: [u8; ENTROPY_MAX],
}

/// Mixes bytes into the kernel's pool and credits them in full (`RNDADDENTROPY`, `random(4)`).
/// More than [`ENTROPY_MAX`] bytes are cut off.
pub fn add_entropy(random: impl AsFd, bytes: &[u8]) -> rustix::io::Result<()> {
    const RNDADDENTROPY: ioctl::Opcode = ioctl::opcode::write::<[i32; 2]>(b'R', 0x03);
    let length = bytes.len().min(ENTROPY_MAX);
    let mut info = RandPoolInfo {
        entropy_bits: 0,
        buffer_bytes: 0,
        buffer: [0; ENTROPY_MAX],
    };
    info.buffer[..length].copy_from_slice(&bytes[..length]);
    info.buffer_bytes = i32::try_from(length).unwrap_or(0);
    info.entropy_bits = info.buffer_bytes * 8;
    // SAFETY: the opcode takes a pointer to `rand_pool_info`, whose layout the struct repeats; the kernel
    // reads `buffer_bytes` bytes from `buffer`, which is at least that long.
    unsafe { ioctl::ioctl(random, Setter::<RNDADDENTROPY, _>::new(info)) }
}

/// Makes the kernel's generators start anew from the pool, at once (`RNDRESEEDCRNG`, `random(4)`).
pub fn reseed(random: impl AsFd) -> rustix::io::Result<()> {
    const RNDRESEEDCRNG: ioctl::Opcode = ioctl::opcode::none(b'R', 0x07);
    // SAFETY: the opcode takes no argument.
    unsafe { ioctl::ioctl(random, ioctl::NoArg::<RNDRESEEDCRNG>::new()) }
}

/// Grows a mounted ext4 to `blocks` file-system blocks (`EXT4_IOC_RESIZE_FS`, `linux/ext4.h`).
pub fn ext4_grow(mount_point: impl AsFd, blocks: u64) -> rustix::io::Result<()> {
    const EXT4_IOC_RESIZE_FS: ioctl::Opcode = ioctl::opcode::write::<u64>(b'f', 16);
    // SAFETY: the opcode reads one `u64` through the pointer; on another file system it fails with ENOTTY.
    unsafe { ioctl::ioctl(mount_point, Setter::<EXT4_IOC_RESIZE_FS, _>::new(blocks)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_outside_the_kernels_range_are_refused() {
        assert!(signal(0).is_none());
        assert!(signal(-9).is_none());
        assert!(signal(65).is_none());
        assert_eq!(signal(9), Some(Signal::KILL));
        assert_eq!(signal(64).map(Signal::as_raw), Some(64));
    }

    #[test]
    fn every_stage_survives_its_byte() {
        for stage in [Stage::Terminal, Stage::Identity, Stage::Directory] {
            assert_eq!(Stage::from_byte(stage.byte()), Some(stage));
        }
        assert_eq!(Stage::from_byte(b'?'), None);
    }
}
