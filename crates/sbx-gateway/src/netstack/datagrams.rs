//! The guest's datagrams: DNS, and flows where UDP is open.

use std::ops::Range;

use super::host::{Datagrams, DnsTicket, Host};
use super::{Flow, Stack};
use crate::addresses::{DNS_PORT, GATEWAY};
use crate::limits;
use crate::reason::Reason;

impl<H: Host> Stack<H> {
    pub(super) fn datagram(&mut self, flow: Flow, place: Range<usize>, payload: Range<usize>) {
        let payload = self.link.frame(place.clone())[payload].to_vec();
        if (flow.address, flow.port) == (GATEWAY, DNS_PORT) {
            // Beyond the limit: the guest asks again.
            if self.dns_in_flight < limits::DNS_IN_FLIGHT {
                self.dns_in_flight += 1;
                let answers = self.answers.clone();
                self.host.dns_question(payload, DnsTicket { flow, answers });
            }
            return;
        }
        let open = self.datagrams.get(&flow);
        if open.is_none_or(Datagrams::is_over) && !self.open_datagrams(flow) {
            self.feed_nobody(place);
        } else if let Some(open) = self.datagrams.get(&flow) {
            open.offer(payload, &self.sending);
        }
    }

    /// Whether a flow may be opened; it is, then.
    fn open_datagrams(&mut self, flow: Flow) -> bool {
        self.datagrams.remove(&flow);
        if self.datagrams.len() >= limits::UDP_FLOWS {
            self.datagrams.retain(|_, open| !open.is_over());
        }
        if self.datagrams.len() >= limits::UDP_FLOWS {
            let reason = Reason::ConnectionLimit;
            self.host.stopped(reason, flow.address.into(), flow.port);
            return false;
        }
        let opened = self.host.datagrams(flow);
        let allowed = opened.is_some();
        self.datagrams.extend(opened.map(|open| (flow, open)));
        allowed
    }
}
