//! What the agent's program does in containers that the host makes for itself: waiting, talking to the pod's ports, and
//! copying files of another container.
//!
//! `pith` makes such a container with nothing in it but this program and, for copies, the other container's files at
//! `/target`. It trusts nobody, and knows nothing of the agent. No path leads out of `/target`, whatever links it has.
//!
//! ```text
//! /companion wait              be process 1: take the status of whoever ends
//! /companion reach HOST PORT   connect; status 0 if that succeeds
//! /companion until HOST PORT   connect again and again until that succeeds
//! /companion talk HOST PORT    connect standard input and output
//! /companion look PATH         print what is there: `d` directory, `f` file, `o` other, `-` nothing (but its directory is)
//! /companion pack PATH         write the tree to standard output, as the crate `parcel` has it
//! /companion unpack OWNER DIR [NAME]
//!                              make the tree of standard input in DIR. OWNER is UID:GID, or `-` for the stream's
//! ```

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use parcel::{Options, Owner, TreeError, open_in};
use rustix::fs::{FileType, Mode, OFlags, fstat};

/// What the program is called where this is meant. PID 1 of a guest never is.
pub(crate) const PROGRAM: &str = "/companion";
/// Between two connections to a port that nobody answers at, at first and in the end.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// The pod's names.
const HOSTS: &str = "/etc/hosts";
/// Where the files of another container are.
const TARGET: &str = "/target";

/// Does what the arguments say.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["wait"] => wait(),
        ["reach", host, port] => connect(host, port).map(drop),
        ["until", host, port] => until(host, port),
        ["talk", host, port] => connect(host, port).and_then(talk),
        ["look", path] => target(TARGET).and_then(|root| look(&root, path)).map(|what| println!("{what}")),
        ["pack", path] => target(TARGET).and_then(|root| pack(&root, path)),
        ["unpack", owner, path] => target(TARGET).and_then(|root| unpack(&root, owner, path, None)),
        ["unpack", owner, path, name] => {
            target(TARGET).and_then(|root| unpack(&root, owner, path, Some(name)))
        }
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
    let port: u16 = port
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{port:?} is no port")))?;
    let mut last = io::Error::other(format!("{host} has no address"));
    // A file that is missing knows no names.
    let known = std::fs::read_to_string(HOSTS).unwrap_or_default();
    for address in addresses(host, &known) {
        match TcpStream::connect((address, port)) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = io::Error::new(error.kind(), format!("connect to {address}: {error}")),
        }
    }
    Err(last)
}

/// What a name or an address stands for, by the text of `/etc/hosts`. The container has no other source of names, and the
/// resolver of libc would be a thirtieth of the agent.
fn addresses(host: &str, known: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    let named = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let (address, names) = line.trim_start().split_once(char::is_whitespace)?;
        names.split_whitespace().find(|name| name.eq_ignore_ascii_case(host))?;
        address.parse().ok()
    };
    let mut found: Vec<IpAddr> = known.lines().filter_map(named).collect();
    if found.is_empty() && host.eq_ignore_ascii_case("localhost") {
        found.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
    }
    found
}

