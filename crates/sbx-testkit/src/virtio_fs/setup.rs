//! What is said to a server before the first request.

use super::memory::GUEST_BASE;
use super::queue::{Queue, SIZE};
use super::vhost::{Vhost, message};
use super::{Error, Result};

/// `VIRTIO_F_VERSION_1` and `VHOST_USER_F_PROTOCOL_FEATURES`: what every server has.
const FEATURES: u64 = 1 << 32 | 1 << 30;
/// `VIRTIO_F_EVENT_IDX`, which every guest's kernel takes. This device tells the server once where it wants to be
/// notified: of the first answer in each queue.
pub const EVENT_IDX: u64 = 1 << 29;
/// `VHOST_F_LOG_ALL`: the server is to say which pages it writes, in a file that it is given with
/// [`message::SET_LOG_BASE`].
pub const LOG_ALL: u64 = 1 << 26;
/// `VHOST_USER_PROTOCOL_F_REPLY_ACK`, and `VHOST_USER_PROTOCOL_F_LOG_SHMFD` for those who want [`LOG_ALL`].
const REPLY_ACK: u64 = 1 << 3;
const LOG_SHMFD: u64 = 1 << 1;
/// Where the memory is said to be in our process; rings are told in these addresses. Made up: nobody follows them here.
pub(super) const USER_BASE: u64 = 0x7000_0000_0000;

/// Agrees on what is needed, and on these features beyond it.
pub(super) fn negotiate(vhost: &mut Vhost, features: u64) -> Result<()> {
    let features = FEATURES | features;
    vhost.set(message::SET_OWNER, &[], &[])?;
    let offered = vhost.get(message::GET_FEATURES)?;
    if offered & features != features {
        return Err(Error::Wrong(format!("features {offered:#x}")));
    }
    let protocol = vhost.get(message::GET_PROTOCOL_FEATURES)?;
    let log = if features & LOG_ALL == 0 {
        0
    } else {
        LOG_SHMFD
    };
    let taken = protocol & (REPLY_ACK | log);
    vhost.set(message::SET_PROTOCOL_FEATURES, &taken.to_le_bytes(), &[])?;
    if taken & REPLY_ACK != 0 {
        vhost.acknowledged();
    }
    vhost.set(message::SET_FEATURES, &features.to_le_bytes(), &[])
}

/// Tells the server of a queue, in the order in which QEMU does it.
pub(super) fn start(vhost: &Vhost, index: u32, queue: &Queue) -> Result<()> {
    let state = |value: u32| [index, value].map(u32::to_le_bytes).concat();
    vhost.set(message::SET_VRING_NUM, &state(SIZE.into()), &[])?;
    vhost.set(message::SET_VRING_BASE, &state(0), &[])?;
    let [descriptors, used, available] = queue.places().map(|at| at - GUEST_BASE + USER_BASE);
    let places = [descriptors, used, available, 0].map(u64::to_le_bytes);
    let address = [state(0), places.concat()].concat();
    vhost.set(message::SET_VRING_ADDR, &address, &[])?;
    let number = u64::from(index).to_le_bytes();
    vhost.set(message::SET_VRING_KICK, &number, &[queue.kick_fd()])?;
    vhost.set(message::SET_VRING_CALL, &number, &[queue.call_fd()])?;
    vhost.set(message::SET_VRING_ENABLE, &state(1), &[])
}
