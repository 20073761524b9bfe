//! Just enough of ELF to see whether a `vmlinux` can be entered by PVH, what a program needs to run, and what an object
//! file weighs.
//!
//! A VMM that loads the uncompressed kernel looks in its PT_NOTE segment for a note of owner `Xen` and type 18
//! (XEN_ELFNOTE_PHYS32_ENTRY), whose content is the 32-bit physical entry address. Bounds-checked; never panics.

/// Type of a program header of what is loaded into memory.
const PT_LOAD: u32 = 1;
/// Type of a program header with the dynamic section.
const PT_DYNAMIC: u32 = 2;
/// Type of a program header that names the loader.
const PT_INTERP: u32 = 3;
/// Type of a program header that holds notes.
const PT_NOTE: u32 = 4;
/// Type of the note with the entry address.
const PHYS32_ENTRY: u32 = 18;

/// Type of a section that is zeroes, and not in the file.
const SHT_NOBITS: u32 = 8;
/// Flags of a section: it can be written, it is in memory at run time.
const SHF_WRITE: u64 = 1;
const SHF_ALLOC: u64 = 2;

/// Tags of the dynamic section: its end, a library's name, the table of names.
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// Why a file is not what it should be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF magic, or another class or byte order.
    #[error("it is not a 64-bit little-endian ELF file")]
    NotElf64,
    /// A table points outside of the file.
    #[error("it is cut short")]
    Truncated,
    /// No such note.
    #[error("it has no PVH note, so no VMM can enter it; CONFIG_PVH must be on, and strip must keep notes")]
    NoNote,
}

/// The physical address at which a VMM enters the kernel by PVH.
///
/// # Errors
/// When the file is no ELF file of the right kind, or has no such note.
pub fn pvh_entry(file: &[u8]) -> Result<u32, ElfError> {
    for segment in segments(file, PT_NOTE)? {
        if let Some(entry) = entry_in(segment)? {
            return Ok(entry);
        }
    }
    Err(ElfError::NoNote)
}

/// `e_machine`: which processor it is for.
///
/// # Errors
/// When the file is no ELF file of the right kind.
pub fn machine(file: &[u8]) -> Result<u16, ElfError> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::NotElf64);
    }
    u16_at(file, 18)
}

/// The loader that a program asks for; none for a static one.
///
/// # Errors
/// When the file is no ELF file of the right kind.
pub fn interpreter(file: &[u8]) -> Result<Option<String>, ElfError> {
    let segments = segments(file, PT_INTERP)?;
    Ok(segments.first().map(|path| String::from_utf8_lossy(path).trim_end_matches('\0').to_string()))
}

/// The names of the shared libraries that a program or library asks for, in its order; none for a static one.
///
/// # Errors
/// When the file is no ELF file of the right kind.
pub fn needed(file: &[u8]) -> Result<Vec<String>, ElfError> {
    let mut entries = Vec::new();
    for segment in segments(file, PT_DYNAMIC)? {
        for entry in segment.chunks_exact(16) {
            match (u64_at(entry, 0)?, u64_at(entry, 8)?) {
                (DT_NULL, _) => break,
                entry => entries.push(entry),
            }
        }
    }
    let Some(&(_, table)) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB) else { return Ok(Vec::new()) };
    let table = at_address(file, table)?;
    let names = entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).map(|(_, offset)| {
        let start = usize::try_from(*offset).map_err(|_| ElfError::Truncated)?;
        let text = table.get(start..).ok_or(ElfError::Truncated)?;
        let end = text.iter().position(|byte| *byte == 0).ok_or(ElfError::Truncated)?;
        Ok(String::from_utf8_lossy(&text[..end]).into_owned())
    });
    names.collect()
}

/// How many bytes of an object file are loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Code and constants.
    pub text: u64,
    /// Variables that have a value.
    pub data: u64,
}