/// Waits until somebody answers at a port.
fn until(host: &str, port: &str) -> io::Result<()> {
    let mut pause = FIRST_PAUSE;
    while let Err(error) = connect(host, port) {
        // What is no port never answers.
        if error.kind() == io::ErrorKind::InvalidInput {
            return Err(error);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
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

fn target(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(&*CString::new(path)?, flags, Mode::empty())?)
}

/// Opens a path of the other container.
fn open(root: &OwnedFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let opened = CString::new(path).map_err(io::Error::from);
    let opened = opened.and_then(|name| open_in(root.as_fd(), &name, flags));
    opened.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn look(root: &OwnedFd, path: &str) -> io::Result<&'static str> {
    match open(root, path, OFlags::PATH) {
        Ok(file) => Ok(match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::Directory => "d",
            FileType::RegularFile => "f",
            _ => "o",
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.trim_end_matches('/').rsplit_once('/').map_or("", |(parent, _)| parent);
            let opened = open(root, &format!("{parent}/"), OFlags::PATH | OFlags::DIRECTORY);
            opened.map(|_| "-").map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

/// What the crate says, as text alone: nobody here asks for more of it.
fn said(error: TreeError) -> io::Error {
    io::Error::other(error.to_string())
}

fn pack(root: &OwnedFd, path: &str) -> io::Result<()> {
    let file = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    // As a file, without a buffer that looks for lines.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    parcel::pack(file, &mut out).map(drop).map_err(said)
}

fn unpack(root: &OwnedFd, owner: &str, path: &str, name: Option<&str>) -> io::Result<()> {
    let number = |text: &str| text.parse::<u32>().ok();
    let owner = match owner.split_once(':').map(|(user, group)| (number(user), number(group))) {
        Some((Some(user), Some(group))) => Owner::These(user, group),
        Some(_) => return Err(io::Error::other(format!("{owner:?} is not UID:GID"))),
        None => Owner::Stream,
    };
    let into = open(root, path, OFlags::PATH | OFlags::DIRECTORY)?;
    // The container's own disk and memory are the bound here.
    let options = Options { owner, set_id: true, most_bytes: u64::MAX, most_entries: u64::MAX };
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    parcel::unpack(&mut input, into.as_fd(), name.map(OsStr::new), &options).map(drop).map_err(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_told_and_no_link_leads_out() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("d")).unwrap();
        std::fs::write(directory.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("/d", directory.path().join("l")).unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("out")).unwrap();
        let root = target(&directory.path().display().to_string()).unwrap();
        for (path, expected) in
            [("/", "d"), ("/d", "d"), ("/l", "d"), ("/f", "f"), ("/../f", "f"), ("/d/x", "-"), ("/out", "-")]
        {
            assert_eq!(look(&root, path).unwrap(), expected, "{path}");
        }
        for path in ["/x/y", "/f/x"] {
            let error = look(&root, path).unwrap_err().to_string();
            assert!(error.starts_with(path), "{error}");
        }
        for (owner, path) in [("x:1", "/d"), ("-", "/f"), ("-", "/none")] {
            assert!(unpack(&root, owner, path, None).is_err(), "{owner} {path}");
        }
    }

    fn run(words: &[&str]) -> bool {
        main(words.iter().map(OsString::from)) == ExitCode::SUCCESS
    }

    #[test]
    fn names_are_those_of_the_hosts_file() {
        let known = "# 10.0.0.9 web\n127.0.0.1\tlocalhost\n10.0.0.1  web web.default # 10.0.0.8 other\nfe00::1 WEB\nnonsense web\n";
        let of = |host| addresses(host, known).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(of("web"), ["10.0.0.1", "fe00::1"]);
        assert_eq!(of("Web.Default"), ["10.0.0.1"]);
        assert_eq!(of("localhost"), ["127.0.0.1"]);
        assert_eq!((of("10.1.2.3"), of("::2")), (vec!["10.1.2.3".into()], vec!["::2".into()]));
        for unknown in ["we", "other", "10.0.0", "#", ""] {
            assert!(of(unknown).is_empty(), "{unknown:?}");
        }
        assert_eq!(addresses("localhost", "").len(), 2, "it needs no line");
    }

    #[test]
    fn a_port_is_reached_or_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        assert!(run(&["reach", "127.0.0.1", &port]) && run(&["reach", "localhost", &port]));
        assert!(run(&["until", "127.0.0.1", &port]) && !run(&["until", "127.0.0.1", "70000"]));
        drop(listener);
        assert!(!run(&["reach", "127.0.0.1", &port]));
        let (address, wanted) = (format!("127.0.0.1:{port}"), port.clone());
        let waits = std::thread::spawn(move || run(&["until", "127.0.0.1", &wanted]));
        let _late = std::net::TcpListener::bind(address).unwrap();
        assert!(waits.join().unwrap());
        assert!(!run(&["reach", "127.0.0.1", "70000"]) && !run(&["reach"]) && !run(&[]));
    }
}
