//! Things to try.

use std::fs::File;
use std::io::{Read as _, Write as _};

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
        "--call" => json!(sys::call(subject)),
        _ => return None,
    })
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
