//! The tables of docs/manifests.md are the schemas, and the schemas are what the code reads.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::fields::{ASKED, Honoured, Ignored, Refused};
use super::{corpus, schemas};
use crate::run::Pod;

const BEGIN: &str = "<!-- keys: written by `UPDATE_DOCS=1 cargo test -p pods manifest` -->\n";
const END: &str = "<!-- end of keys -->\n";

fn tables() -> String {
    let mut text = String::new();
    for schema in schemas() {
        write!(text, "\n### {}\n\n| key | here | what |\n|---|---|---|\n", schema.name).unwrap();
        for (key, meaning) in schema.keys {
            let (here, what) = match meaning {
                Honoured(what) => ("honoured", what),
                Ignored(why) => ("without effect", why),
                Refused(why) => ("refused", why),
            };
            writeln!(text, "| `{key}` | {here} | {what} |").unwrap();
        }
    }
    text + "\n"
}

#[test]
fn the_documentation_has_the_keys_that_the_code_has() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/manifests.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the beginning of the tables");
    let (found, after) = rest.split_once(END).expect("the end of the tables");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", tables())).unwrap();
        return;
    }
    assert!(found == tables(), "{} is behind; UPDATE_DOCS=1 writes its tables anew", path.display());
}

#[test]
fn every_key_that_is_called_honoured_is_read() {
    for text in corpus::manifests().into_values() {
        drop(Pod::parse(&text));
    }
    let asked = ASKED.with(|asked| asked.borrow().clone());
    let honoured: BTreeSet<(&str, &str)> = schemas()
        .iter()
        .flat_map(|schema| {
            let keys = schema.keys.iter().filter(|(_, meaning)| matches!(meaning, Honoured(_)));
            keys.map(|(key, _)| (schema.name, *key))
        })
        .collect();
    let unread: Vec<_> = honoured.difference(&asked).collect();
    assert!(
        unread.is_empty(),
        "nobody reads {unread:?}, or no manifest of testdata/pods has what they are in"
    );
}

#[test]
fn no_schema_has_a_key_twice() {
    for schema in schemas() {
        let keys: BTreeSet<&str> = schema.keys.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys.len(), schema.keys.len(), "{}", schema.name);
    }
}
