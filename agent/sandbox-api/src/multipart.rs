//! `multipart/form-data` as it arrives (RFC 7578, RFC 2046), without ever holding a part.
//!
//! ```text
//! --boundary CRLF headers CRLF CRLF data CRLF --boundary CRLF … data CRLF --boundary-- anything
//! ```
//!
//! [`Parser::feed`] takes pieces of any size, and tells a [`Sink`] what is in them. It keeps the headers of one part, or as
//! much data as could be the beginning of a boundary. File names are what clients really send: raw UTF-8 in quotes, where a
//! quote is `%22` (browsers and the SDKs) or has a backslash (curl, Go), or `filename*` of RFC 8187.

use std::io::BufRead as _;

/// Most parts of a body.
pub const MOST_PARTS: usize = 4096;
/// Most bytes of one part's headers.
pub const MOST_HEADERS: usize = 16 << 10;
/// Longest boundary (RFC 2046).
const LONGEST_BOUNDARY: usize = 70;

/// Why a body is no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The content type is another one, or its boundary is not one.
    #[error("the content type {0:?} has no boundary of a multipart form")]
    Boundary(String),
    /// The body ends too early.
    #[error("the multipart form ends before its last boundary")]
    Unfinished,
    /// Something else follows a boundary.
    #[error("a boundary of the multipart form is followed by something else")]
    Delimiter,
    /// A part begins with lines that are no headers.
    #[error("a part of the multipart form has malformed headers")]
    Headers,
    /// A part's headers are too long.
    #[error("a part of the multipart form has more than {MOST_HEADERS} bytes of headers")]
    LongHeaders,
    /// There are too many.
    #[error("the multipart form has more than {MOST_PARTS} parts")]
    Parts,
}

/// What a part says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// `name` of the form's field; empty if there is none.
    pub name: String,
    /// `filename`, with the directories that are in it.
    pub filename: Option<String>,
}

/// Who wants to know what is in a form.
pub trait Sink {
    /// What can go wrong there.
    type Error: From<FormError>;
    /// A part begins.
    ///
    /// # Errors
    /// End the parsing, as those of the others do.
    fn begin(&mut self, part: Part) -> Result<(), Self::Error>;
    /// Some of its data, never empty.
    ///
    /// # Errors
    /// See above.
    fn data(&mut self, data: &[u8]) -> Result<(), Self::Error>;
    /// The part was complete.
    ///
    /// # Errors
    /// See above.
    fn end(&mut self) -> Result<(), Self::Error>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Preamble,
    /// Behind a boundary.
    Delimiter,
    Headers,
    Data,
    /// Behind the last boundary.
    Epilogue,
}

/// See the module.
#[derive(Debug)]
pub struct Parser {
    /// CRLF, two dashes and the boundary.
    delimiter: Vec<u8>,
    state: State,
    /// What was not understood yet.
    pending: Vec<u8>,
    parts: usize,
}

