//! SYNs that wait for their upstream, so that a closed port is refused and not accepted and reset.

use std::collections::HashMap;

use super::Flow;
use crate::addresses::ETHERNET_HEADER;
use crate::limits;

/// By what they dialled and from which port. An entry stays for as long as its upstream is being dialled, whatever
/// becomes of its SYN meanwhile: that is what bounds the dials.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// The newest SYN as an IP packet, or none: the guest took it back.
    waiting: HashMap<Flow, Option<Vec<u8>>>,
}

impl Parked {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= limits::PARKED_SYNS
    }

    pub(super) fn contains(&self, flow: Flow) -> bool {
        self.waiting.contains_key(&flow)
    }

    /// Keeps the SYN in a frame. One that comes again takes the place of the earlier one: it may have another sequence
    /// number, and then the guest no longer knows the old one.
    pub(super) fn keep(&mut self, flow: Flow, frame: &[u8]) {
        let packet = frame.get(ETHERNET_HEADER..).unwrap_or_default().to_vec();
        self.waiting.insert(flow, Some(packet));
    }

    /// The guest wants the connection no more.
    pub(super) fn cancel(&mut self, flow: Flow) {
        if let Some(waiting) = self.waiting.get_mut(&flow) {
            *waiting = None;
        }
    }

    /// Ends the waiting. The SYN to go on with, if the guest still wants the connection.
    pub(super) fn take(&mut self, flow: Flow) -> Option<Vec<u8>> {
        self.waiting.remove(&flow).flatten()
    }
}
