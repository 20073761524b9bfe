//! Programs for EFI (PE32+): adds sections to one, and says what firmware measures of it.
//!
//! Layouts are those of Microsoft's PE/COFF specification, as the `object` crate declares them. Promises that the same parts
//! give the same bytes. Must never touch what the program has already but its headers.

use object::LittleEndian as LE;
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_SECURITY, ImageDosHeader, ImageNtHeaders64, ImageSectionHeader, SectionFlags,
};
use object::pod;
use sha2::{Digest as _, Sha256};

use store::digest::Digest;

/// What a section holds: data that is in the file and can be read.
const READABLE_DATA: SectionFlags = SectionFlags(0x4000_0040);
const MAGIC_64: u16 = 0x20b;

/// Why a program cannot be extended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// It is not one.
    #[error("it is not a PE32+ program")]
    Format,
    /// There is no room for another section's header.
    #[error("its headers have no room for {0} more sections")]
    Headers(usize),
    /// A name is too long.
    #[error("the section name {0:?} is longer than 8 bytes")]
    Name(String),
    /// It would be too large.
    #[error("it would be larger than 4 GiB")]
    TooLarge,
}

/// Where the parts of a program's headers are.
struct Headers {
    /// Of the signature and what follows.
    nt: usize,
    /// Of the table of sections.
    sections: usize,
    count: usize,
}

fn headers(image: &[u8]) -> Result<Headers, PeError> {
    let (dos, _) = pod::from_bytes::<ImageDosHeader>(image).map_err(|()| PeError::Format)?;
    let nt = dos.e_lfanew.get(LE) as usize;
    let header = nt_header(image, nt)?;
    let wrong = header.signature.get(LE) != 0x4550 || header.optional_header.magic.get(LE) != MAGIC_64;
    if dos.e_magic.get(LE) != 0x5a4d || wrong {
        return Err(PeError::Format);
    }
    let optional = usize::from(header.file_header.size_of_optional_header.get(LE));
    let sections = nt + 24 + optional;
    Ok(Headers { nt, sections, count: usize::from(header.file_header.number_of_sections.get(LE)) })
}

fn nt_header(image: &[u8], at: usize) -> Result<&ImageNtHeaders64, PeError> {
    let rest = image.get(at..).ok_or(PeError::Format)?;
    Ok(pod::from_bytes::<ImageNtHeaders64>(rest).map_err(|()| PeError::Format)?.0)
}

fn section_table(image: &[u8], headers: &Headers) -> Result<Vec<ImageSectionHeader>, PeError> {
    let rest = image.get(headers.sections..).ok_or(PeError::Format)?;
    let table =
        pod::slice_from_bytes::<ImageSectionHeader>(rest, headers.count).map_err(|()| PeError::Format)?;
    Ok(table.0.to_vec())
}

/// The program `stub` with these sections behind its own, each on a page of its own. Symbols are left out.
///
/// # Errors
/// When `stub` is no program, or has no room.
pub fn with_sections(stub: &[u8], added: &[(&str, &[u8])]) -> Result<Vec<u8>, PeError> {
    const PAGE: u64 = 4096;
    let at = headers(stub)?;
    let header = *nt_header(stub, at.nt)?;
    let mut table = section_table(stub, &at)?;
    let in_file = u64::from(header.optional_header.file_alignment.get(LE)).max(1);
    let in_memory = u64::from(header.optional_header.section_alignment.get(LE)).max(PAGE);
    let room = header.optional_header.size_of_headers.get(LE) as usize;
    let wanted = at.sections + (at.count + added.len()) * size_of::<ImageSectionHeader>();
    if wanted > room {
        return Err(PeError::Headers(added.len()));
    }
    let file_end =
        table.iter().map(|s| s.pointer_to_raw_data.get(LE) + s.size_of_raw_data.get(LE)).max().unwrap_or(0);
    let mut image = stub.get(..file_end as usize).ok_or(PeError::Format)?.to_vec();
    let memory_end =
        table.iter().map(|s| u64::from(s.virtual_address.get(LE)) + u64::from(s.virtual_size.get(LE))).max();
    let mut address = memory_end.unwrap_or(0).next_multiple_of(in_memory);
    let narrow = |value: u64| u32::try_from(value).map_err(|_| PeError::TooLarge);
    for (name, content) in added {
        image.resize((image.len() as u64).next_multiple_of(in_file) as usize, 0);
        let raw = (content.len() as u64).next_multiple_of(in_file);
        let mut padded = [0; 8];
        let bytes = padded.get_mut(..name.len()).ok_or_else(|| PeError::Name((*name).to_owned()))?;
        bytes.copy_from_slice(name.as_bytes());
        table.push(ImageSectionHeader {
            name: padded,
            virtual_size: object::U32::new(LE, narrow(content.len() as u64)?),
            virtual_address: object::U32::new(LE, narrow(address)?),
            size_of_raw_data: object::U32::new(LE, narrow(raw)?),
            pointer_to_raw_data: object::U32::new(LE, narrow(image.len() as u64)?),
            pointer_to_relocations: object::U32::default(),
            pointer_to_linenumbers: object::U32::default(),
            number_of_relocations: object::U16::default(),
            number_of_linenumbers: object::U16::default(),
            characteristics: object::U32::new(LE, READABLE_DATA),
        });
        image.extend_from_slice(content);
        image.resize((image.len() as u64).next_multiple_of(in_file) as usize, 0);
        address = (address + content.len() as u64).next_multiple_of(in_memory);
    }
    // Firmware hashes whole 8 bytes.
    image.resize(image.len().next_multiple_of(8), 0);
    let mut changed = header;
    changed.file_header.number_of_sections =
        object::U16::new(LE, u16::try_from(table.len()).map_err(|_| PeError::Headers(added.len()))?);
    changed.file_header.pointer_to_symbol_table = object::U32::default();
    changed.file_header.number_of_symbols = object::U32::default();
    changed.optional_header.size_of_image = object::U32::new(LE, narrow(address)?);
    changed.optional_header.check_sum = object::U32::default();
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(at.nt, pod::bytes_of(&changed));
    for (index, section) in table.iter().enumerate() {
        put(at.sections + index * size_of::<ImageSectionHeader>(), pod::bytes_of(section));
    }
    Ok(image)
}

