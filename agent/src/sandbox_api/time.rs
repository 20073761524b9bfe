//! Times as RFC 3339 writes them. Pure.

/// Nanoseconds since 1970 of a time like `2026-11-28T01:02:03.5Z`; none for what is no such time.
pub(super) fn parse(text: &str) -> Option<i128> {
    let bytes = text.as_bytes();
    let digits = |from: usize, count: usize| -> Option<i64> {
        let part = bytes.get(from..from + count)?;
        part.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(part).ok()?.parse().ok())?
    };
    let is = |at: usize, what: &[u8]| bytes.get(at).is_some_and(|byte| what.contains(byte));
    let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
    let (hour, minute, second) = (digits(11, 2)?, digits(14, 2)?, digits(17, 2)?);
    let is_shaped = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let is_time =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    if !is_shaped || !is_time {
        return None;
    }
    let mut at = 19;
    let mut nanoseconds = 0;
    if is(at, b".") {
        let count = bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let kept = count.min(9);
        nanoseconds = digits(at + 1, kept).filter(|_| count > 0)? * 10i64.pow(9 - kept as u32);
        at += 1 + count;
    }
    let offset = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let seconds = digits(at + 1, 2)? * 3600 + digits(at + 4, 2)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds))
}

/// Days since 1970 of a date, by counting years that begin with March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1970() {
        let second = 1_000_000_000;
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2000-02-29T12:00:00.5+01:00"), Some(951_822_000 * second + second / 2));
        assert_eq!(parse("2026-11-28T00:37:11.123456789123Z"), Some(1_795_826_231 * second + 123_456_789));
        assert_eq!(parse("1969-12-31T23:59:59-00:00"), Some(-second));
        for wrong in [
            "",
            "2026-11-28",
            "2026-11-28T00:37:11",
            "2026-13-28T00:37:11Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T00:37:11.Z",
            "2026-11-28T00:37:11Zx",
            "+026-11-28T00:37:11Z",
            "2026-11-28T00:37:11+1:00",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
