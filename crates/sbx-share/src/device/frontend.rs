//! What QEMU asks of the device (vhost-user, docs/interop/vhost-user.rst in QEMU's sources).

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::epoll::{self, EventFlags};
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig,
    VhostUserSharedMsg, VhostUserSingleMemoryRegion, VhostUserVirtioFeatures,
    VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_queue::QueueT as _;
use virtiofsd::filesystem::FileSystem as _;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::dirty::Dirty;
use super::ring::Ring;
use super::transfer::Transfer;
use super::{Device, QUEUES, watch};

/// VIRTIO 1.2 section 6: indirect descriptors, the ring's events, and that version.
const INDIRECT: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;
/// `VHOST_F_LOG_ALL`: say which pages are written.
pub(super) const LOG_ALL: u64 = VhostUserVirtioFeatures::LOG_ALL.bits();
const PROTOCOL: u64 = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
const FEATURES: u64 = INDIRECT | EVENT_IDX | VERSION_1 | LOG_ALL | PROTOCOL;

/// Pieces of memory that a machine may have: as many as KVM had (`KVM_USER_MEM_SLOTS`).
const MAX_REGIONS: u64 = 509;

/// A piece of the guest's memory.
#[derive(Debug)]
pub(super) struct Mapping {
    guest: u64,
    qemu: u64,
    size: u64,
}

impl Mapping {
    fn new(region: &VhostUserMemoryRegion) -> Self {
        Self {
            guest: region.guest_phys_addr,
            qemu: region.user_addr,
            size: region.memory_size,
        }
    }

    /// Where the guest has what QEMU has here.
    fn guest(&self, qemu: u64) -> Option<u64> {
        let offset = qemu.checked_sub(self.qemu)?;
        (offset < self.size).then(|| self.guest.checked_add(offset))?
    }
}

fn mapped(region: &VhostUserMemoryRegion, file: File) -> Result<GuestRegionMmap> {
    let place = GuestAddress(region.guest_phys_addr);
    GuestRegionMmap::new(region.mmap_region(file)?, place).ok_or(Error::InvalidParam)
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::ReqHandlerError(io::Error::other(error))
}

fn ring(rings: &mut [Ring; QUEUES], index: u32) -> Result<&mut Ring> {
    let ring = usize::try_from(index).ok();
    let ring = ring.and_then(|index| rings.get_mut(index));
    ring.ok_or(Error::InvalidParam)
}

impl Device {
    fn ring(&mut self, index: u32) -> Result<&mut Ring> {
        ring(&mut self.rings, index)
    }

    fn guest_address(&self, qemu: u64) -> Result<GuestAddress> {
        let found = self.mappings.iter().find_map(|part| part.guest(qemu));
        found.map(GuestAddress).ok_or(Error::InvalidParam)
    }

    /// Waits for the kicks of a queue, or does not any more. What was kicked before counts.
    fn watch(&mut self, index: u32) -> Result<()> {
        let ring = ring(&mut self.rings, index)?;
        let runs = ring.runs();
        if runs == ring.watched {
            return Ok(());
        }
        if let Some(kick) = &ring.kick {
            let flags = EventFlags::IN | EventFlags::ET;
            let watched = if runs {
                watch(&self.events, kick.as_fd(), index.into(), flags)
            } else {
                epoll::delete(&self.events, kick).map_err(io::Error::from)
            };
            watched.map_err(Error::ReqHandlerError)?;
        }
        ring.watched = runs;
        Ok(())
    }

