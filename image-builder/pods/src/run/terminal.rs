//! The user's own terminal and standard input.
//!
//! Promises that a terminal put into raw mode is put back, however the scope is left.

use std::io::Read;
use std::io::{self, IsTerminal};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::sync::mpsc;

/// Puts standard input into raw mode for as long as it lives.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Nothing when standard input is not a terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to put back.
        tcsetattr(io::stdin(), OptionalActions::Drain, &self.before).ok();
    }
}

/// Rows and columns of the terminal on standard output, or on standard input.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Reads standard input on a thread of its own, in pieces of at most `piece` bytes. The thread may stay blocked in
/// its read when nobody listens any more; it does not keep the process from ending.
pub fn read_stdin(piece: usize) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    let reader = move || {
        let mut buffer = vec![0; piece];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) if sender.blocking_send(buffer[..count].to_vec()).is_err() => return,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return,
                _ => {}
            }
        }
    };
    // Without a thread the channel closes at once: an empty input.
    drop(std::thread::Builder::new().name("stdin".into()).spawn(reader));
    receiver
}
