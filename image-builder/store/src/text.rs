//! Makes text from outside safe for a terminal.
//!
//! Names in images and archives, answers of registries, and the output of guests may have control characters, which a terminal
//! obeys, and characters that change the direction of text. [`printable`] escapes both. The other functions cut the text into
//! lines first.

use std::borrow::Cow;

/// Escapes everything that does not show as itself, line ends too: `\u{1b}[2J`. A tab stays.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 16), |mut out, character| {
        if is_plain(character) {
            out.push(character);
        } else {
            out.extend(character.escape_default());
        }
        out
    }))
}

/// As [`printable`], line by line: line ends stay, with the carriage return that a terminal of the guest puts before them.
pub fn lines(text: &str) -> Cow<'_, str> {
    if text.chars().all(|character| character == '\n' || is_plain(character)) {
        return Cow::Borrowed(text);
    }
    let line = |line: &str| printable(line.strip_suffix('\r').unwrap_or(line)).into_owned();
    Cow::Owned(text.split('\n').map(line).collect::<Vec<_>>().join("\n"))
}

/// A JSON document in which the same characters are written as escapes: the same values, fit for a terminal.
pub fn json(document: &str) -> Cow<'_, str> {
    if document.chars().all(|character| character == '\n' || is_plain(character)) {
        return Cow::Borrowed(document);
    }
    // Outside of strings JSON has none of them but line ends, and inside line ends are escapes already.
    let mut units = [0; 2];
    Cow::Owned(document.chars().fold(String::with_capacity(document.len() + 16), |mut out, character| {
        if character == '\n' || is_plain(character) {
            out.push(character);
        } else {
            out.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
        out
    }))
}

/// A line of a container's output: as [`printable`], but colours stay, since programs may write in colour. Whatever was
/// changed is put back at the end of the line.
pub fn coloured(text: &str) -> Cow<'_, str> {
    if !text.contains('\x1b') {
        return printable(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut is_coloured = false;
    while let Some(at) = rest.find('\x1b') {
        out.push_str(&printable(&rest[..at]));
        rest = &rest[at..];
        // ECMA-48, select graphic rendition: ESC [ numbers m.
        let end = rest
            .get(2..)
            .and_then(|inner| inner.find(|c: char| !(c.is_ascii_digit() || matches!(c, ';' | ':'))));
        let sequence = end
            .and_then(|end| rest.get(..end + 3))
            .filter(|all| all.starts_with("\x1b[") && all.ends_with('m'));
        let taken = sequence.map_or(1, str::len);
        match sequence {
            Some(sequence) => out.push_str(sequence),
            None => out.push_str(&printable("\x1b")),
        }
        is_coloured |= sequence.is_some();
        rest = &rest[taken..];
    }
    out.push_str(&printable(rest));
    if is_coloured {
        out.push_str("\x1b[0m");
    }
    Cow::Owned(out)
}

/// Whether a terminal shows a character where it stands and does nothing else with it. Unicode's bidirectional controls
/// reorder what others wrote; its other format characters cannot be seen.
fn is_plain(character: char) -> bool {
    match character {
        '\t' => true,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => false,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => false,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => false,
        other => !other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        for (text, expected) in [
            ("plain é 漢字\t|", "plain é 漢字\t|"),
            ("\x1b[2J\x07", "\\u{1b}[2J\\u{7}"),
            ("a\nb\rc", "a\\nb\\rc"),
            ("\u{9b}31m\x7f\0", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("\u{202e}cod.exe\u{200b}", "\\u{202e}cod.exe\\u{200b}"),
        ] {
            assert_eq!(printable(text), expected);
        }
        assert_eq!(lines("one\r\ntwo\x1bc\rthree\n"), "one\ntwo\\u{1b}c\\rthree\n");
    }

    #[test]
    fn json_keeps_its_values() {
        let value = serde_json::json!({"a": "\u{202e}\u{9b}\u{e0041}\x1b é", "b": ["\x7f\n"]});
        for document in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = json(&document);
            assert!(safe.chars().all(|character| character == '\n' || is_plain(character)), "{safe}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        }
    }

    #[test]
    fn colours_stay_in_their_line_and_nothing_else_does() {
        assert_eq!(coloured("a\x1b[1;31mred\x1b[0m b"), "a\x1b[1;31mred\x1b[0m b\x1b[0m");
        assert_eq!(coloured("\x1b[2Jx\x1b]0;title\x07\x1b"), "\\u{1b}[2Jx\\u{1b}]0;title\\u{7}\\u{1b}");
        assert_eq!(coloured("é\x1b[31"), "é\\u{1b}[31");
        assert_eq!(coloured("\x1b[mé\x1bé"), "\x1b[mé\\u{1b}é\x1b[0m");
    }
}
