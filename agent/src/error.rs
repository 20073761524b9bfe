//! The closed set of error kinds. Every error type below `rpc/` says which kind it is; `rpc/status.rs` is the one
//! place that turns a kind into a ttrpc code.

/// What went wrong, as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// A container, exec or process is unknown, or gone.
    NotFound,
    /// The id is taken.
    Exists,
    /// The request cannot be right: a bad id, path, spec or driver.
    Invalid,
    /// Not in this state: started twice, exec in a stopped container.
    State,
    /// Queue full, or shutting down: try again.
    Busy,
    /// Out of memory, disk, descriptors or pids.
    Exhausted,
    /// Policy said no.
    Denied,
    /// Something awaited never came: a device, a hook.
    Timeout,
    /// What was done was given up, since its container or the pod is being removed.
    Cancelled,
    /// Not in this guest.
    Unsupported,
    /// Everything else.
    Internal,
}

/// An error that knows its kind.
pub trait Kind: std::error::Error {
    /// The kind that decides the answer's ttrpc code.
    fn kind(&self) -> ErrorKind;
}

/// The kind of an operating-system error when nothing better is known.
pub fn kind_of_errno(errno: Option<i32>) -> ErrorKind {
    use rustix::io::Errno;
    match errno.map(Errno::from_raw_os_error) {
        Some(Errno::NOMEM | Errno::NOSPC | Errno::MFILE | Errno::NFILE | Errno::AGAIN | Errno::DQUOT) => {
            ErrorKind::Exhausted
        }
        Some(Errno::TIMEDOUT) => ErrorKind::Timeout,
        _ => ErrorKind::Internal,
    }
}

/// The text of an error and of all its sources, joined by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Text of a container's making, with what a terminal would obey written out: else it forges lines, or drives the terminal.
pub(crate) fn visible(text: &str) -> String {
    // Those that turn the direction of the text around are no control characters by Unicode's count.
    let obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut visible, c| {
        if obeyed(c) {
            visible.extend(c.escape_default())
        } else {
            visible.push(c)
        }
        visible
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(visible("a\u{1b}[2J\r\n\u{9b}\u{202e}ä"), "a\\u{1b}[2J\\r\\n\\u{9b}\\u{202e}ä");
    }
}
