//! The head of a request: its first line and its fields.
//!
//! Pure. Promises that a head says in one way only how long its body is: what two servers could read differently is refused.

use super::query::{Query, decode};

/// Most bytes of a head.
pub const MOST_BYTES: usize = 64 * 1024;
/// Most fields of a head.
pub const MOST_FIELDS: usize = 128;

/// Fields of a head by name. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first field of a name, which is given in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All fields of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Every field in order, its name in lower case.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether a field that is a list has this word, in whatever case.
    pub fn has_word(&self, name: &str, word: &str) -> bool {
        let words = self.all(name).flat_map(|list| list.split(','));
        words.into_iter().any(|other| other.trim().eq_ignore_ascii_case(word))
    }

    /// Adds a field.
    pub fn push(&mut self, name: &str, value: &str) {
        self.0.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

/// A head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `GET` and so on.
    pub method: String,
    /// Path and query as they came.
    pub target: String,
    /// The path, decoded.
    pub path: String,
    /// What stands after the `?`, decoded.
    pub query: Query,
    /// All fields.
    pub headers: Headers,
    /// Whether the client speaks HTTP/1.1, and not 1.0.
    pub is_11: bool,
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// By an empty chunk.
    Chunked,
}

/// Why a head cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It has more than [`MOST_BYTES`] bytes, or more than [`MOST_FIELDS`] fields.
    #[error("the head of the request is too large: {MOST_BYTES} bytes and {MOST_FIELDS} fields at most")]
    TooLarge,
    /// It is not HTTP/1.
    #[error("not a request of HTTP/1.1")]
    Malformed,
    /// Its length is said twice, or is no number.
    #[error("the length of the request's body is not clear")]
    Length,
    /// Its body is encoded in a way that this server does not know.
    #[error("unknown transfer encoding: chunked is the only one")]
    Encoding,
}

impl HeadError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            HeadError::TooLarge => 431,
            HeadError::Malformed | HeadError::Length => 400,
            HeadError::Encoding => 501,
        }
    }
}

impl Head {
    /// A head without fields, for tests.
    pub fn of(method: &str, target: &str) -> Head {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Head {
            method: method.to_owned(),
            target: target.to_owned(),
            path: decode(path, false),
            query: Query::parse(query),
            headers: Headers::default(),
            is_11: true,
        }
    }

    /// How long the body is.
    ///
    /// # Errors
    /// [`HeadError::Length`] and [`HeadError::Encoding`].
    pub fn framing(&self) -> Result<Framing, HeadError> {
        let mut lengths = self.headers.all("content-length");
        let mut encodings = self.headers.all("transfer-encoding");
        match (lengths.next(), encodings.next()) {
            (None, None) => Ok(Framing::Length(0)),
            (Some(length), None) => {
                // A sign would pass as a number, too.
                let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                let number =
                    length.parse().ok().filter(|_| is_number && lengths.all(|other| other == length));
                number.map(Framing::Length).ok_or(HeadError::Length)
            }
            (None, Some(encoding)) if encodings.next().is_none() && self.is_11 => {
                let is_chunked = encoding.trim().eq_ignore_ascii_case("chunked");
                if is_chunked { Ok(Framing::Chunked) } else { Err(HeadError::Encoding) }
            }
            // With both, or with several, servers differ in what they believe (RFC 9112, section 6.3).
            _ => Err(HeadError::Length),
        }
    }

    /// Whether the client wants to use the connection again.
    pub fn keeps_alive(&self) -> bool {
        let says = |word| self.headers.has_word("connection", word);
        !says("close") && (self.is_11 || says("keep-alive"))
    }
}

