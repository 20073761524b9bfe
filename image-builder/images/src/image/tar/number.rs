//! Numbers as extension headers and sparse maps write them: in decimal digits.

/// Decimal, perhaps with a sign.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads `1700000000.25` as seconds and nanoseconds, both negative before 1970. What is finer is cut.
pub(super) fn time(text: &[u8]) -> Option<(i64, i32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some((seconds.parse().ok()?, if seconds.starts_with('-') { -nanoseconds } else { nanoseconds }))
}
