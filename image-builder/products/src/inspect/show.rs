//! An inspection as a tree for people.

use std::collections::BTreeMap;

use fs_image::Entry;
use fs_image::entry::{DIRECTORY, TYPE};

use super::found::Inspection;
use store::progress::bytes;
use store::text::printable;

/// Draws the image: what it is, its partitions, then every entry with mode, owner and size; a directory has the size of all
/// that is in it. `depth` cuts the tree off below so many levels.
pub fn tree(inspection: &Inspection, depth: Option<usize>) -> String {
    let mut text = format!("{}, {}", inspection.kind, bytes(inspection.size));
    if let Some(unpacked) = inspection.unpacked {
        text += &format!(", {} unpacked", bytes(unpacked));
    }
    for partition in &inspection.partitions {
        text += &format!(
            "\npartition {}: {} at byte {}, {}, {}",
            partition.number,
            printable(&partition.name),
            partition.start,
            bytes(partition.size),
            partition.content
        );
    }
    for section in &inspection.sections {
        text += &format!(
            "\n{:<9} {:>10} at byte {}",
            printable(&section.name),
            bytes(section.size),
            section.start
        );
        for line in section.text.iter().flat_map(|text| text.lines()) {
            text += &format!("\n          {}", printable(line));
        }
    }
    let sizes = sizes(&inspection.entries);
    let mut entries: Vec<&Entry> = inspection.entries.iter().collect();
    // By parts, so that what is in `a` comes before `a-b`.
    entries.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    for entry in entries {
        let level = entry.path.matches('/').count();
        if depth.is_some_and(|depth| level > depth) {
            continue;
        }
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        let size = sizes.get(entry.path.as_str()).map_or(entry.size, |size| *size);
        let slash = if entry.mode & TYPE == DIRECTORY { "/" } else { "" };
        // Each in its line, whatever it is called.
        let name = printable(name);
        let target = entry.target.as_deref().map(printable);
        let target = target.map(|target| format!(" -> {target}")).unwrap_or_default();
        let owner = format!("{}:{}", entry.uid, entry.gid);
        text += &format!(
            "\n{:04o} {owner:>9} {:>10}  {}{name}{slash}{target}",
            entry.mode & 0o7777,
            bytes(size),
            "  ".repeat(level - 1)
        );
    }
    text
}

/// What all files below each directory have together.
fn sizes(entries: &[Entry]) -> BTreeMap<&str, u64> {
    let mut sizes = BTreeMap::new();
    for entry in entries {
        if entry.mode & TYPE == DIRECTORY {
            sizes.entry(entry.path.as_str()).or_insert(0);
        }
        let mut above = entry.path.rfind('/').map(|slash| &entry.path[..slash]);
        while let Some(path) = above.filter(|path| !path.is_empty()) {
            *sizes.entry(path).or_insert(0) += entry.size;
            above = path.rfind('/').map(|slash| &path[..slash]);
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_in_its_line() {
        let entry = Entry {
            path: "/a\n0644 forged\x1b[2J".into(),
            mode: 0o120_777,
            uid: 0,
            gid: 0,
            size: 0,
            target: Some("\u{9b}x".into()),
        };
        let whole = tree(&Inspection { entries: vec![entry], ..Inspection::default() }, None);
        assert_eq!(whole.lines().count(), 2, "{whole:?}");
        assert!(whole.ends_with(r"a\n0644 forged\u{1b}[2J -> \u{9b}x"), "{whole:?}");
    }

    #[test]
    fn directories_have_what_is_below_them() {
        let entry = |path: &str, mode: u32, size: u64| Entry {
            path: path.into(),
            mode,
            uid: 0,
            gid: 7,
            size,
            target: None,
        };
        let inspection = Inspection {
            kind: "initrd (zstd)".into(),
            size: 10,
            unpacked: Some(2000),
            entries: vec![
                entry("/a", 0o040_755, 0),
                entry("/a/b", 0o040_700, 0),
                entry("/a/b/c", 0o100_644, 1500),
                entry("/a-b", 0o100_644, 1),
                entry("/a/d", 0o104_755, 5),
            ],
            ..Inspection::default()
        };
        let whole = tree(&inspection, None);
        assert_eq!(
            whole.lines().collect::<Vec<_>>(),
            [
                "initrd (zstd), 10 B, 2.0 kB unpacked",
                "0755       0:7     1.5 kB  a/",
                "0700       0:7     1.5 kB    b/",
                "0644       0:7     1.5 kB      c",
                "4755       0:7        5 B    d",
                "0644       0:7        1 B  a-b",
            ]
        );
        assert_eq!(tree(&inspection, Some(1)).lines().count(), 3);
    }
}
