//! Messages of protobuf in JSON, read leniently: names in either case, numbers as texts, `null` for what is absent, bytes in
//! either alphabet, enumerations by name or number. What is unknown is passed over.

use serde_json::{Map, Value};

use super::code::Error;

/// Most bytes of a message.
pub const MOST_MESSAGE: usize = 16 << 20;
/// Most values in a message: each takes many times the memory that its text does.
const MOST_VALUES: usize = 1 << 16;

/// A message.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Message(Map<String, Value>);

impl Message {
    /// Reads a message. Nothing at all is an empty one.
    ///
    /// # Errors
    /// `invalid_argument` with what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Message, Error> {
        if bytes.is_empty() {
            return Ok(Message::default());
        }
        if !is_small(bytes) {
            return Err(Error::invalid(format!("a message has at most {MOST_VALUES} values")));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(fields)) => Ok(Message(fields)),
            Ok(_) => Err(Error::invalid("a message is a JSON object")),
            Err(error) => Err(Error::invalid(format!("the message is not JSON: {error}"))),
        }
    }

    /// A field by its name in lowerCamelCase, whichever way it is written; none if it is absent or `null`.
    fn field(&self, name: &str) -> Option<&Value> {
        let found = self.0.get(name).or_else(|| {
            let mut snake = String::with_capacity(name.len() + 4);
            for c in name.chars() {
                if c.is_ascii_uppercase() {
                    snake.push('_');
                }
                snake.push(c.to_ascii_lowercase());
            }
            self.0.get(&snake)
        });
        found.filter(|value| !value.is_null())
    }

    fn wrong(name: &str, expected: &str) -> Error {
        Error::invalid(format!("{name} is not {expected}"))
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.field(name).is_some()
    }

    /// Whether a field is there and is an empty text, list or object.
    pub fn is_empty_field(&self, name: &str) -> bool {
        match self.field(name) {
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(fields)) => fields.is_empty(),
            _ => false,
        }
    }

    /// A text.
    ///
    /// # Errors
    /// `invalid_argument` if it is something else. So with all others.
    pub fn optional_string(&self, name: &str) -> Result<Option<&str>, Error> {
        self.field(name).map(|value| value.as_str().ok_or_else(|| Self::wrong(name, "a string"))).transpose()
    }

    /// A text, empty if it is absent.
    pub fn string(&self, name: &str) -> Result<&str, Error> {
        Ok(self.optional_string(name)?.unwrap_or_default())
    }

    /// True or false.
    pub fn optional_bool(&self, name: &str) -> Result<Option<bool>, Error> {
        let value = self.field(name);
        value.map(|value| value.as_bool().ok_or_else(|| Self::wrong(name, "true or false"))).transpose()
    }

    /// True or false, false if it is absent.
    pub fn bool(&self, name: &str) -> Result<bool, Error> {
        Ok(self.optional_bool(name)?.unwrap_or_default())
    }

    /// A whole number; texts of one and numbers like `1.0` are taken, too.
    pub fn optional_integer(&self, name: &str) -> Result<Option<i64>, Error> {
        let Some(value) = self.field(name) else { return Ok(None) };
        integer(value).map(Some).ok_or_else(|| Self::wrong(name, "a whole number"))
    }

    /// A `uint32`, 0 if it is absent.
    pub fn uint32(&self, name: &str) -> Result<u32, Error> {
        let number = self.optional_integer(name)?.unwrap_or_default();
        u32::try_from(number).map_err(|_| Self::wrong(name, "a number from 0 to 4294967295"))
    }

    /// An enumeration by name or number, its first value if it is absent. Names that are not in the list give none.
    pub fn enumeration(&self, name: &str, values: &[(&str, i64)]) -> Result<Option<i64>, Error> {
        match self.field(name) {
            None => Ok(values.first().map(|(_, number)| *number)),
            Some(Value::String(text)) if text.parse::<i64>().is_err() => {
                Ok(values.iter().find(|(other, _)| other == text).map(|(_, number)| *number))
            }
            Some(value) => integer(value).map(Some).ok_or_else(|| Self::wrong(name, "a name or a number")),
        }
    }

    /// Bytes in base64.
    pub fn optional_bytes(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(text) = self.optional_string(name)? else { return Ok(None) };
        decode_base64(text).map(Some).ok_or_else(|| Self::wrong(name, "base64"))
    }

    /// A message inside.
    pub fn optional_message(&self, name: &str) -> Result<Option<Message>, Error> {
        match self.field(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Message(fields.clone()))),
            Some(_) => Err(Self::wrong(name, "an object")),
        }
    }

    /// A message inside, taken out, so that what is large in it is not copied; empty if it is absent.
    pub fn take_message(&mut self, name: &str) -> Result<Message, Error> {
        match self.0.get_mut(name) {
            None | Some(Value::Null) => Ok(self.optional_message(name)?.unwrap_or_default()),
            Some(Value::Object(fields)) => Ok(Message(std::mem::take(fields))),
            Some(_) => Err(Self::wrong(name, "an object")),
        }
    }

    /// A list of texts.
    pub fn strings(&self, name: &str) -> Result<Vec<String>, Error> {
        let wrong = || Self::wrong(name, "a list of strings");
        match self.field(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
            }
            Some(_) => Err(wrong()),
        }
    }

    /// A map of texts to texts, in the order of the names.
    pub fn string_map(&self, name: &str) -> Result<Vec<(String, String)>, Error> {
        let wrong = || Self::wrong(name, "a map of strings to strings");
        match self.field(name) {
            None => Ok(Vec::new()),
            Some(Value::Object(fields)) => {
                let pair = |(name, value): (&String, &Value)| {
                    Ok((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned()))
                };
                fields.iter().map(pair).collect()
            }
            Some(_) => Err(wrong()),
        }
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            let is_whole = float.fract() == 0.0 && float.abs() < 9.0e15;
            is_whole.then_some(float as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// Base64 (RFC 4648) with padding, as the JSON mapping of protobuf writes it.
pub fn encode_base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= three.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Base64 of either alphabet, with padding or without.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let (digits, is_url_safe) = (text.trim_end_matches('='), text.contains(['-', '_']));
    if digits.len() % 4 == 1 || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' if !is_url_safe => 62,
            b'/' if !is_url_safe => 63,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        // What is shifted out at the top was taken already.
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

/// Whether a text has so few values that they can be held. Counts what separates them, outside of strings.
fn is_small(bytes: &[u8]) -> bool {
    let (mut count, mut is_string, mut is_escaped) = (0usize, false, false);
    for byte in bytes {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_string => is_escaped = true,
            b'"' => is_string = !is_string,
            b',' | b'[' | b'{' | b':' if !is_string => count += 1,
            _ => {}
        }
    }
    count <= MOST_VALUES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::Code;

    fn message(text: &str) -> Message {
        Message::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_come_in_both_cases_and_null_is_absent() {
        let read = message(r#"{"watcher_id":"w1","includeEntry":true,"x":null,"unknown":{"a":[1]}}"#);
        assert_eq!(read.string("watcherId").unwrap(), "w1");
        assert!(read.bool("includeEntry").unwrap());
        assert_eq!(read.optional_string("x").unwrap(), None);
        assert_eq!(read.uint32("x").unwrap(), 0);
        assert!(!read.has("x") && read.has("watcherId"));
        assert_eq!(message(""), Message::default());
    }

    #[test]
    fn numbers_come_as_texts_and_enumerations_as_numbers() {
        let read =
            message(r#"{"a":"6","b":7.0,"c":-1,"d":"SIGNAL_SIGKILL","e":15,"f":"NEW","g":1.5,"h":"15"}"#);
        assert_eq!(read.optional_integer("a").unwrap(), Some(6));
        assert_eq!(read.uint32("b").unwrap(), 7);
        assert!(read.uint32("c").is_err() && read.optional_integer("g").is_err());
        let signals = [("SIGNAL_UNSPECIFIED", 0), ("SIGNAL_SIGTERM", 15), ("SIGNAL_SIGKILL", 9)];
        let signal = |name| read.enumeration(name, &signals).unwrap();
        assert_eq!(["d", "e", "f", "none", "h"].map(signal), [Some(9), Some(15), None, Some(0), Some(15)]);
    }

    #[test]
    fn bytes_come_in_both_alphabets_with_padding_or_without() {
        for text in ["+/+/AA==", "+/+/AA", "-_-_AA==", "-_-_AA"] {
            assert_eq!(decode_base64(text), Some(vec![0xfb, 0xff, 0xbf, 0]), "{text}");
        }
        assert_eq!(decode_base64(""), Some(vec![]));
        for wrong in ["a", "+_AA", "AA===", "A=AA", "AAAA====", "A A", "Aé"] {
            assert_eq!(decode_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn bytes_go_out_with_padding_and_come_back() {
        // RFC 4648, section 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode_base64(bytes.as_bytes()), text);
        }
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in 990..1000 {
            let text = encode_base64(&all[..length]);
            assert_eq!(decode_base64(&text).as_deref(), Some(&all[..length]));
            assert_eq!(
                decode_base64(&text.replace('+', "-").replace('/', "_")).as_deref(),
                Some(&all[..length])
            );
        }
    }

    #[test]
    fn what_is_of_another_type_is_named() {
        let mut read = message(r#"{"a":1,"l":["x",2],"m":{"k":3},"o":[]}"#);
        let text = |error: Error| (error.code, error.message);
        let invalid = |message: &str| (Code::InvalidArgument, message.to_owned());
        assert_eq!(text(read.string("a").unwrap_err()), invalid("a is not a string"));
        assert_eq!(text(read.strings("l").unwrap_err()), invalid("l is not a list of strings"));
        assert_eq!(text(read.string_map("m").unwrap_err()), invalid("m is not a map of strings to strings"));
        assert_eq!(text(read.take_message("o").unwrap_err()), invalid("o is not an object"));
        assert!(read.take_message("m").unwrap().has("k"));
        assert_eq!(Message::parse(b"[]").unwrap_err().code, Code::InvalidArgument);
        assert_eq!(Message::parse(b"{").unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn a_message_has_few_values_and_is_not_deep() {
        let many = format!("{{\"a\":[{}1]}}", "1,".repeat(MOST_VALUES));
        assert!(Message::parse(many.as_bytes()).is_err());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        assert!(Message::parse(deep.as_bytes()).is_err());
        let text = format!("{{\"a\":\"{},\\\",\"}}", ",[{:".repeat(MOST_VALUES));
        assert!(Message::parse(text.as_bytes()).is_ok());
    }
}