impl Parser {
    /// A parser for a body of this content type.
    ///
    /// # Errors
    /// When it is not `multipart/form-data` with a boundary.
    pub fn new(content_type: &str) -> Result<Parser, FormError> {
        let refuse = || FormError::Boundary(content_type.chars().take(200).collect());
        let (kind, parameters) = content_type.split_once(';').ok_or_else(refuse)?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return Err(refuse());
        }
        let boundary = parameter(parameters, "boundary").ok_or_else(refuse)?;
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
        let is_boundary = (1..=LONGEST_BOUNDARY).contains(&boundary.len())
            && boundary.bytes().all(is_legal)
            && !boundary.ends_with(' ');
        if !is_boundary {
            return Err(refuse());
        }
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first boundary has no line before it.
        Ok(Parser { delimiter, state: State::Preamble, pending: b"\r\n".to_vec(), parts: 0 })
    }

    /// Takes the next piece of the body.
    ///
    /// # Errors
    /// When it is no form, and what the sink says. The parser is of no use afterwards.
    pub fn feed<S: Sink>(&mut self, piece: &[u8], sink: &mut S) -> Result<(), S::Error> {
        if self.state == State::Epilogue {
            return Ok(());
        }
        self.pending.extend_from_slice(piece);
        let pending = std::mem::take(&mut self.pending);
        let mut rest = pending.as_slice();
        let result = self.advance(&mut rest, sink);
        let left = rest.len();
        self.pending = pending;
        self.pending.drain(..self.pending.len() - left);
        result
    }

    /// The body is at its end.
    ///
    /// # Errors
    /// When the form is not.
    pub fn finish(self) -> Result<(), FormError> {
        if self.state == State::Epilogue { Ok(()) } else { Err(FormError::Unfinished) }
    }

    fn advance<S: Sink>(&mut self, rest: &mut &[u8], sink: &mut S) -> Result<(), S::Error> {
        loop {
            let next = match self.state {
                State::Preamble => self.skip(rest),
                State::Delimiter => self.after_delimiter(rest)?,
                State::Headers => self.headers(rest, sink)?,
                State::Data => self.data(rest, sink)?,
                State::Epilogue => {
                    *rest = &[];
                    return Ok(());
                }
            };
            match next {
                Some(state) => self.state = state,
                None => return Ok(()),
            }
        }
    }

    fn skip(&self, rest: &mut &[u8]) -> Option<State> {
        let (before, found) = self.search(rest);
        *rest = &rest[before + if found { self.delimiter.len() } else { 0 }..];
        found.then_some(State::Delimiter)
    }

    fn data<S: Sink>(&self, rest: &mut &[u8], sink: &mut S) -> Result<Option<State>, S::Error> {
        let (before, found) = self.search(rest);
        if before > 0 {
            sink.data(&rest[..before])?;
        }
        *rest = &rest[before + if found { self.delimiter.len() } else { 0 }..];
        if found {
            sink.end()?;
        }
        Ok(found.then_some(State::Delimiter))
    }

    /// How many bytes come before a boundary, and whether there is one. Without one, what could be its beginning is left.
    fn search(&self, rest: &[u8]) -> (usize, bool) {
        for at in returns(rest) {
            let here = &rest[at..];
            match here.strip_prefix(self.delimiter.as_slice()) {
                Some([b' ' | b'\t' | b'\r' | b'-', ..]) => return (at, true),
                // A longer word that begins like the boundary.
                Some([_, ..]) => {}
                Some([]) => return (at, false),
                None if self.delimiter.starts_with(here) => return (at, false),
                None => {}
            }
        }
        (rest.len(), false)
    }

    fn after_delimiter(&mut self, rest: &mut &[u8]) -> Result<Option<State>, FormError> {
        match rest {
            [b'-', b'-', ..] => return Ok(Some(State::Epilogue)),
            [b'-', _, ..] => return Err(FormError::Delimiter),
            [] | [b'-'] => return Ok(None),
            _ => {}
        }
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if padding > MOST_HEADERS {
            return Err(FormError::Delimiter);
        }
        match &rest[padding..] {
            [b'\r', b'\n', ..] => {
                *rest = &rest[padding + 2..];
                self.parts += 1;
                if self.parts > MOST_PARTS { Err(FormError::Parts) } else { Ok(Some(State::Headers)) }
            }
            [] | [b'\r'] => Ok(None),
            _ => Err(FormError::Delimiter),
        }
    }

    fn headers<S: Sink>(&self, rest: &mut &[u8], sink: &mut S) -> Result<Option<State>, S::Error> {
        let within = &rest[..rest.len().min(MOST_HEADERS + 4)];
        let (length, skipped) = if within.starts_with(b"\r\n") {
            (0, 2)
        } else {
            match returns(within).find(|at| within[*at..].starts_with(b"\r\n\r\n")) {
                Some(at) => (at, at + 4),
                None if within.len() < MOST_HEADERS + 4 => return Ok(None),
                None => return Err(FormError::LongHeaders.into()),
            }
        };
        let part = part(&rest[..length])?;
        *rest = &rest[skipped..];
        sink.begin(part)?;
        Ok(Some(State::Data))
    }
}

/// Where the carriage returns are. The standard library looks for them as fast as the processor can.
fn returns(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        // Reading from memory does not fail.
        let count = rest.skip_until(b'\r').ok()?;
        let after = bytes.len() - rest.len();
        (count > 0 && bytes[after - 1] == b'\r').then(|| after - 1)
    })
}

/// Reads a part's headers.
fn part(headers: &[u8]) -> Result<Part, FormError> {
    let text = std::str::from_utf8(headers).map_err(|_| FormError::Headers)?;
    let mut part = Part::default();
    for line in text.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(FormError::Headers)?;
        if name.is_empty() || value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(FormError::Headers);
        }
        if !name.eq_ignore_ascii_case("content-disposition") {
            continue;
        }
        let Some((kind, parameters)) = value.split_once(';') else { continue };
        if kind.trim().eq_ignore_ascii_case("form-data") {
            part.name = parameter(parameters, "name").map(|name| unescaped(&name)).unwrap_or_default();
            let extended = parameter(parameters, "filename*").and_then(|value| extended(&value));
            let plain = || parameter(parameters, "filename").map(|name| unescaped(&name));
            part.filename = extended.or_else(plain);
        }
    }
    Ok(part)
}

