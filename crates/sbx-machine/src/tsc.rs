//! Frequency of the host's time stamp counter.
//!
//! Under emulation the guest's counter is the host's, and a guest kernel that has to calibrate it against
//! emulated timers sometimes hangs for ever on a loaded host. So the guest is told (`tsc_early_khz=`).

use rustix::time::{ClockId, clock_gettime};
use std::sync::OnceLock;

/// Length of the measurement. One sample is exact to about 100 ns, so this gives some 20 parts per million.
const SPAN_NS: u64 = 10_000_000;
/// Samples per end of the span; the tightest one counts, the others were interrupted.
const SAMPLES: usize = 16;

/// Host counter frequency in kHz; `None` where there is no such counter. Measured once per process (10 ms,
/// busy, because a sleeping one would be no shorter and no more exact).
pub fn khz() -> Option<u32> {
    static KHZ: OnceLock<Option<u32>> = OnceLock::new();
    *KHZ.get_or_init(|| exported().or_else(measure))
}

/// Some kernels export the figure they use themselves.
fn exported() -> Option<u32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/tsc_freq_khz").ok()?;
    text.trim().parse().ok().filter(|khz| plausible(*khz))
}

fn plausible(khz: u32) -> bool {
    (100_000..=20_000_000).contains(&khz)
}

fn measure() -> Option<u32> {
    let (start_ticks, start_ns) = sample()?;
    loop {
        let (ticks, now_ns) = sample()?;
        let elapsed = now_ns.checked_sub(start_ns)?;
        if elapsed >= SPAN_NS {
            let ticks = u128::from(ticks.checked_sub(start_ticks)?);
            let khz = (ticks * 1_000_000 / u128::from(elapsed)).try_into().ok()?;
            return plausible(khz).then_some(khz);
        }
    }
}

/// Counter and raw monotonic clock (ns) at the same moment.
fn sample() -> Option<(u64, u64)> {
    (0..SAMPLES)
        .filter_map(|_| {
            let before = read()?;
            let now = clock_gettime(ClockId::MonotonicRaw);
            let after = read()?;
            let ns = u64::try_from(now.tv_sec).ok()? * 1_000_000_000
                + u64::try_from(now.tv_nsec).ok()?;
            let gap = after.checked_sub(before)?;
            Some((gap, before + gap / 2, ns))
        })
        .min()
        .map(|(_, ticks, ns)| (ticks, ns))
}

#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "the counter can only be read by its instruction"
)]
#[expect(
    clippy::unnecessary_wraps,
    reason = "other processors have no such counter"
)]
fn read() -> Option<u64> {
    // SAFETY: RDTSC has no operands, touches no memory, and exists on every x86-64 processor. (Linux can
    // be told to forbid it per process, PR_SET_TSC; nobody does so to us, and then it is a clean SIGSEGV.)
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn read() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree_within_a_thousandth() {
        let (a, b) = (measure().unwrap(), measure().unwrap());
        assert!(a.abs_diff(b) < a / 1000, "{a} and {b} kHz");
    }
}
