//! Which pages of the guest's memory were written, while QEMU saves them with the machine running.
//!
//! QEMU gives a file with a bit for each page of 4 KiB (`VHOST_USER_SET_LOG_BASE`). All of the room of an answer is
//! marked, whatever was written of it: a page too many is saved twice, one too few is lost.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::{FileOffset, MmapRegion, VolatileMemory as _};

/// Bytes of a page (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;
/// Bytes of a used ring besides its entries, and of an entry (VIRTIO 1.2 section 2.7.8).
const USED_RING: u64 = 6;
const USED_ENTRY: u64 = 8;

/// The bits.
pub(super) struct Dirty(MmapRegion);

impl Dirty {
    /// Those in a file of QEMU's.
    pub(super) fn new(file: File, offset: u64, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(io::Error::other)?;
        let region = MmapRegion::from_file(FileOffset::new(file, offset), size);
        Ok(Self(region.map_err(io::Error::other)?))
    }

    /// A request was answered: its room and the ring that says so have changed.
    pub(super) fn mark_answer(&self, room: &[(u64, u32)], used_ring: u64, queue_size: u16) {
        for (at, length) in room {
            self.mark(*at, u64::from(*length));
        }
        self.mark(used_ring, USED_RING + USED_ENTRY * u64::from(queue_size));
    }

    fn mark(&self, from: u64, length: u64) {
        let Some(last) = length
            .checked_sub(1)
            .and_then(|rest| from.checked_add(rest))
        else {
            return;
        };
        for page in from / PAGE..=last / PAGE {
            // What has no bit is no memory that QEMU saves.
            let Some(place) = usize::try_from(page / 8)
                .ok()
                .filter(|at| *at < self.0.size())
            else {
                return;
            };
            let bits = self.0.as_volatile_slice();
            if let Ok(byte) = bits.get_atomic_ref::<AtomicU8>(place) {
                byte.fetch_or(1 << (page % 8), Ordering::Relaxed);
            }
        }
    }
}