/// The value of `name` in `; a=token; b="quoted"`, without its quotes.
fn parameter(text: &str, name: &str) -> Option<String> {
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (key, value) = rest.split_once('=')?;
        let (value, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => quoted_string(quoted)?,
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

/// What stands before the closing quote, and what behind it. A backslash takes the meaning from what has one; before
/// anything else it is itself, since some clients send the paths of Windows as they are.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    const SPECIAL: &str = "()<>@,;:\\\"/[]?=";
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match letters.next_if(|(_, next)| SPECIAL.contains(*next)) {
                Some((_, next)) => value.push(next),
                None => value.push(letter),
            },
            _ => value.push(letter),
        }
    }
    None
}

/// Undoes what browsers do to a name in quotes: a quote and the ends of lines are escaped, a percent sign is not.
fn unescaped(name: &str) -> String {
    let pairs = [("%22", "\""), ("%0D", "\r"), ("%0d", "\r"), ("%0A", "\n"), ("%0a", "\n")];
    pairs.iter().fold(name.to_owned(), |name, (escaped, plain)| name.replace(escaped, plain))
}

/// `UTF-8'language'text` with escaped bytes (RFC 8187).
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, text) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        decoded.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parts as they were told, a complete one with `true`.
    #[derive(Debug, Default, PartialEq, Eq, Clone)]
    struct Told(Vec<(Part, Vec<u8>, bool)>);

    impl Sink for Told {
        type Error = FormError;

        fn begin(&mut self, part: Part) -> Result<(), FormError> {
            assert!(self.0.last().is_none_or(|last| last.2), "the part before is complete");
            self.0.push((part, Vec::new(), false));
            Ok(())
        }

        fn data(&mut self, data: &[u8]) -> Result<(), FormError> {
            assert!(!data.is_empty());
            self.0.last_mut().unwrap().1.extend(data);
            Ok(())
        }

        fn end(&mut self) -> Result<(), FormError> {
            self.0.last_mut().unwrap().2 = true;
            Ok(())
        }
    }

    fn parse(pieces: &[&[u8]]) -> Result<Told, FormError> {
        let mut parser = Parser::new("multipart/form-data; boundary=XX")?;
        let mut told = Told::default();
        for piece in pieces {
            parser.feed(piece, &mut told)?;
        }
        parser.finish().map(|()| told)
    }

    fn part_of(headers: &str) -> Part {
        part(headers.as_bytes()).unwrap()
    }

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, data) in parts {
            body.extend(format!("--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: text/plain\r\n\r\n").bytes());
            body.extend(*data);
            body.extend(b"\r\n");
        }
        body.extend(b"--XX--\r\n");
        body
    }

    #[test]
    fn parts_come_out_whole_however_the_body_is_cut() {
        let long = b"\r\n--X\r\r\n\r\n--XXY-\r\n--".repeat(50);
        let body = form(&[("a", b"1\r\n"), ("/b/c", b""), ("d", &long)]);
        let whole = parse(&[&body]).unwrap();
        let data: Vec<&[u8]> = whole.0.iter().map(|part| part.1.as_slice()).collect();
        assert_eq!(data, [b"1\r\n".as_slice(), b"", &long]);
        assert!(whole.0.iter().all(|part| part.2 && part.0.name == "file"));
        assert_eq!(whole.0[1].0.filename.as_deref(), Some("/b/c"));
        for size in 1..40 {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            assert_eq!(parse(&pieces).unwrap(), whole, "pieces of {size}");
        }
    }

    #[test]
    fn what_stands_around_the_parts_is_skipped() {
        let mut body = b"a preamble\r\n--X\r\n".to_vec();
        body.extend(form(&[("a", b"1")]));
        body.extend(b"an epilogue\r\n--XX\r\n");
        assert_eq!(parse(&[&body]).unwrap().0.len(), 1);
        assert_eq!(parse(&[b"--XX--"]).unwrap(), Told::default());
        let padded = b"--XX \t\r\n\r\nx\r\n--XX--";
        assert_eq!(parse(&[padded]).unwrap().0, [(Part::default(), b"x".to_vec(), true)]);
    }

    #[test]
    fn what_is_no_form_is_refused() {
        let part = "--XX\r\nA: b\r\n\r\n";
        for (body, error) in [
            (String::new(), FormError::Unfinished),
            ("--XX".into(), FormError::Unfinished),
            ("--XX-".into(), FormError::Unfinished),
            (part.into(), FormError::Unfinished),
            (format!("{part}data\r\n--XX\r\n"), FormError::Unfinished),
            (format!("{part}data\r\n--YY--"), FormError::Unfinished),
            ("--XX-x".into(), FormError::Delimiter),
            ("--XX x".into(), FormError::Delimiter),
            ("--XX\r\nno header\r\n\r\n".into(), FormError::Headers),
            ("--XX\r\n: none\r\n\r\n".into(), FormError::Headers),
            ("--XX\r\nA: b\0\r\n\r\n".into(), FormError::Headers),
        ] {
            assert_eq!(parse(&[body.as_bytes()]), Err(error), "{body:?}");
        }
        assert_eq!(parse(&[b"--XX\r\nA: \xff\r\n\r\n"]), Err(FormError::Headers));
    }

    #[test]
    fn content_types_need_a_boundary() {
        let boundary = |text: &str| Parser::new(text).ok().map(|parser| parser.delimiter[4..].to_vec());
        assert_eq!(boundary("multipart/form-data; boundary=abc"), Some(b"abc".to_vec()));
        assert_eq!(
            boundary("Multipart/Form-Data ;charset=utf-8; Boundary=\"a b:c\""),
            Some(b"a b:c".to_vec())
        );
        for wrong in [
            "",
            "multipart/form-data",
            "multipart/mixed; boundary=abc",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"abc",
            "multipart/form-data; boundary=\"abc \"",
            "multipart/form-data; boundary=a{b",
            &format!("multipart/form-data; boundary={}", "a".repeat(71)),
        ] {
            assert_eq!(boundary(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn names_are_what_clients_mean() {
        let filename =
            |text: &str| part_of(&format!("content-disposition: form-data; name=\"file\"; {text}")).filename;
        for (text, name) in [
            (r#"filename="/tmp/a b.txt""#, "/tmp/a b.txt"),
            (r#"filename="q%22uote""#, "q\"uote"),
            (r#"filename="a&b=c?#%41""#, "a&b=c?#%41"),
            (r#"filename="semi;colon""#, "semi;colon"),
            (r#"filename="a\"b\\c""#, "a\"b\\c"),
            (r#"filename="C:\dev\go""#, r"C:\dev\go"),
            (r#"filename="ü漢""#, "ü漢"),
            ("filename=plain", "plain"),
            ("filename*=UTF-8''%c3%bc%20x; filename=\"other\"", "ü x"),
            ("filename=\"other\"; filename*=latin1''x", "other"),
        ] {
            assert_eq!(filename(text).as_deref(), Some(name), "{text}");
        }
        assert_eq!(filename("size=3"), None);
        assert_eq!(part_of("Content-Disposition: attachment; name=\"file\""), Part::default());
        assert_eq!(part_of("Content-Type: text/plain\r\nContent-Disposition: form-data; name=x").name, "x");
    }

    #[test]
    fn parts_and_headers_have_bounds() {
        let one: (&str, &[u8]) = ("a", b"");
        assert_eq!(parse(&[&form(&vec![one; MOST_PARTS])]).unwrap().0.len(), MOST_PARTS);
        assert_eq!(parse(&[&form(&vec![one; MOST_PARTS + 1])]), Err(FormError::Parts));
        let headers = |length: usize| format!("--XX\r\nA: {}\r\n\r\n\r\n--XX--", "b".repeat(length - 3));
        assert!(parse(&[headers(MOST_HEADERS).as_bytes()]).is_ok());
        assert_eq!(parse(&[headers(MOST_HEADERS + 1).as_bytes()]), Err(FormError::LongHeaders));
        let padding = format!("--XX{}", " ".repeat(MOST_HEADERS + 1));
        assert_eq!(parse(&[padding.as_bytes()]), Err(FormError::Delimiter));
    }

    #[test]
    fn nothing_is_held_but_what_could_be_a_boundary() {
        let mut parser = Parser::new("multipart/form-data; boundary=XX").unwrap();
        let mut told = Told::default();
        parser.feed(b"--XX\r\nA: b\r\n\r\n", &mut told).unwrap();
        for piece in [b"data".repeat(1000), b"\r\n--XXX".repeat(1000), b"\r\n-".repeat(1000)] {
            parser.feed(&piece, &mut told).unwrap();
            assert!(parser.pending.len() <= "\r\n--XX".len(), "{:?}", parser.pending.len());
        }
    }

    proptest! {
        #[test]
        fn any_data_survives_any_cut(data in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..50) {
            prop_assume!(!data.windows(6).any(|window| window == b"\r\n--XX"));
            let body = form(&[("a", &data), ("b", b"")]);
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            prop_assert_eq!(&parse(&pieces).unwrap().0[0].1, &data);
        }

        #[test]
        fn cuts_change_nothing(body in "(--XX|\r\n|--|A: b|x| ){0,40}", size in 1usize..9) {
            let pieces: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            prop_assert_eq!(parse(&pieces), parse(&[body.as_bytes()]));
        }
    }
}