/// The digest by which firmware knows a program without a signature (Authenticode): all but its checksum and the place of
/// the signature. TPM PCR 4 is extended by it, and Secure Boot allows by it.
///
/// # Errors
/// When it is no program.
pub fn authenticode(image: &[u8]) -> Result<Digest, PeError> {
    let at = headers(image)?;
    // Offsets within the optional header of a PE32+ program.
    let (checksum, directories) = (at.nt + 24 + 64, at.nt + 24 + 112);
    let security = directories + 8 * IMAGE_DIRECTORY_ENTRY_SECURITY;
    let piece = |range: std::ops::Range<usize>| image.get(range).ok_or(PeError::Format);
    let hasher = Sha256::new()
        .chain_update(piece(0..checksum)?)
        .chain_update(piece(checksum + 4..security)?)
        .chain_update(piece(security + 8..image.len())?);
    Ok(Digest::from(<[u8; 32]>::from(hasher.finalize())))
}

/// The sections of a program, by name, with their place in the file.
///
/// # Errors
/// When it is no program.
pub fn sections(image: &[u8]) -> Result<Vec<(String, std::ops::Range<usize>)>, PeError> {
    let table = section_table(image, &headers(image)?)?;
    let section = |section: &ImageSectionHeader| {
        let name = section.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let start = section.pointer_to_raw_data.get(LE) as usize;
        let len = section.virtual_size.get(LE).min(section.size_of_raw_data.get(LE)) as usize;
        (String::from_utf8_lossy(name).into_owned(), start..start.saturating_add(len).min(image.len()))
    };
    Ok(table.iter().map(section).collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The least that is a program: headers with room, and one section of code.
    pub(crate) fn tiny() -> Vec<u8> {
        let mut image = vec![0; 0x600];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"MZ");
        put(0x3c, &0x80_u32.to_le_bytes());
        put(0x80, b"PE\0\0");
        put(0x84, &0x8664_u16.to_le_bytes());
        put(0x86, &1_u16.to_le_bytes());
        put(0x94, &240_u16.to_le_bytes());
        let optional = 0x98;
        put(optional, &MAGIC_64.to_le_bytes());
        put(optional + 32, &0x1000_u32.to_le_bytes());
        put(optional + 36, &0x200_u32.to_le_bytes());
        put(optional + 60, &0x400_u32.to_le_bytes());
        put(optional + 108, &16_u32.to_le_bytes());
        let section = optional + 240;
        put(section, b".text");
        put(section + 8, &0x123_u32.to_le_bytes());
        put(section + 12, &0x1000_u32.to_le_bytes());
        put(section + 16, &0x200_u32.to_le_bytes());
        put(section + 20, &0x400_u32.to_le_bytes());
        image
    }

    #[test]
    fn sections_are_added_behind_what_is_there() {
        let (one, two) = (vec![1; 5000], b"two".to_vec());
        let image = with_sections(&tiny(), &[(".one", &one), (".two", &two)]).unwrap();
        assert_eq!(image, with_sections(&tiny(), &[(".one", &one), (".two", &two)]).unwrap());
        let found = sections(&image).unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, [".text", ".one", ".two"]);
        assert_eq!((&image[found[1].1.clone()], &image[found[2].1.clone()]), (&one[..], &two[..]));
        assert_eq!(image[0x400..0x600], tiny()[0x400..]);
        assert_eq!(image.len() % 8, 0);
    }

    #[test]
    fn the_systems_tools_read_it() {
        let image = with_sections(&tiny(), &[(".osrel", b"ID=x\n"), (".linux", &[7; 9000])]).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), image).unwrap();
        let Ok(output) = std::process::Command::new("objdump").arg("-h").arg(file.path()).output() else {
            return eprintln!("skipped: objdump (binutils) does not run");
        };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(".osrel        00000005  0000000000002000"), "{text}");
        assert!(text.contains(".linux        00002328  0000000000003000"), "{text}");
    }

    #[test]
    fn the_digest_leaves_out_the_checksum_and_the_place_of_the_signature() {
        let image = with_sections(&tiny(), &[(".a", b"a")]).unwrap();
        let digest = authenticode(&image).unwrap();
        for (at, same) in
            [(0x98 + 64, true), (0x98 + 112 + 32, true), (0x98 + 60, false), (image.len() - 1, false)]
        {
            let mut other = image.clone();
            other[at] ^= 1;
            assert_eq!(authenticode(&other).unwrap() == digest, same, "{at}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(with_sections(b"MZ", &[]), Err(PeError::Format));
        assert_eq!(with_sections(&[0; 4096], &[]), Err(PeError::Format));
        assert_eq!(
            with_sections(&tiny(), &[(".much-too-long", b"")]),
            Err(PeError::Name(".much-too-long".into()))
        );
        let many = [(".x", &b""[..]); 40];
        assert_eq!(with_sections(&tiny(), &many), Err(PeError::Headers(40)));
    }
}