/// Reads a head at the beginning of `bytes`; gives it and its length. None if it is not complete yet.
///
/// # Errors
/// [`HeadError::TooLarge`] and [`HeadError::Malformed`].
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MOST_BYTES => length,
        Ok(httparse::Status::Partial) if bytes.len() < MOST_BYTES => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(_) => return Err(HeadError::Malformed),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed);
    };
    // Proxies send the whole address (RFC 9112, section 3.2.2).
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => match rest.find(['/', '?']) {
            Some(at) => &rest[at..],
            None => "/",
        },
        _ => target,
    };
    if !target.starts_with(['/', '?', '*']) {
        return Err(HeadError::Malformed);
    }
    let mut head = Head::of(method, target);
    head.is_11 = version == 1;
    for field in request.headers.iter() {
        head.headers.push(field.name, &String::from_utf8_lossy(field.value));
    }
    Ok(Some((head, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Head, HeadError> {
        parse(text.as_bytes()).map(|found| found.expect("is complete").0)
    }

    fn framing(fields: &str) -> Result<Framing, HeadError> {
        read(&format!("POST / HTTP/1.1\r\n{fields}\r\n")).unwrap().framing()
    }

    #[test]
    fn a_head_is_read_when_it_is_complete() {
        let text = "GET /a%20b?x=1&y HTTP/1.1\r\nHost: h\r\nX-Access-Token:  t \r\nAccept: a\r\naccept: b, C\r\n\r\nrest";
        for end in 0..text.len() - 4 {
            assert_eq!(parse(&text.as_bytes()[..end]), Ok(None), "{end}");
        }
        let (head, length) = parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(length, text.len() - 4);
        assert_eq!(
            (head.method.as_str(), head.path.as_str(), head.query.get("x")),
            ("GET", "/a b", Some("1"))
        );
        assert_eq!(head.headers.get("x-access-token"), Some("t"));
        assert_eq!(head.headers.all("accept").count(), 2);
        assert!(head.headers.has_word("accept", "c") && !head.headers.has_word("accept", "d"));
        assert!(head.keeps_alive() && head.is_11);
        assert_eq!(read("GET http://host:1/p?q HTTP/1.1\r\n\r\n").unwrap().target, "/p?q");
        assert_eq!(read("GET http://host HTTP/1.1\r\n\r\n").unwrap().path, "/");
        assert_eq!(read("GET nothing HTTP/1.1\r\n\r\n"), Err(HeadError::Malformed));
    }

    #[test]
    fn who_wants_the_connection_again() {
        assert!(!read("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").unwrap().keeps_alive());
        assert!(!read("GET / HTTP/1.0\r\n\r\n").unwrap().keeps_alive());
        assert!(read("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap().keeps_alive());
    }

    #[test]
    fn lengths_have_one_meaning_or_none() {
        assert_eq!(framing(""), Ok(Framing::Length(0)));
        assert_eq!(framing("Content-Length: 7\r\n"), Ok(Framing::Length(7)));
        assert_eq!(framing("Content-Length: 7\r\nContent-Length: 7\r\n"), Ok(Framing::Length(7)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        for unclear in [
            "Content-Length: 7\r\nContent-Length: 8\r\n",
            "Content-Length: +7\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 7, 7\r\n",
            "Content-Length: \r\n",
            "Content-Length: 18446744073709551616\r\n",
            "Content-Length: 7\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert_eq!(framing(unclear), Err(HeadError::Length), "{unclear}");
        }
        assert_eq!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(HeadError::Encoding));
        let old = read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert_eq!(old.framing(), Err(HeadError::Length));
    }

    #[test]
    fn a_head_has_a_bound() {
        let fields = |count: usize| "a: b\r\n".repeat(count);
        assert!(read(&format!("GET / HTTP/1.1\r\n{}\r\n", fields(MOST_FIELDS))).is_ok());
        let too_many = format!("GET / HTTP/1.1\r\n{}\r\n", fields(MOST_FIELDS + 1));
        assert_eq!(parse(too_many.as_bytes()), Err(HeadError::TooLarge));
        let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(MOST_BYTES));
        assert_eq!(parse(long.as_bytes()), Err(HeadError::TooLarge));
        assert_eq!(parse(format!("{long}\r\n\r\n").as_bytes()), Err(HeadError::TooLarge));
        assert_eq!(parse(&[0x16, 3, 1, 2, 0]), Err(HeadError::Malformed));
        assert_eq!(parse(b"GET / HTTP/2.0\r\n\r\n"), Err(HeadError::Malformed));
    }
}
