//! Parses and prints times.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

/// A point in time, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub u64);

/// Reads a time (`2026-11-28`, `2026-11-28T08:00:00Z`, `2026-11-28T08:00:00+01:00`), seconds since 1970, or a span until now
/// (`90s`, `10m`, `2h`, `1h30m`). A time without a zone is in UTC.
///
/// # Errors
/// Says what a time looks like.
pub fn moment(text: &str) -> Result<Moment, String> {
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    let found = seconds(text).or_else(|| span(text).map(|ms| now.saturating_sub(ms))).or_else(|| date(text));
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

/// Milliseconds of a span. A year or a month has no fixed length, and is none.
fn span(text: &str) -> Option<u64> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    u64::try_from(duration.as_millis()).ok()
}

fn date(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok().or_else(|| {
        // What has a zone was a time, or is wrong.
        let has_zone = text.get(10..)?.contains(['Z', 'z', '+', '-', '[']);
        let local: DateTime = text.parse().ok().filter(|_| !has_zone)?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })?;
    u64::try_from(time.as_millisecond()).ok()
}

/// Milliseconds since 1970 as RFC 3339, in UTC.
pub(crate) fn rfc3339(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(Timestamp::MAX))
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
            "1y",
            "1mo",
            "1969-12-31",
            "2026-13-01",
            "2026-02-30",
            "2026-11-28T25:00:00Z",
            "-5s",
            "5s ago",
            "2026-11-28T08:00:00+1",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
        assert!(rfc3339(u64::MAX).starts_with("9999-12-3"));
    }
}
