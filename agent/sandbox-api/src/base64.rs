//! Base64 (RFC 4648). Pure.

use std::borrow::Cow;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// With padding, as the JSON mapping of protobuf writes it.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let (second, third) = (group.get(1).copied().unwrap_or(0), group.get(2).copied().unwrap_or(0));
        let bits = u32::from_be_bytes([0, group[0], second, third]);
        for place in 0..4 {
            let is_there = place <= group.len();
            let letter = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if is_there { letter.into() } else { '=' });
        }
    }
    text
}

/// Without padding.
pub fn encode_unpadded(bytes: &[u8]) -> String {
    let mut text = encode(bytes);
    text.truncate(text.trim_end_matches('=').len());
    text
}

/// Reads both alphabets, though not in one text, with padding or without. Bits behind the last byte may be anything.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let text: Cow<'_, [u8]> = match text.contains(['-', '_']) {
        true if text.contains(['+', '/']) => return None,
        true => text.bytes().map(standard).collect(),
        false => text.as_bytes().into(),
    };
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let letters = &text[..text.len() - padding];
    let last = letters.len() % 4;
    // Padding belongs to the last group, which it need not fill.
    if last == 1 || (padding > 0 && (last == 0 || last + padding > 4)) {
        return None;
    }
    let mut bytes = Vec::with_capacity(letters.len() / 4 * 3 + 2);
    for group in letters.chunks(4) {
        let mut bits = 0;
        for letter in group {
            bits = bits << 6 | value(*letter)?;
        }
        bits <<= 6 * (4 - group.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

/// A letter of the alphabet for addresses in the standard one.
fn standard(letter: u8) -> u8 {
    match letter {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    }
}

fn value(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::base64::Engine as _;
    use ::base64::engine::DecodePaddingMode;
    use ::base64::engine::general_purpose::{
        GeneralPurpose, GeneralPurposeConfig, STANDARD, STANDARD_NO_PAD,
    };
    use proptest::prelude::*;

    fn lenient(text: &str) -> Option<Vec<u8>> {
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let alphabet = match text.contains(['-', '_']) {
            true => ::base64::alphabet::URL_SAFE,
            false => ::base64::alphabet::STANDARD,
        };
        GeneralPurpose::new(&alphabet, config).decode(text).ok()
    }

    #[test]
    fn texts_of_the_rfc_are_written_and_read() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), bytes.as_bytes());
            assert_eq!(decode(text.trim_end_matches('=')).unwrap(), bytes.as_bytes());
            assert_eq!(encode_unpadded(bytes.as_bytes()), text.trim_end_matches('='));
        }
        for wrong in
            ["Z", "Zg===", "Zm8==", "=", "==", "====", "Zm9v=", "Z=g=", "Zm 9", "+_AA", "Zm9vYg==Zm9v"]
        {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn it_is_what_the_crate_makes_of_it(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(encode(&bytes), STANDARD.encode(&bytes));
            prop_assert_eq!(encode_unpadded(&bytes), STANDARD_NO_PAD.encode(&bytes));
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn it_reads_what_the_crate_reads(text in "[A-Ca-c01+/=_-]{0,12}") {
            prop_assert_eq!(decode(&text), lenient(&text), "{}", text);
        }
    }
}
