//! When which connection wants to be looked at without a cause: at most one time for each.

use std::collections::BTreeSet;

use smoltcp::time::Instant;

use super::Flow;

/// The times, soonest first.
#[derive(Debug, Default)]
pub(super) struct Timers {
    times: BTreeSet<(Instant, Flow)>,
}

impl Timers {
    /// Moves a connection's time from `current` to `wanted`. A later one is left for when the current one is due: most
    /// connections put their time off with every packet.
    pub(super) fn set(
        &mut self,
        flow: Flow,
        current: &mut Option<Instant>,
        wanted: Option<Instant>,
    ) {
        match (*current, wanted) {
            (_, None) => {}
            (Some(at), Some(wanted)) if at <= wanted => {}
            (_, Some(wanted)) => {
                self.clear(flow, current);
                self.times.insert((wanted, flow));
                *current = Some(wanted);
            }
        }
    }

    /// Forgets a connection's time.
    pub(super) fn clear(&mut self, flow: Flow, current: &mut Option<Instant>) {
        if let Some(at) = current.take() {
            self.times.remove(&(at, flow));
        }
    }

    /// The soonest time.
    pub(super) fn next(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }

    /// A connection whose time has come. It has none from now on.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Flow> {
        if self.next()? > now {
            return None;
        }
        self.times.pop_first().map(|(_, flow)| flow)
    }
}
