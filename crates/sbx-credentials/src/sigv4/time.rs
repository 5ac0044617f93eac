//! The one form of time in a signature.

use std::fmt;

/// A time as `X-Amz-Date` has it: `YYYYMMDD'T'HHMMSS'Z'` (ISO 8601, basic format, UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    text: String,
    seconds: u64,
}

impl Timestamp {
    /// Reads that form and no other, for a day that there is since 1970.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
            return None;
        }
        let number = |from: usize, to: usize| {
            let digits = bytes.get(from..to)?;
            digits.iter().try_fold(0_u64, |value, byte| {
                let digit = char::from(*byte).to_digit(10)?;
                Some(value * 10 + u64::from(digit))
            })
        };
        let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
        let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
        // A leap second is the first of the next minute, as for everybody else.
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let seconds = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
        let text = text.to_owned();
        Some(Self { text, seconds })
    }

    /// Reads a time of RFC 3339 in UTC, as answers of the services have it; parts of a second are left out.
    pub fn of_rfc3339(text: &str) -> Option<Self> {
        let plain = text.strip_suffix('Z')?;
        let (whole, part) = plain.split_once('.').unwrap_or((plain, "0"));
        let is_part = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (day, time) = whole.split_once('T')?;
        let formed = is_part && day.len() == 10 && time.len() == 8;
        let basic = format!("{}T{}Z", day.replace('-', ""), time.replace(':', ""));
        formed.then(|| Self::parse(&basic)).flatten()
    }

    /// Seconds since the Unix epoch.
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// The day, `YYYYMMDD`.
    pub fn date(&self) -> &str {
        &self.text[..8]
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Days since 1 January 1970, in the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if year < 1970 || day == 0 || day > length {
        return None;
    }
    // Years that begin in March, so that the leap day is the last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * m + 2) / 5 + day - 1;
    let before = y * 365 + y / 4 - y / 100 + y / 400;
    // 719,468: from 1 March of the year 0 to the epoch.
    (before + day_of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_one_form() {
        for (text, seconds) in [
            ("19700101T000000Z", 0),
            ("20150830T123600Z", 1_440_938_160),
            ("20240229T235959Z", 1_709_251_199),
            ("20000301T000000Z", 951_868_800),
            ("99991231T235959Z", 253_402_300_799),
        ] {
            let time = Timestamp::parse(text).unwrap();
            assert_eq!(time.seconds(), seconds, "{text}");
            assert_eq!(time.to_string(), text);
        }
    }

    #[test]
    fn times_of_answers_are_read_to_the_second() {
        let time = |text: &str| Timestamp::of_rfc3339(text).map(|time| time.seconds());
        assert_eq!(time("2015-08-30T12:36:00Z"), Some(1_440_938_160));
        assert_eq!(time("2015-08-30T12:36:00.123Z"), Some(1_440_938_160));
        for text in [
            "",
            "2015-08-30T12:36:00",
            "2015-08-30T12:36:00+00:00",
            "2015-08-30 12:36:00Z",
            "2015-08-30T12:36:00.Z",
            "20150830T123600Z",
            "2015-08-30T12-36-00Z",
            "2015-13-30T12:36:00Z",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_such_time_is_refused() {
        for text in [
            "",
            "20150830T123600",
            "20150830 123600Z",
            "2015-08-30T12:36Z",
            "20150230T123600Z",
            "20230229T000000Z",
            "19691231T235959Z",
            "20151330T123600Z",
            "20150800T123600Z",
            "20150830T243600Z",
            "20150830T126000Z",
            "+0150830T123600Z",
            "2015083éT12360Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
