//! Every relative link of every document leads to a file that is there, and to a heading that is in it; and the book of
//! `make site` has every document of docs/.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::source::workspace;

/// Documents that are no part of the project's own text: what an issue, a licence or a generator says.
const FOREIGN: [&str; 1] = ["findings/"];

/// The `.md` files that git knows, or would.
fn documents() -> Vec<PathBuf> {
    let output = Command::new("git")
        .current_dir(workspace())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<PathBuf> = names
        .split_terminator('\0')
        .filter(|name| !FOREIGN.iter().any(|start| name.starts_with(start)))
        .map(PathBuf::from)
        // One that was removed and not committed yet.
        .filter(|path| workspace().join(path).is_file())
        .collect();
    files.sort();
    assert!(files.len() > 15, "only {} documents found", files.len());
    files
}

fn text(document: &Path) -> String {
    std::fs::read_to_string(workspace().join(document)).unwrap()
}

/// The lines that are no code: without fenced blocks, and with code spans blanked.
fn prose(text: &str) -> Vec<String> {
    let mut fence: Option<String> = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        let start = line.trim_start();
        let ticks: String = start.chars().take_while(|c| *c == '`' || *c == '~').collect();
        match &fence {
            Some(open) if ticks.starts_with(open.as_str()) && start == ticks => fence = None,
            Some(_) => {}
            None if ticks.len() >= 3 => fence = Some(ticks),
            None => {
                let parts: Vec<&str> = line.split('`').collect();
                let kept = parts.iter().enumerate().map(|(i, part)| if i % 2 == 0 { *part } else { "" });
                lines.push(kept.collect::<Vec<_>>().join("`"));
                continue;
            }
        }
        lines.push(String::new());
    }
    lines
}

/// The targets of the links of a document, with their lines. They may go on in the next line, so the text is looked at whole.
fn links(text: &str) -> Vec<(usize, String)> {
    let prose = prose(text).join("\n");
    let mut found = Vec::new();
    for (at, _) in prose.match_indices("](") {
        let rest = &prose[at + 2..];
        let Some(end) = rest.find(')') else { continue };
        let line = prose[..at].lines().count().max(1);
        found.push((line, rest[..end].trim().to_owned()));
    }
    // `[name]: target`
    for (i, line) in prose.lines().enumerate() {
        if let Some((name, target)) = line.split_once("]: ")
            && name.starts_with('[')
        {
            found.push((i + 1, target.trim().to_owned()));
        }
    }
    found
}

/// The anchors of a document's headings, as GitHub and mdBook make them: lower case, hyphens for spaces, no punctuation, and
/// a number behind one that is there already.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    let lines = text.lines().zip(prose(text));
    for (line, _) in lines.filter(|(line, prose)| line.starts_with('#') && !prose.is_empty()) {
        let title = line.trim_start_matches('#').trim();
        let name: String = title
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                c if c.is_alphanumeric() => Some(c),
                _ => None,
            })
            .collect();
        let count = seen.entry(name.clone()).or_default();
        anchors.insert(if *count == 0 { name } else { format!("{name}-{count}") });
        *count += 1;
    }
    anchors
}

/// A path without `.` and `..`; none if it leads out of the workspace.
fn resolved(path: &Path) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => out.push(part),
            Component::CurDir => {}
            Component::ParentDir => {
                if !out.pop() {
                    return None;
                }
            }
            _ => return None,
        }
    }
    Some(out)
}

/// What is wrong with a link, if anything is.
fn fault(document: &Path, own: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let of = if file.is_empty() {
        own.to_owned()
    } else {
        let Some(path) = resolved(&document.parent().unwrap_or(Path::new("")).join(file)) else {
            return Some("leads out of the project".to_owned());
        };
        if !workspace().join(&path).exists() {
            return Some(format!("there is no {}", path.display()));
        }
        if anchor.is_none() || path.extension().is_none_or(|extension| extension != "md") {
            return None;
        }
        text(&path)
    };
    let anchor = anchor?;
    (!anchors(&of).contains(anchor)).then(|| format!("no heading has the anchor {anchor:?}"))
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    let mut count = 0;
    for document in documents() {
        let own = text(&document);
        for (line, target) in links(&own) {
            count += 1;
            if let Some(fault) = fault(&document, &own, &target) {
                faults.push(format!("{}:{line}: {target}: {fault}", document.display()));
            }
        }
    }
    assert!(count > 100, "only {count} links found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_book_has_every_document() {
    let summary = text(Path::new("docs/SUMMARY.md"));
    let in_book: BTreeSet<PathBuf> =
        links(&summary).iter().filter_map(|(_, target)| resolved(&Path::new("docs").join(target))).collect();
    let missing: Vec<PathBuf> = documents()
        .into_iter()
        .filter(|path| path.starts_with("docs") || path.components().count() == 1)
        .filter(|path| path != Path::new("docs/SUMMARY.md") && !in_book.contains(path))
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md has no chapter for {missing:?}");
}

#[test]
fn links_and_anchors_are_found() {
    let text = "# The `a b` of it\n\nA [link](b.md#c) and `[no](link)`, [two\nlines](d.md).\n\n```sh\n# no heading\n[no](x)\n```\n## It's\n## Its\n";
    assert_eq!(links(text), [(3, "b.md#c".to_owned()), (4, "d.md".to_owned())]);
    assert_eq!(anchors(text), ["the-a-b-of-it", "its", "its-1"].map(str::to_owned).into());
    assert_eq!(resolved(Path::new("docs/../a/./b")), Some("a/b".into()));
    assert_eq!(resolved(Path::new("docs/../../a")), None);
}
