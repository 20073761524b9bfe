//! Takes a kernel command line apart as the kernel itself does (`next_arg` in lib/cmdline.c).

/// Yields each parameter with its value, or none for a bare word. Double quotes keep spaces together; those around
/// a value or around a whole parameter are not part of it.
pub(super) fn split(line: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(is_space);
        if rest.is_empty() {
            return None;
        }
        let (parameter, tail) = rest.split_at(length(rest));
        rest = tail;
        Some(pair(parameter))
    })
}

/// ASCII only, like the kernel's `isspace` on the bytes of UTF-8 text.
fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\u{b}'
}

/// Bytes up to the first space outside quotes.
fn length(text: &str) -> usize {
    let mut quoted = false;
    text.find(|c| {
        quoted ^= c == '"';
        !quoted && is_space(c)
    })
    .unwrap_or(text.len())
}

fn pair(parameter: &str) -> (&str, Option<&str>) {
    let parameter = unquote(parameter);
    // A leading `=` is part of the name: there is no parameter without one.
    match parameter.char_indices().skip(1).find(|(_, c)| *c == '=') {
        Some((at, _)) => (&parameter[..at], Some(unquote(&parameter[at + 1..]))),
        None => (parameter, None),
    }
}

fn unquote(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &str) -> Vec<(&str, Option<&str>)> {
        split(line).collect()
    }

    #[test]
    fn words_and_values() {
        assert_eq!(
            all("  quiet console=ttyS0,115200\tempty= a=b=c\n"),
            [("quiet", None), ("console", Some("ttyS0,115200")), ("empty", Some("")), ("a", Some("b=c"))]
        );
        assert_eq!(all(" \n"), []);
    }

    #[test]
    fn quotes_keep_spaces_together() {
        assert_eq!(all(r#"a="b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(all(r#""a=b c" d"#), [("a", Some("b c")), ("d", None)]);
        assert_eq!(all(r#"a=b" "c d"#), [("a", Some(r#"b" "c"#)), ("d", None)]);
    }

    #[test]
    fn an_open_quote_reaches_to_the_end() {
        assert_eq!(all(r#"a="b c d=e"#), [("a", Some("b c d=e"))]);
        assert_eq!(all("\""), [("", None)]);
    }

    #[test]
    fn a_leading_equals_sign_is_part_of_the_name() {
        assert_eq!(all("=x =y=z"), [("=x", None), ("=y", Some("z"))]);
    }
}