/// Adds up the sections of an object file that are in memory at run time; those of zeroes do not count.
///
/// # Errors
/// When the file is no ELF file of the right kind.
pub fn loaded(file: &[u8]) -> Result<Loaded, ElfError> {
    let mut loaded = Loaded::default();
    for section in table(file, 40, 58, 64)? {
        let (kind, flags, size) = (u32_at(section, 4)?, u64_at(section, 8)?, u64_at(section, 32)?);
        if flags & SHF_ALLOC == 0 || kind == SHT_NOBITS {
            continue;
        }
        let sum = if flags & SHF_WRITE == 0 { &mut loaded.text } else { &mut loaded.data };
        *sum = sum.checked_add(size).ok_or(ElfError::Truncated)?;
    }
    Ok(loaded)
}

/// What is loaded at an address, to the end of its segment.
fn at_address(file: &[u8], address: u64) -> Result<&[u8], ElfError> {
    for header in headers(file, PT_LOAD)? {
        let (offset, start, size) = (u64_at(header, 8)?, u64_at(header, 16)?, u64_at(header, 32)?);
        if let Some(within) = address.checked_sub(start).filter(|within| *within < size) {
            let from = offset.checked_add(within).ok_or(ElfError::Truncated)?;
            return slice(file, from, size - within);
        }
    }
    Err(ElfError::Truncated)
}

/// The content of every segment of one type.
fn segments(file: &[u8], wanted: u32) -> Result<Vec<&[u8]>, ElfError> {
    let headers = headers(file, wanted)?.into_iter();
    headers.map(|header| slice(file, u64_at(header, 8)?, u64_at(header, 32)?)).collect()
}

/// The program headers of one type.
fn headers(file: &[u8], wanted: u32) -> Result<Vec<&[u8]>, ElfError> {
    let mut found = Vec::new();
    for header in table(file, 32, 54, 56)? {
        if u32_at(header, 0)? == wanted {
            found.push(header);
        }
    }
    Ok(found)
}

/// The entries of one of the file's tables, by where the ELF header has its offset, and its entries' size and number,
/// and by how large an entry is at least.
fn table(file: &[u8], offset_at: usize, size_at: usize, least: u64) -> Result<Vec<&[u8]>, ElfError> {
    if file.get(..6) != Some(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return Err(ElfError::NotElf64);
    }
    let (offset, size, count) =
        (u64_at(file, offset_at)?, u64::from(u16_at(file, size_at)?), u64::from(u16_at(file, size_at + 2)?));
    let mut found = Vec::new();
    for index in 0..count {
        let entry = offset.checked_add(index * size).ok_or(ElfError::Truncated)?;
        found.push(slice(file, entry, size.max(least))?);
    }
    Ok(found)
}

fn entry_in(mut notes: &[u8]) -> Result<Option<u32>, ElfError> {
    while notes.len() >= 12 {
        let (name_size, content_size) = (u64::from(u32_at(notes, 0)?), u64::from(u32_at(notes, 4)?));
        let kind = u32_at(notes, 8)?;
        let content_at = 12 + name_size.next_multiple_of(4);
        let (name, content) = (slice(notes, 12, name_size)?, slice(notes, content_at, content_size)?);
        if kind == PHYS32_ENTRY && name == b"Xen\0" {
            return u32_at(content, 0).map(Some);
        }
        let next = content_at + content_size.next_multiple_of(4);
        notes = usize::try_from(next).ok().and_then(|next| notes.get(next..)).unwrap_or_default();
    }
    Ok(None)
}

