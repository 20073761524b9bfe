//! What the agent's program does in the container that a pod has for itself: waiting, and talking to the pod's ports.
//!
//! `image-builder run` makes that container with nothing in it but this program. It has no rights and trusts nobody; it knows
//! nothing of the agent.
//!
//! ```text
//! /companion wait              be process 1: take the status of whoever ends
//! /companion reach HOST PORT   connect; status 0 if that succeeds
//! /companion talk HOST PORT    connect standard input and output
//! ```

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// What the program is called where this is meant. PID 1 of a guest never is.
pub(crate) const PROGRAM: &str = "/companion";

/// Does what the arguments say.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["wait"] => wait(),
        ["reach", host, port] => connect(host, port).map(drop),
        ["talk", host, port] => connect(host, port).and_then(talk),
        other => Err(io::Error::other(format!("companion: no such order: {other:?}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for SIGTERM, and takes the status of everything that ends meanwhile.
fn wait() -> io::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    loop {
        if signals.wait()? == Signal::SIGTERM {
            return Ok(());
        }
        // One signal may stand for several ends.
        while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive) | Err(_)) {}
    }
}

fn connect(host: &str, port: &str) -> io::Result<TcpStream> {
    let port: u16 = port.parse().map_err(|_| io::Error::other(format!("{port:?} is no port")))?;
    let mut last = io::Error::other(format!("{host} has no address"));
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = io::Error::new(error.kind(), format!("connect to {address}: {error}")),
        }
    }
    Err(last)
}

/// Copies both ways until the other side has said all.
fn talk(stream: TcpStream) -> io::Result<()> {
    let (mut to, mut from) = (stream.try_clone()?, stream);
    // Ends with the process, at the latest.
    std::thread::spawn(move || {
        let copied = io::copy(&mut io::stdin().lock(), &mut to);
        copied.and_then(|_| to.shutdown(Shutdown::Write))
    });
    let mut out = io::stdout().lock();
    io::copy(&mut from, &mut out)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> bool {
        main(words.iter().map(OsString::from)) == ExitCode::SUCCESS
    }

    #[test]
    fn a_port_is_reached_or_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        assert!(run(&["reach", "127.0.0.1", &port]) && run(&["reach", "localhost", &port]));
        drop(listener);
        assert!(!run(&["reach", "127.0.0.1", &port]));
        assert!(!run(&["reach", "127.0.0.1", "70000"]) && !run(&["reach"]) && !run(&[]));
    }
}
