//! Names: which ones are valid, and how a map of them is written into a file.

/// Checks a DNS label (RFC 1123), which is also a good file name and part of a container id.
pub(super) fn label(name: &str) -> Result<String, String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        Ok(name.to_owned())
    } else {
        Err(format!("{name:?} is not 1 to 63 lower-case letters, digits and inner hyphens"))
    }
}

/// Labels or annotations as a file of a `downwardAPI` volume has them: sorted, one a line, values quoted.
pub(super) fn lines(map: &[(String, String)]) -> String {
    let mut sorted: Vec<&(String, String)> = map.iter().collect();
    sorted.sort();
    let lines: Vec<String> = sorted.iter().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

/// A text as Go's `%q` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short_and_plain() {
        assert_eq!(label("a-1"), Ok("a-1".to_owned()));
        for name in ["", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(64)] {
            assert!(label(name).is_err(), "{name}");
        }
    }

    #[test]
    fn maps_are_written_sorted_and_quoted() {
        let map = [("zone", "us\"east\""), ("app", "a\\b\n"), ("x", "é\u{1}")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(lines(&map), "app=\"a\\\\b\\n\"\nx=\"é\\x01\"\nzone=\"us\\\"east\\\"\"");
    }
}
