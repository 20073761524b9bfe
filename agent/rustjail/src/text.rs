//! Text that a request chose, on its way into an error.

/// `text`, or its beginning and its end where it is longer than `most` bytes, with the number of bytes that are left out in
/// between. Never much longer than `most`.
pub fn shorten(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    // What an operation is stands in front, why it failed at the end.
    // Never within a character.
    let is_boundary = |place: &usize| text.is_char_boundary(*place);
    let head = &text[..(0..=most / 2).rev().find(is_boundary).unwrap_or(0)];
    let tail = &text[(text.len() - most / 2..text.len()).find(is_boundary).unwrap_or(text.len())..];
    format!("{head} [{} bytes] {tail}", text.len() - head.len() - tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_keeps_both_ends() {
        assert_eq!(shorten("find /bin/x", 11), "find /bin/x");
        assert_eq!(shorten("find /bin/a/long/path", 16), "find /bi [5 bytes] ong/path");
        let short = shorten(&"ü".repeat(50_000), 1001);
        assert!(short.len() < 1050 && short.contains("[99000 bytes]"), "{short}");
    }
}
