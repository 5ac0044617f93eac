//! Times as the API states them: RFC 3339, UTC, whole seconds.

/// Seconds since the Unix epoch as RFC 3339.
pub fn rfc3339(unix_s: u64) -> String {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Gregorian date of a day since 1970-01-01, counted in 400-year eras that begin on 1 March, so that the
/// leap day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days.saturating_add(719_468); // from 0000-03-01 to 1970-01-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Seconds since the Unix epoch of a time in UTC: `2026-01-31`, `2026-01-31T12:30:00Z`, or with a space in the middle
/// and without the `Z`. `None`: something else, or before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time.trim_end_matches(['Z', 'z'])),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if year < 1970 || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // A lower bound, short of the leap days until then and of the months that are longer than February.
    let before = (year - 1970) * 365 + (month.checked_sub(1)?) * 28;
    let days = (before..before + 2_100).find(|days| civil(*days) == (year, month, day))?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Three numbers of fixed width.
fn numbers(text: &str, between: char, widths: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        let good = part.len() == width && part.bytes().all(|b| b.is_ascii_digit());
        *number = part.parse().ok().filter(|_| good)?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date_utility() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(rfc3339(1_709_251_199), "2024-02-29T23:59:59Z");
        assert_eq!(rfc3339(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339(1_735_689_599), "2024-12-31T23:59:59Z");
    }

    #[test]
    fn dates_are_read_as_they_are_written() {
        for seconds in (0..4_200_000_000_u64).step_by(1_234_577) {
            assert_eq!(parse_rfc3339(&rfc3339(seconds)), Some(seconds));
        }
        assert_eq!(parse_rfc3339("2024-02-29"), Some(1_709_164_800));
        assert_eq!(parse_rfc3339("2024-02-29 00:00:01"), Some(1_709_164_801));
        for bad in [
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "24-01-01",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00+01:00",
            "1969-12-31",
            "2024-1-1",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
