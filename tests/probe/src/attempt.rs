//! Things to try.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use serde_json::{Value, json};

use crate::sys;

/// Tries something; none for a word that is no attempt.
pub(crate) fn attempt(what: &str, subject: &str) -> Option<Value> {
    Some(match what {
        "--read" => read(subject),
        "--write" => {
            outcome(File::options().write(true).open(subject).and_then(|mut file| file.write_all(b"1")))
        }
        "--open" => outcome(File::options().read(true).open(subject)),
        "--create" => outcome(File::create(subject)),
        "--list" => std::fs::read_dir(subject).map_or_else(error, |list| {
            let mut names: Vec<_> =
                list.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            json!(names)
        }),
        "--mode" => std::fs::metadata(subject).map_or_else(error, |meta| {
            json!(format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid()))
        }),
        "--call" => json!(sys::call(subject)),
        "--vfio" => vfio(subject),
        "--listen" => json!(sys::listen(subject)),
        "--nest" => outcome(nest(subject)),
        _ => return None,
    })
}

/// `COUNT:DIRECTORY`: nests so many directories in one another. No path would be long enough to name the last.
fn nest(subject: &str) -> std::io::Result<()> {
    let (count, top) = subject.split_once(':').ok_or(std::io::ErrorKind::InvalidInput)?;
    let count: u32 = count.parse().map_err(std::io::Error::other)?;
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = rustix::fs::openat(CWD, top, open, Mode::empty())?;
    for _ in 0..count {
        rustix::fs::mkdirat(&here, "d", Mode::RWXU)?;
        here = rustix::fs::openat(&here, "d", open, Mode::empty())?;
    }
    Ok(())
}

/// Drives the PCI device `GROUP:ADDRESS` itself: reads who made it, and lets it write to memory (the command register).
fn vfio(subject: &str) -> Value {
    let Some((group, address)) = subject.split_once(':') else { return json!("no address") };
    let work = || -> std::io::Result<Value> {
        let (device, config) = sys::vfio_device(group, address)?;
        let mut word = [0; 2];
        let (vendor, command) = (config, config + 4);
        device.read_exact_at(&mut word, vendor)?;
        let made_by = u16::from_le_bytes(word);
        device.read_exact_at(&mut word, command)?;
        let master = (u16::from_le_bytes(word) ^ 4).to_le_bytes();
        device.write_all_at(&master, command)?;
        device.read_exact_at(&mut word, command)?;
        Ok(json!(format!("vendor {made_by:04x}, written {}", word == master)))
    };
    work().unwrap_or_else(error)
}

/// Exchanges two names for as long as it lives; writes the number of times to a file now and then.
pub(crate) fn swap(one: &str, other: &str, count: &str) -> ExitCode {
    let mut times: u64 = 0;
    loop {
        if let Err(errno) = rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            eprintln!("exchange {one} and {other}: {errno}");
            return ExitCode::FAILURE;
        }
        times += 1;
        if times.is_multiple_of(500) && std::fs::write(count, times.to_string()).is_err() {
            return ExitCode::FAILURE;
        }
    }
}

fn read(path: &str) -> Value {
    let mut text = vec![0; 2048];
    File::open(path)
        .and_then(|mut file| file.read(&mut text))
        .map_or_else(error, |count| json!(String::from_utf8_lossy(&text[..count]).trim_end()))
}

fn error(error: std::io::Error) -> Value {
    json!(format!("errno {}", error.raw_os_error().unwrap_or(0)))
}

fn outcome<T>(result: std::io::Result<T>) -> Value {
    result.map_or_else(error, |_| json!("ok"))
}
