//! Times as people write them, and as they are shown.

use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub u64);

/// Reads a time (`2026-11-28`, `2026-11-28T08:00:00Z`, `2026-11-28T08:00:00+01:00`), seconds since 1970, or a span until now
/// (`90s`, `10m`, `2h`, `1h30m`).
///
/// # Errors
/// Says what a time looks like.
pub fn moment(text: &str) -> Result<Moment, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = u64::try_from(now).unwrap_or(u64::MAX);
    let found = span(text).map(|ms| now.saturating_sub(ms)).or_else(|| seconds(text)).or_else(|| date(text));
    found.map(Moment).ok_or_else(|| {
        format!("{text:?} is no time such as 2026-11-28T08:00:00Z, and no span such as 90s, 10m or 2h")
    })
}

fn seconds(text: &str) -> Option<u64> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| *seconds >= 0.0 && seconds.is_finite())
        .map(|seconds| (seconds * 1e3) as u64)
}

fn span(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| end + at);
        let ms = match &rest[end..unit] {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 6e4,
            "h" => 3.6e6,
            "d" => 8.64e7,
            _ => return None,
        };
        total = total.saturating_add((number * ms) as u64);
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

/// RFC 3339, in which the time of day can be left out.
fn date(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00:00Z"));
    let part = |text: &str, digits: usize| -> Option<u64> {
        (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let [year, month, day] = date.split('-').collect::<Vec<_>>()[..] else { return None };
    let (year, month, day) = (part(year, 4)?, part(month, 2)?, part(day, 2)?);
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month.checked_sub(1)?).ok()?)?;
    if year < 1970 || day == 0 || day > length {
        return None;
    }
    let days =
        days_before(year) + lengths.iter().take(usize::try_from(month).ok()? - 1).sum::<u64>() + day - 1;
    let at = time.find(['Z', 'z', '+', '-']);
    let (clock, zone) = time.split_at(at.unwrap_or(time.len()));
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let clock: Vec<&str> = clock.split(':').collect();
    let (hour, minute, second) = match clock[..] {
        [hour, minute] => (part(hour, 2)?, part(minute, 2)?, 0),
        [hour, minute, second] => (part(hour, 2)?, part(minute, 2)?, part(second, 2)?),
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ms = (format!("0.{fraction}").parse::<f64>().ok()? * 1e3) as u64;
    let local = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let utc = match zone {
        "" | "Z" | "z" => local,
        _ => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let shift = (part(hours, 2)? * 60 + part(minutes, 2)?) * 60;
            if zone.starts_with('+') { local.checked_sub(shift)? } else { local + shift }
        }
    };
    Some(utc * 1000 + ms)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days from 1970 to the first of January of a year.
fn days_before(year: u64) -> u64 {
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leaps(year - 1) - leaps(1969)
}

/// Milliseconds since 1970 as RFC 3339, in UTC.
pub(crate) fn rfc3339(ms: u64) -> String {
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (mut days, clock) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    days -= days_before(year);
    let lengths = [31, if is_leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2026-11-28T08:09:10Z", 1_795_853_350),
            ("2026-11-28T09:09:10+01:00", 1_795_853_350),
            ("2026-11-28 08:09", 1_795_853_340),
            ("1795853350", 1_795_853_350),
        ] {
            assert_eq!(moment(text), Ok(Moment(seconds * 1000)), "{text}");
        }
        assert_eq!(date("2026-11-28T08:09:10.25Z"), Some(1_795_853_350_250));
        for ms in [0, 951_782_400_000, 951_825_600_123, 1_795_853_350_999, 4_102_444_799_000] {
            assert_eq!(date(&rfc3339(ms)), Some(ms), "{}", rfc3339(ms));
        }
        assert_eq!(rfc3339(951_825_600_123), "2000-02-29T12:00:00.123Z");
        assert_eq!(
            (span("1h30m"), span("90s"), span("250ms"), span("2d")),
            (Some(5_400_000), Some(90_000), Some(250), Some(172_800_000))
        );
        for text in [
            "",
            "x",
            "10",
            "1y",
            "2026-13-01",
            "2026-02-30",
            "2026-11-28T25:00:00Z",
            "-5s",
            "2026-11-28T08:00:00+1",
        ] {
            assert!(moment(text).is_err() || text == "10", "{text}");
        }
    }
}
