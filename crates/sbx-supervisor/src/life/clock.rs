//! Noticing that the guest has lost time: the host slept, its clock was set, or QEMU was paused.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tokio::time::Instant;

/// A smaller difference between two clocks is noise.
const TOLERANCE_NS: u64 = 200_000_000;
/// A guest that answers a ping later than this was paused, or so busy that its clock may have suffered.
const LATE: Duration = Duration::from_secs(1);
/// Set at least this often, against drift.
const PERIOD: Duration = Duration::from_mins(1);

/// Nanoseconds since the Unix epoch.
pub(super) fn unix_ns() -> u64 {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Watches clocks and pings.
#[derive(Debug)]
pub(super) struct Clock {
    offsets: (u64, u64),
    set: Instant,
    token: u64,
    asked: Option<Instant>,
    /// An answer came late, and the guest's clock has not been set since.
    late: bool,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            offsets: offsets(),
            set: Instant::now(),
            token: 0,
            asked: None,
            late: false,
        }
    }

    /// Whether time was lost since the guest's clock was set: the host slept (boot time runs on, monotonic time does
    /// not), its wall clock was set, an answer came late, or the period is over.
    pub(super) fn lost_time(&self) -> bool {
        let now = offsets();
        let jumped = now.0.abs_diff(self.offsets.0) > TOLERANCE_NS
            || now.1.abs_diff(self.offsets.1) > TOLERANCE_NS;
        jumped || self.late || self.set.elapsed() >= PERIOD
    }

    /// The guest's clock is being set.
    pub(super) fn was_set(&mut self) {
        self.offsets = offsets();
        self.set = Instant::now();
        self.late = false;
    }

    /// The token of a ping to send, unless one is under way.
    pub(super) fn ping(&mut self) -> Option<u64> {
        if self.asked.is_some() {
            return None;
        }
        self.token += 1;
        self.asked = Some(Instant::now());
        Some(self.token)
    }

    /// The ping found no room and was not sent.
    pub(super) fn not_asked(&mut self) {
        self.asked = None;
    }

    /// Takes an answer. When it came so late that the guest's clock has to be set, time was [lost](Self::lost_time).
    pub(super) fn pong(&mut self, token: u64) {
        if token == self.token {
            let asked = self.asked.take();
            self.late |= asked.is_some_and(|asked| asked.elapsed() > LATE);
        }
    }
}

/// How far boot time and wall time are ahead of monotonic time.
fn offsets() -> (u64, u64) {
    let monotonic = read(ClockId::Monotonic);
    (
        read(ClockId::Boottime).wrapping_sub(monotonic),
        read(ClockId::Realtime).wrapping_sub(monotonic),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_wall_clock_is_noticed_until_the_guests_is_set_and_a_quiet_second_is_not() {
        let mut clock = Clock::new();
        assert!(!clock.lost_time());
        clock.offsets.1 = clock.offsets.1.wrapping_sub(1_000_000_000);
        assert!(clock.lost_time());
        assert!(clock.lost_time(), "there was no room to say so");
        clock.was_set();
        assert!(!clock.lost_time());
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn late_pong_means_that_the_guest_was_paused() {
        let mut clock = Clock::new();
        let token = clock.ping().unwrap();
        assert_eq!(clock.ping(), None, "one at a time");
        tokio::time::advance(Duration::from_secs(5)).await;
        clock.pong(token + 1);
        assert!(!clock.lost_time(), "an answer nobody asked for");
        clock.pong(token);
        assert!(clock.lost_time());
        clock.was_set();
        let token = clock.ping().unwrap();
        clock.pong(token);
        assert!(!clock.lost_time());
    }
}
