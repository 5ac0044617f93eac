//! Points in time as people write them.

use sbx_wire::time::parse_rfc3339;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Since(pub(crate) u64);

impl Since {
    pub(crate) fn now() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self(now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Reads a time (UTC) or how long ago it was: `2026-01-31T12:00:00Z`, `2026-01-31`, `90s`, `10m`, `2h`, `3d`, `1w`.
pub(crate) fn parse(text: &str) -> Result<Since, String> {
    if let Some(seconds) = parse_rfc3339(text) {
        return Ok(Since(seconds * 1000));
    }
    ago(text, Since::now()).ok_or_else(|| {
        "write how long ago, such as 90s, 10m, 2h, 3d, or a time in UTC, such as 2026-01-31T12:00:00Z".to_owned()
    })
}

fn ago(text: &str, now: Since) -> Option<Since> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let count = &text[..text.len() - 1];
    let plain = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = count.parse().ok().filter(|_| plain)?;
    let span = count.checked_mul(unit * 1000)?;
    Some(Since(now.0.saturating_sub(span)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_are_read_and_everything_else_refused() {
        let now = Since(1_000_000_000);
        assert_eq!(ago("90s", now), Some(Since(999_910_000)));
        assert_eq!(ago("2h", now), Some(Since(992_800_000)));
        assert_eq!(ago("1w", now), Some(Since(395_200_000)));
        assert_eq!(ago("99999999w", now), Some(Since(0)));
        assert_eq!(parse("1970-01-01T00:00:09Z"), Ok(Since(9000)));
        for bad in [
            "",
            "s",
            "10",
            "-1s",
            "+1s",
            "1.5h",
            "10x",
            "yesterday",
            "99999999999999999999s",
            "10\u{e9}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
