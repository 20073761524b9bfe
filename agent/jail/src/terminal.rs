//! The container's terminal, shown on the caller's.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// Copies between the container's terminal and standard streams, until the container's end is closed.
pub(crate) struct Shown {
    output: JoinHandle<()>,
    /// The caller's own settings, where it has a terminal.
    before: Option<Termios>,
}

impl Shown {
    /// Begins to copy. The caller's terminal passes every key on; its size is the container's.
    pub(crate) fn begin(master: OwnedFd) -> Result<Shown> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok();
        if let Some(settings) = &before {
            let mut raw = settings.clone();
            raw.make_raw();
            tcsetattr(&stdin, OptionalActions::Now, &raw).context("set the terminal up")?;
            tcsetwinsize(&master, tcgetwinsize(&stdin)?)?;
        }
        let mut from = std::fs::File::from(master.try_clone()?);
        let mut to = std::fs::File::from(master);
        // Nobody waits for this one: it ends with the program.
        std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut to));
        let output = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is how the other end of a terminal says that it is closed.
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let mut stdout = std::io::stdout();
                if stdout.write_all(&buffer[..count]).and_then(|()| stdout.flush()).is_err() {
                    break;
                }
            }
        });
        Ok(Shown { output, before })
    }

    /// Waits for the last byte, and gives the caller's terminal back as it was.
    pub(crate) fn end(self) -> Result<()> {
        // A thread that panicked has nothing more to show.
        drop(self.output.join());
        if let Some(settings) = self.before {
            tcsetattr(std::io::stdin(), OptionalActions::Now, &settings).context("reset the terminal")?;
        }
        Ok(())
    }
}
