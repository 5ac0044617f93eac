//! Settings that are times.

use super::{AUTO_STOP, START_LIMIT};
use crate::store::StoredSetting;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Default of the time without sessions: long enough to read a diff or fetch a coffee between two
/// commands without a restart, which costs seconds and every process inside; short enough that a forgotten
/// sandbox gives its memory back.
pub(super) const AUTO_STOP_DEFAULT: &str = "15m";
/// Longest such time that can be set, seconds: a week.
const AUTO_STOP_MAX_S: u64 = 7 * 24 * 3600;
/// Default of the time for a machine to take orders: long, because ten emulated guests may start at a time.
pub(super) const START_DEFAULT: &str = "2m";
/// What that time can be.
const START: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_mins(30);

/// Seconds that a sandbox runs on after its last session; `None`: until it is stopped.
pub(crate) fn auto_stop_s(stored: &BTreeMap<String, StoredSetting>) -> Option<u64> {
    let text = stored
        .get(AUTO_STOP)
        .map_or(AUTO_STOP_DEFAULT, |stored| &stored.value);
    // Stored values passed the check; with one that a hand changed since, nothing is stopped by itself.
    auto_stop(text).unwrap_or_default()
}

/// Time from the start of a machine to a guest that takes orders.
pub(crate) fn start_limit(stored: &BTreeMap<String, StoredSetting>) -> Duration {
    let stored = stored.get(START_LIMIT).map(|stored| &*stored.value);
    // A value that a hand changed since is as none.
    let set = stored.and_then(|text| start_limit_of(text).ok());
    set.unwrap_or_else(|| start_limit_of(START_DEFAULT).unwrap_or(*START.end()))
}

pub(super) fn start_limit_of(text: &str) -> Result<Duration, String> {
    let time = seconds(text).map(Duration::from_secs);
    time.filter(|time| START.contains(time))
        .ok_or_else(|| format!("{text:?} is not a time from 5s to 30m, such as 90s or 5m"))
}

pub(super) fn auto_stop(text: &str) -> Result<Option<u64>, String> {
    if text.trim().eq_ignore_ascii_case("never") {
        return Ok(None);
    }
    let seconds = seconds(text).filter(|seconds| *seconds <= AUTO_STOP_MAX_S);
    seconds.map(Some).ok_or_else(|| {
        format!("{text:?} is neither never nor a time such as 90s, 15m or 8h, at most 168h")
    })
}

/// Seconds of a time with its unit: `90s`, `15m`, `8h`; `0` needs none.
fn seconds(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (number, factor) = match lower.chars().last() {
        Some('s') => (&lower[..lower.len() - 1], 1),
        Some('m') => (&lower[..lower.len() - 1], 60),
        Some('h') => (&lower[..lower.len() - 1], 3600),
        _ if lower == "0" => ("0", 1),
        _ => ("", 1),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number = number.parse::<u64>().ok().filter(|_| digits);
    number?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_without_sessions_are_read_and_bounded() {
        for (text, seconds) in [
            ("0", Some(0)),
            ("90s", Some(90)),
            ("15M", Some(900)),
            ("168h", Some(AUTO_STOP_MAX_S)),
            (" never ", None),
        ] {
            assert_eq!(auto_stop(text), Ok(seconds), "{text}");
        }
        for bad in [
            "",
            "m",
            "15",
            "-1m",
            "+1m",
            "1.5h",
            "169h",
            "1d",
            "99999999999999999999h",
        ] {
            assert!(auto_stop(bad).is_err(), "{bad}");
        }
        assert_eq!(auto_stop_s(&BTreeMap::new()), Some(900));
    }

    #[test]
    fn a_start_has_from_seconds_to_half_an_hour() {
        let limit = |text| start_limit_of(text).map(|time| time.as_secs());
        assert_eq!(limit("5s"), Ok(5));
        assert_eq!(limit(" 2M "), Ok(120));
        assert_eq!(limit("30m"), Ok(1800));
        for text in [
            "",
            "0",
            "4s",
            "31m",
            "never",
            "-5s",
            "5",
            "+5s",
            "99999999999999999999h",
        ] {
            assert!(limit(text).is_err(), "{text}");
        }
        let none = BTreeMap::new();
        assert_eq!(start_limit(&none), Duration::from_mins(2));
    }
}
