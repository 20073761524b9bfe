//! Reports what a process sees and may do, as one line of JSON.
//!
//! Promises that a report says nothing that differs from run to run by itself: no ids of mounts or processes, no times.
//! What it is told to try, it tries after it has looked: `--read FILE`, `--write FILE`, `--open FILE`, `--mode FILE`, `--call NAME`,
//! `--vfio GROUP:ADDRESS`, `--listen PORT` of a vsock, `--nest COUNT:DIRECTORY`.
//! `--exit STATUS` is what it ends with. `--swap A B COUNT` does something else: it exchanges two names over and over, and
//! keeps the number of times in a file. `--witness FILE` writes down times and random numbers for ever. `--hoard KIND COUNT FILE`
//! takes what the kernel counts and keeps it. `--copy PORT BYTES` copies over a vsock. `--wait SECONDS` only waits. `--panic`
//! panics, on a thread too, and goes on. `--hello` in the end says that it runs, and ends: the first process of a kernel whose
//! boot is measured, which hands on all words that it does not know.

mod attempt;
mod copy;
mod hoard;
mod process;
mod sys;
mod view;
mod witness;

use std::process::ExitCode;

use serde_json::{Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, word, one, other, count] = args.as_slice()
        && word == "--swap"
    {
        return attempt::swap(one, other, count);
    }
    let args_as_text: Vec<&str> = args.iter().map(String::as_str).collect();
    let for_ever = match args_as_text.as_slice() {
        [_, "--witness", file] => Some(witness::watch(file)),
        [_, "--hoard", kind, count, file] => Some(hoard::hoard(kind, count, file)),
        [_, "--copy", port, count] => Some(copy::serve(port, count)),
        [_, "--wait", seconds] => Some(wait(seconds)),
        [_, "--panic"] => Some(survive_panics()),
        _ => None,
    };
    if let Some(ended) = for_ever {
        return match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{}: {error}", args[1]);
                ExitCode::FAILURE
            }
        };
    }
    if args.last().is_some_and(|word| word == "--hello") {
        // The kernel's own messages come out where what processes write is lost, for want of an interrupt.
        const TEXT: &str = "<0>probe says hello\n";
        let written = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/kmsg")
            .and_then(|mut log| std::io::Write::write_all(&mut log, TEXT.as_bytes()));
        return if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut tried = serde_json::Map::new();
    let mut status = 0;
    let mut seen = json!({
        "args": args,
        "env": std::env::vars_os().map(|(name, value)| {
            format!("{}={}", name.to_string_lossy(), value.to_string_lossy())
        }).collect::<Vec<_>>(),
    });
    for (name, section) in process::sections().into_iter().chain(view::sections()) {
        seen[name] = section;
    }
    for pair in args.windows(2).skip(1) {
        let [what, subject] = pair else { continue };
        if what == "--exit" {
            status = subject.parse().unwrap_or(1);
        }
        if let Some(result) = attempt::attempt(what, subject) {
            tried.insert(format!("{} {subject}", &what[2..]), result);
        }
    }
    seen["tried"] = Value::Object(tried);
    println!("{seen}");
    ExitCode::from(status)
}

/// Panics, here and on a thread. Whether unwinding ends where it should shows how the program was linked.
fn survive_panics() -> std::io::Result<()> {
    let here = std::panic::catch_unwind(|| -> () { panic!("here") });
    let there = std::thread::spawn(|| -> () { panic!("there") }).join();
    if here.is_err() && there.is_err() {
        Ok(())
    } else {
        Err(std::io::Error::other("a panic went unnoticed"))
    }
}

fn wait(seconds: &str) -> std::io::Result<()> {
    let seconds = seconds.parse().map_err(std::io::Error::other)?;
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    Ok(())
}
