//! Lists what is in an ext4: see the module above.

use ext4_view::{Ext4, Ext4Error, Metadata, Path};

use crate::entry::{BLOCK, CHARACTER, DEPTH, DIRECTORY, Entry, FIFO, REGULAR, ReadError, SOCKET, SYMLINK};

const SUPERBLOCK: u64 = 1024;
/// Where a superblock has its mark.
const MARK: std::ops::Range<usize> = 1080..1082;
/// More entries than this are nothing that an image of ours has: damage that leads in circles.
const MOST: usize = 1 << 20;

/// Whether a file system may begin here.
pub fn is(bytes: &[u8]) -> bool {
    bytes.get(MARK).is_some_and(|mark| mark == [0x53, 0xef])
}

/// All entries below the root, sorted by path.
///
/// # Errors
/// When it is damaged, or has more entries or deeper directories than a file system of ours.
pub fn read(bytes: &[u8]) -> Result<Vec<Entry>, ReadError> {
    let file_system = Ext4::load(Box::new(bytes.to_vec()))?;
    let mut found = Vec::new();
    list(&file_system, "", 0, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl From<Ext4Error> for ReadError {
    fn from(_: Ext4Error) -> Self {
        Self { what: "the ext4 file system", offset: SUPERBLOCK }
    }
}

fn list(file_system: &Ext4, path: &str, depth: usize, found: &mut Vec<Entry>) -> Result<(), ReadError> {
    let directory = if path.is_empty() { "/" } else { path };
    for entry in file_system.read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.as_ref()) {
            continue;
        }
        if depth > DEPTH || found.len() > MOST {
            return Err(ReadError { what: "the depth or the number of its directories", offset: SUPERBLOCK });
        }
        let meta = entry.metadata()?;
        let kind = kind(&meta);
        // A name that is not UTF-8 is shown as near as can be; what is below it cannot be asked for.
        let text = name.as_str().map(str::to_owned);
        let child = format!("{path}/{}", text.as_deref().unwrap_or("\u{fffd}"));
        let target = match kind {
            SYMLINK => Some(file_system.read_link(Path::new(&entry.path()))?.display().to_string()),
            _ => None,
        };
        found.push(Entry {
            path: child.clone(),
            mode: kind | u32::from(meta.mode()),
            uid: meta.uid(),
            gid: meta.gid(),
            size: if kind == REGULAR { meta.len() } else { 0 },
            target,
        });
        if kind == DIRECTORY && text.is_ok() {
            list(file_system, &child, depth + 1, found)?;
        }
    }
    Ok(())
}

fn kind(meta: &Metadata) -> u32 {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => DIRECTORY,
        () if kind.is_symlink() => SYMLINK,
        () if kind.is_char_dev() => CHARACTER,
        () if kind.is_block_dev() => BLOCK,
        () if kind.is_fifo() => FIFO,
        () if kind.is_socket() => SOCKET,
        () => REGULAR,
    }
}
