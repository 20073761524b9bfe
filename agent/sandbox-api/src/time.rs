//! Points in time as text: RFC 3339, in UTC where they are written.

use std::fmt::Write as _;

const DAY: i64 = 86_400;
const DAYS_IN_400_YEARS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01, also before it.
    pub seconds: i64,
    /// Nanoseconds after that, less than 1,000,000,000.
    pub nanos: u32,
}

impl Timestamp {
    /// As protobuf's JSON has it: three, six or nine digits of a second, or none if it is a whole one. Years before 1 and
    /// after 9999, which the format does not have, become the nearest time that it has.
    pub fn to_rfc3339(self) -> String {
        const FIRST: i64 = -62_135_596_800;
        const LAST: i64 = 253_402_300_799;
        let seconds = self.seconds.clamp(FIRST, LAST);
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = date(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
        let nanos = self.nanos.min(999_999_999);
        // Writing to a String does not fail.
        let written = match nanos {
            0 => Ok(()),
            _ if nanos.is_multiple_of(1_000_000) => write!(text, ".{:03}", nanos / 1_000_000),
            _ if nanos.is_multiple_of(1_000) => write!(text, ".{:06}", nanos / 1_000),
            _ => write!(text, ".{nanos:09}"),
        };
        debug_assert!(written.is_ok());
        text.push('Z');
        text
    }

    /// Reads `2026-01-31T23:59:59.5+01:00`. None if the text is something else; a leap second is the second after it.
    pub fn from_rfc3339(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| {
            let digits = bytes.get(from..to)?;
            digits
                .iter()
                .all(u8::is_ascii_digit)
                .then(|| digits.iter().fold(0i64, |number, digit| number * 10 + i64::from(digit - b'0')))
        };
        let is = |at: usize, allowed: &[u8]| bytes.get(at).is_some_and(|byte| allowed.contains(byte));
        if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let (mut at, mut nanos) = (19, 0);
        if is(19, b".") {
            at = 20;
            let mut unit = 100_000_000;
            while let Some(digit) = bytes.get(at).filter(|byte| byte.is_ascii_digit()) {
                nanos += u32::from(digit - b'0') * unit;
                unit /= 10;
                at += 1;
            }
            if at == 20 {
                return None;
            }
        }
        let offset = match bytes.get(at)? {
            b'Z' | b'z' if bytes.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
                let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'+' { 1 } else { -1 }
            }
            _ => return None,
        };
        let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
        Some(Timestamp { seconds, nanos })
    }

    /// Nanoseconds since 1970-01-01.
    pub fn as_nanos(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }
}

/// Days of a month.
fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The Gregorian date so many days after 1970-01-01. Years that begin in March have the leap day last, and months in a
/// pattern of 153 days for five.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, day_of_era) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to a date; the inverse of [`date`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    era * DAYS_IN_400_YEARS + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - EPOCH
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64, nanos: u32) -> String {
        Timestamp { seconds, nanos }.to_rfc3339()
    }

    #[test]
    fn known_times_are_written() {
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(-1, 500_000_000), "1969-12-31T23:59:59.500Z");
        assert_eq!(at(951_782_400, 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(at(1_000_000_000, 1_000), "2001-09-09T01:46:40.000001Z");
        assert_eq!(at(i64::MAX, 0), "9999-12-31T23:59:59Z");
        assert_eq!(at(i64::MIN, 0), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn known_times_are_read() {
        let seconds = |text: &str| Timestamp::from_rfc3339(text).map(|time| (time.seconds, time.nanos));
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(seconds("2001-09-09T03:46:40.25+02:00"), Some((1_000_000_000, 250_000_000)));
        assert_eq!(seconds("2001-09-08t20:16:40.0000000019-05:30"), Some((1_000_000_000, 1)));
        assert_eq!(seconds("2016-12-31T23:59:60Z"), seconds("2017-01-01T00:00:00Z"));
        for wrong in [
            "",
            "2001-09-09",
            "2001-09-09T01:46:40",
            "2001-09-09T01:46:40.Z",
            "2001-09-09T01:46:40Zx",
            "2001-13-09T01:46:40Z",
            "2001-02-29T01:46:40Z",
            "2001-09-00T01:46:40Z",
            "2001-09-09T24:46:40Z",
            "2001-09-09T01:60:40Z",
            "2001-09-09T01:46:61Z",
            "2001-09-09T01:46:40+2:00",
            "2001-09-09T01:46:40+24:00",
            "+001-09-09T01:46:40Z",
            "2001-09-09T01:46:4é",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_are_counted_from_1970() {
        let nanos = |text: &str| Timestamp::from_rfc3339(text).map(Timestamp::as_nanos);
        let second = 1_000_000_000;
        assert_eq!(nanos("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(nanos("2000-02-29T12:00:00.5+01:00"), Some(951_822_000 * second + second / 2));
        assert_eq!(nanos("2026-11-28T00:37:11.123456789123Z"), Some(1_795_826_231 * second + 123_456_789));
        assert_eq!(nanos("1969-12-31T23:59:59-00:00"), Some(-second));
        for wrong in [
            "",
            "2026-11-28",
            "2026-11-28T00:37:11",
            "2026-13-28T00:37:11Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T00:37:11.Z",
            "2026-11-28T00:37:11,5Z",
            "2026-11-28T00:37:11Zx",
            "+026-11-28T00:37:11Z",
            "2026-11-28T00:37:11+1:00",
        ] {
            assert_eq!(nanos(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in -62_135_596_800i64..=253_402_300_799, nanos in 0u32..1_000_000_000) {
            let time = Timestamp { seconds, nanos };
            prop_assert_eq!(Timestamp::from_rfc3339(&time.to_rfc3339()), Some(time));
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,40}") {
            let _ = Timestamp::from_rfc3339(&text);
        }
    }
}