    /// Replaces what the guest wakes us with.
    fn set_kick(&mut self, index: u32, kick: Option<File>) -> Result<()> {
        // The one before must be among the events no more when it is closed.
        let ring = self.ring(index)?;
        let ready = ring.queue.ready();
        ring.queue.set_ready(false);
        self.watch(index)?;
        let ring = self.ring(index)?;
        ring.kick = kick;
        ring.queue.set_ready(ready || ring.kick.is_some());
        self.watch(index)
    }
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.features = 0;
        Ok(())
    }

    fn reset_device(&mut self) -> Result<()> {
        for index in 0..QUEUES {
            // The guest has begun anew: nobody waits for what was asked before.
            self.rings[index].held.clear();
            let index = u32::try_from(index).map_err(failed)?;
            self.ring(index)?.enabled = false;
            self.watch(index)?;
        }
        self.features = 0;
        self.session.share().destroy();
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES)
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !FEATURES != 0 {
            return Err(Error::InvalidParam);
        }
        self.features = features;
        for index in 0..QUEUES {
            let index = u32::try_from(index).map_err(failed)?;
            let ring = self.ring(index)?;
            ring.queue.set_event_idx(features & EVENT_IDX != 0);
            // Without the protocol's features nobody enables them one by one.
            ring.enabled |= features & PROTOCOL == 0;
            self.watch(index)?;
        }
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE
            | VhostUserProtocolFeatures::RESET_DEVICE)
    }

    fn set_protocol_features(&mut self, _features: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES as u64)
    }

    fn set_mem_table(&mut self, table: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<()> {
        let regions: Result<Vec<_>> = table
            .iter()
            .zip(files)
            .map(|(region, file)| mapped(region, file))
            .collect();
        self.memory = GuestMemoryMmap::from_regions(regions?).map_err(failed)?;
        self.mappings = table.iter().map(Mapping::new).collect();
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(MAX_REGIONS)
    }

    fn add_mem_region(&mut self, region: &VhostUserSingleMemoryRegion, file: File) -> Result<()> {
        if self.mappings.len() as u64 >= MAX_REGIONS {
            return Err(Error::InvalidParam);
        }
        let added = Arc::new(mapped(region, file)?);
        self.memory = self.memory.insert_region(added).map_err(failed)?;
        self.mappings.push(Mapping::new(region));
        Ok(())
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let (place, size) = (region.guest_phys_addr, region.memory_size);
        let removed = self.memory.remove_region(GuestAddress(place), size);
        (self.memory, _) = removed.map_err(failed)?;
        self.mappings.retain(|mapping| mapping.guest != place);
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).map_err(|_| Error::InvalidParam)?;
        let queue = &mut self.ring(index)?.queue;
        queue.try_set_size(size).map_err(|_| Error::InvalidParam)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let descriptors = self.guest_address(descriptors)?;
        let used = self.guest_address(used)?;
        let available = self.guest_address(available)?;
        let memory = self.memory.clone();
        let queue = &mut self.ring(index)?.queue;
        queue
            .try_set_desc_table_address(descriptors)
            .map_err(failed)?;
        queue
            .try_set_avail_ring_address(available)
            .map_err(failed)?;
        queue.try_set_used_ring_address(used).map_err(failed)?;
        // The base that QEMU tells is of the other ring; this one goes on where it was left.
        let used = queue.used_idx(&memory, Ordering::Relaxed).map_err(failed)?;
        queue.set_next_used(used.0);
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        self.ring(index)?.queue.set_next_avail(base);
        Ok(())
    }

    /// Stops the queue. What waits is answered as it is: whoever starts it again knows nothing of it.
    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let queue = usize::try_from(index).map_err(failed)?;
        self.deliver_in(queue, true).map_err(failed)?;
        let ring = self.ring(index)?;
        ring.queue.set_ready(false);
        self.watch(index)?;
        let ring = self.ring(index)?;
        (ring.kick, ring.call) = (None, None);
        Ok(VhostUserVringState::new(
            index,
            ring.queue.next_avail().into(),
        ))
    }

    fn set_vring_kick(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.set_kick(index.into(), fd)
    }

    fn set_vring_call(&mut self, index: u8, fd: Option<File>) -> Result<()> {
        self.ring(index.into())?.call = fd;
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, _fd: Option<File>) -> Result<()> {
        self.ring(index.into()).map(drop)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        self.ring(index)?.enabled = enable;
        self.watch(index)
    }

    fn set_log_base(&mut self, log: &VhostUserLog, file: File) -> Result<()> {
        let dirty = Dirty::new(file, log.mmap_offset, log.mmap_size);
        self.dirty = Some(dirty.map_err(Error::ReqHandlerError)?);
        Ok(())
    }

    fn set_device_state_fd(
        &mut self,
        direction: VhostTransferStateDirection,
        phase: VhostTransferStatePhase,
        file: File,
    ) -> Result<Option<File>> {
        if phase != VhostTransferStatePhase::STOPPED {
            return Err(Error::InvalidParam);
        }
        let begun = match direction {
            VhostTransferStateDirection::SAVE => Transfer::save(self.session.share(), file),
            VhostTransferStateDirection::LOAD => Transfer::load(file),
        };
        self.transfer = Some(begun.map_err(Error::ReqHandlerError)?);
        Ok(None)
    }

    fn check_device_state(&mut self) -> Result<()> {
        let nothing = Error::InvalidOperation("no transfer has begun");
        let transfer = self.transfer.take().ok_or(nothing)?;
        let finished = transfer.finish(self.session.share());
        finished.map_err(|error| {
            tracing::error!(%error, "the share's state is not transferred");
            Error::ReqHandlerError(error)
        })
    }

    // Not offered.

    fn get_config(&mut self, _: u32, _: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        Err(Error::InvalidOperation("it has no configuration"))
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        Err(Error::InvalidOperation("it has no configuration"))
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        Err(Error::InvalidOperation("it is no GPU"))
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        Err(Error::InvalidOperation("it shares no objects"))
    }

    fn get_inflight_fd(&mut self, _: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        Err(Error::InvalidOperation("requests are not kept"))
    }

    fn set_inflight_fd(&mut self, _: &VhostUserInflight, _: File) -> Result<()> {
        Err(Error::InvalidOperation("requests are not kept"))
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        Err(Error::InvalidOperation("it has no shared memory"))
    }
}
