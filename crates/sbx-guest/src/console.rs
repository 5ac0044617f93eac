//! Lines on the machine's console (standard error of PID 1), which the host keeps as the console log.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

static DEBUG: AtomicBool = AtomicBool::new(false);

/// Turns [`debug`] lines on: `sbx.debug` on the kernel command line.
pub fn set_debug(on: bool) {
    DEBUG.store(on, Ordering::Relaxed);
}

/// Writes one line. A console that cannot be written to is nobody's to report to.
pub fn say(text: &str) {
    let line = format!("sbx-guest: {text}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Writes one line with the time since kernel start, if asked for.
pub fn debug(text: &str) {
    if DEBUG.load(Ordering::Relaxed) {
        say(&format!("[{} ms] {text}", uptime_ms()));
    }
}

/// Milliseconds since the kernel started.
pub fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    seconds * 1000 + millis
}