fn slice(bytes: &[u8], offset: u64, size: u64) -> Result<&[u8], ElfError> {
    let start = usize::try_from(offset).map_err(|_| ElfError::Truncated)?;
    let end =
        offset.checked_add(size).and_then(|end| usize::try_from(end).ok()).ok_or(ElfError::Truncated)?;
    bytes.get(start..end).ok_or(ElfError::Truncated)
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], ElfError> {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().ok_or(ElfError::Truncated)
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, ElfError> {
    array_at(bytes, offset).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, ElfError> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, ElfError> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(owner: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [owner.len() as u32, content.len() as u32, kind] {
            note.extend(word.to_le_bytes());
        }
        for part in [owner, content] {
            note.extend(part);
            note.resize(note.len().next_multiple_of(4), 0);
        }
        note
    }

    fn elf(notes: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64_u64.to_le_bytes());
        file[54..56].copy_from_slice(&56_u16.to_le_bytes());
        file[56..58].copy_from_slice(&2_u16.to_le_bytes());
        file[64] = 1;
        file[120] = 4;
        file[128..136].copy_from_slice(&176_u64.to_le_bytes());
        file[152..160].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file.extend(notes);
        file
    }

    #[test]
    fn the_note_is_found_among_others() {
        let notes = [
            note(b"GNU\0", 18, b"abcd"),
            note(b"Linux\0", 257, b"x"),
            note(b"Xen\0", 18, &0x100_0770_u64.to_le_bytes()),
        ];
        assert_eq!(pvh_entry(&elf(&notes.concat())), Ok(0x100_0770));
    }

    #[test]
    fn absence_and_damage_are_told_apart() {
        assert_eq!(pvh_entry(&elf(&note(b"Xen\0", 5, b"abcd"))), Err(ElfError::NoNote));
        assert_eq!(pvh_entry(b"MZ"), Err(ElfError::NotElf64));
        let whole = elf(&note(b"Xen\0", 18, b"abcd"));
        for length in 6..whole.len() {
            assert_eq!(pvh_entry(&whole[..length]), Err(ElfError::Truncated), "{length}");
        }
    }

    #[test]
    fn a_loader_is_seen() {
        let mut file = elf(b"/lib/ld.so\0");
        assert_eq!(interpreter(&file), Ok(None));
        file[120] = 3;
        assert_eq!(interpreter(&file), Ok(Some("/lib/ld.so".to_string())));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(interpreter(&own).is_ok());
    }

    #[test]
    fn libraries_are_listed_and_damage_is_an_error() {
        // One loaded segment from address 0x1000, a dynamic section with a name, and the table of names.
        let mut file = elf(&[]);
        let words: [u64; 6] = [DT_NEEDED, 1, DT_STRTAB, 0x1000 + 224, DT_NULL, 0];
        file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        file.extend(b"\0libx.so.1\0");
        file[64..68].copy_from_slice(&PT_LOAD.to_le_bytes());
        let length = file.len() as u64;
        for (at, value) in [(72, 0), (80, 0x1000), (96, length), (128, 176), (152, 48)] {
            file[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        file[120..124].copy_from_slice(&PT_DYNAMIC.to_le_bytes());
        assert_eq!(needed(&file), Ok(vec!["libx.so.1".to_string()]));
        let mut bad = file.clone();
        bad[184..192].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(needed(&bad), Err(ElfError::Truncated));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&own).unwrap().iter().any(|name| name.starts_with("libc.so")));
        assert_eq!(needed(&elf(&[])), Ok(Vec::new()));
    }

    #[test]
    fn what_is_loaded_of_an_object_is_added_up() {
        let mut file = vec![0; 64 + 4 * 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[40..48].copy_from_slice(&64_u64.to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&4_u16.to_le_bytes());
        let sections = [(6_u64, 1_u32, 100_u64), (3, 1, 7), (3, SHT_NOBITS, 1000), (0, 1, 1000)];
        for (index, (flags, kind, size)) in sections.into_iter().enumerate() {
            let at = 64 + index * 64;
            file[at + 4..at + 8].copy_from_slice(&kind.to_le_bytes());
            file[at + 8..at + 16].copy_from_slice(&flags.to_le_bytes());
            file[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        }
        assert_eq!(loaded(&file), Ok(Loaded { text: 100, data: 7 }));
        assert_eq!(loaded(&file[..300]), Err(ElfError::Truncated));
        assert_eq!(loaded(b"BC"), Err(ElfError::NotElf64));
        file[160..168].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(loaded(&file).is_ok_and(|loaded| loaded.data == u64::MAX));
        file[136] = 6;
        assert_eq!(loaded(&file), Err(ElfError::Truncated), "a sum that no file can have");
    }

    #[test]
    fn absurd_sizes_do_not_panic() {
        let mut file = elf(&note(b"Xen\0", 18, b"abcd"));
        for at in [32, 128, 152] {
            let mut bad = file.clone();
            bad[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
            assert_eq!(pvh_entry(&bad), Err(ElfError::Truncated));
        }
        file[176..184].fill(0xff);
        assert_eq!(pvh_entry(&file), Err(ElfError::Truncated));
    }
}
