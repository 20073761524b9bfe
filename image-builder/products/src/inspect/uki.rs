//! Unified kernel images: programs whose sections are the parts of a boot.

use super::found::Section;
use crate::format::pe;

/// Sections that hold words.
const WORDS: [&str; 3] = [".cmdline", ".osrel", ".uname"];

/// The sections, and what the one with the initrd holds; nothing when it is no such image.
pub(super) fn read(bytes: &[u8]) -> Option<(Vec<Section>, &[u8])> {
    let found = pe::sections(bytes).ok()?;
    if !found.iter().any(|(name, _)| name == ".linux") {
        return None;
    }
    let (_, place) = found.iter().find(|(name, _)| name == ".initrd")?;
    let initrd = bytes.get(place.clone())?;
    let sections = found.iter().map(|(name, place)| Section {
        name: name.clone(),
        start: place.start as u64,
        size: place.len() as u64,
        text: bytes.get(place.clone()).filter(|_| WORDS.contains(&name.as_str())).map(words),
    });
    Some((sections.collect(), initrd))
}

fn words(content: &[u8]) -> String {
    String::from_utf8_lossy(content).trim_end_matches(['\0', '\n']).to_owned()
}
