//! The list of differences in docs/oci.md is made from the one that the test uses.

use std::path::Path;

use crate::differences::{KNOWN, OF_ENGINES};

/// A part of the document stands between two marks of its name.
fn replaced(text: &str, part: &str, content: &str) -> String {
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- end of {part} -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("docs/oci.md has no {begin:?}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/oci.md has no {end:?}"));
    format!("{before}{begin}{content}{end}{after}")
}

fn table() -> String {
    let mut table = "| bundle | runtime | what | why |\n|---|---|---|---|\n".to_owned();
    for known in KNOWN.iter().chain(OF_ENGINES) {
        let cell = |text: &str| if text == "*" { "all".to_owned() } else { format!("`{text}`") };
        table += &format!(
            "| {} | {} | `{}` | {} |\n",
            cell(known.bundle),
            if known.runtime == "*" { "both" } else { known.runtime },
            known.place,
            known.reason
        );
    }
    table
}

#[test]
fn the_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/oci.md");
    let text = std::fs::read_to_string(&path).expect("docs/oci.md");
    let wanted = replaced(&text, "differences", &table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).expect("write docs/oci.md");
    } else {
        assert_eq!(text, wanted, "docs/oci.md is not up to date: run this test with UPDATE_DOCS=1");
    }
}
