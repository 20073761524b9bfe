//! What a file is said to be: by its name alone, since what is in it is the container's.

/// Types that browsers and tools ask for. Everything else is bytes.
const TYPES: [(&str, &str); 25] = [
    ("avif", "image/avif"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("log", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("py", "text/x-python; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webp", "image/webp"),
    ("xml", "text/xml; charset=utf-8"),
    ("zip", "application/zip"),
];

/// The content type of a file with this name.
pub(super) fn content_type(path: &str) -> &'static str {
    let extension = path.rsplit('/').next().and_then(|name| name.rsplit_once('.')).map_or("", |(_, end)| end);
    let known = TYPES.iter().find(|(name, _)| extension.eq_ignore_ascii_case(name));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

/// `Content-Disposition` with a file's name: plain, in quotes, or as RFC 8187 has it, whichever can hold the name.
pub(super) fn disposition(name: &str) -> String {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_token) {
        return format!("inline; filename={name}");
    }
    if name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("inline; filename=\"{quoted}\"");
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte);
    let escaped = name.bytes().map(|byte| match byte {
        byte if is_plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    format!("inline; filename*=utf-8''{}", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        assert_eq!(content_type("/a/b.TXT"), "text/plain; charset=utf-8");
        assert_eq!(content_type("/a.txt/b"), "application/octet-stream");
        for (name, text) in [
            ("a.txt", "inline; filename=a.txt"),
            ("a b", "inline; filename=\"a b\""),
            ("q\"u\\o", "inline; filename=\"q\\\"u\\\\o\""),
            ("ü\r\nx", "inline; filename*=utf-8''%C3%BC%0D%0Ax"),
        ] {
            assert_eq!(disposition(name), text);
        }
        assert!(TYPES.is_sorted());
    }
}
