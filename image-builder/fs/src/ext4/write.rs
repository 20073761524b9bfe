//! Writes a [`Tree`] as ext4: see the module above.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use uuid::Uuid;

use crate::content::Content;
use crate::error::{WriteError, beyond_linux};
use crate::tree::{Inode, InodeId, Kind, Tree};

const FORMAT: &str = "ext4";

/// Bytes of a block; hashes are of blocks of this size, too.
pub(super) const BLOCK: u64 = 4096;
/// Bytes of an inode: the smallest that has room for times after 2038.
const INODE: u64 = 256;
/// Blocks that one block of a bitmap stands for.
const GROUP: u64 = 8 * BLOCK;
/// Inodes that are never an entry's, and lost+found, which is there for a while.
const RESERVED: u64 = 11;
/// Bytes of the longest name.
const NAME: usize = 255;
/// Bytes of the longest path: PATH_MAX without the NUL. debugfs reads lines of 8 KiB.
const PATH: usize = 4095;
/// Bytes of a block that attributes do not get: its header, and what ends the list.
const ATTRIBUTES: u64 = 32 + 4;
/// The first second beyond 34 signed bits: in 2446.
pub(super) const END: u64 = (1 << 34) - (1 << 31);

/// What a file system that is only read needs. No journal, and nothing to grow by. Checksums, for disks without hashes.
const FEATURES: &str =
    "none,extent,filetype,sparse_super,large_file,huge_file,extra_isize,dir_nlink,metadata_csum";

/// In place of the host's /etc/mke2fs.conf, which would have a say in what the options leave open. A type is known by what it
/// sets.
const CONFIG: &str = "[fs_types]\n\text4 = {\n\t\tinode_size = 256\n\t}\n";

/// The file that becomes the file system, the one with [`CONFIG`], and the script of debugfs.
const IMAGE: &str = "image";
const CONFIG_FILE: &str = "mke2fs.conf";
const SCRIPT: &str = "script";

/// Writes `tree` to a file, which is made or emptied. `uuid` names the file system, `time` (seconds since 1970) is when it was
/// made, as far as it says.
///
/// # Errors
/// When something in the tree does not fit, a program of e2fsprogs is missing or fails, or a file cannot be written.
pub fn write(tree: &Tree, uuid: [u8; 16], time: u32, image: &Path) -> Result<(), WriteError> {
    let entries = tree.walk();
    let Script { text, staged, has_attributes } = script(tree, &entries)?;
    let temporary = std::env::temp_dir();
    let work = tempfile::tempdir_in(&temporary).map_err(WriteError::io("make a directory in", &temporary))?;
    let work = work.path();
    for (name, content) in [(CONFIG_FILE, CONFIG.as_bytes()), (SCRIPT, &text)] {
        let path = work.join(name);
        fs::write(&path, content).map_err(WriteError::io("write", &path))?;
    }
    for (number, content) in staged.iter().enumerate() {
        let path = work.join(number.to_string());
        let mut file = File::create(&path).map_err(WriteError::io("create", &path))?;
        match content {
            Staged::Content(content) => content.copy(0, content.len(), &mut file),
            Staged::Attribute(value) => std::io::Write::write_all(&mut file, value),
        }
        .map_err(WriteError::io("write", &path))?;
    }
    let blocks = blocks(tree, &entries);
    let made = work.join(IMAGE);
    let file = File::create(&made).map_err(WriteError::io("create", &made))?;
    file.set_len(blocks * BLOCK).map_err(WriteError::io("extend", &made))?;
    let uuid = Uuid::from_bytes(uuid).to_string();
    // It is no option for a tree without: that would be another file system than it was.
    let features = if has_attributes { format!("{FEATURES},ext_attr") } else { FEATURES.to_owned() };
    let extended = format!("hash_seed={uuid},lazy_itable_init=0,root_owner=0:0,nodiscard");
    let (size, inode) = (BLOCK.to_string(), INODE.to_string());
    let (count, blocks) = (inodes(&entries).to_string(), blocks.to_string());
    let named = ["-q", "-t", "ext4", "-T", "ext4", "-O", &features, "-m", "0", "-U", &uuid, "-E", &extended];
    let sized = ["-b", &size, "-I", &inode, "-N", &count, IMAGE, &blocks];
    run("mke2fs", &[&named[..], &sized[..]].concat(), work, time)?;
    let said = run("debugfs", &["-w", "-f", SCRIPT, IMAGE], work, time)?;
    let complaints: Vec<&str> = said.lines().filter(|line| is_complaint(line)).collect();
    if !complaints.is_empty() {
        return Err(WriteError::Refused { name: "debugfs", said: complaints.join("\n") });
    }
    fs::copy(&made, image).map_err(WriteError::io("write", image)).map(drop)
}

/// What an empty file system needs that is written to and thrown away. No journal: after a crash nobody reads it.
const EMPTY_FEATURES: &str = "none,extent,filetype,sparse_super,large_file,huge_file,extra_isize,dir_nlink,metadata_csum,\
    dir_index,ext_attr,flex_bg";

/// Makes an empty file system that fills the file `image`, which is a hole so far, and stays one for the most part. Mount it
/// with `noinit_itable`, or the kernel writes to all of its tables of inodes.
///
/// # Errors
/// When mke2fs is missing or fails.
pub fn empty(image: &Path) -> Result<(), WriteError> {
    let temporary = std::env::temp_dir();
    let work = tempfile::tempdir_in(&temporary).map_err(WriteError::io("make a directory in", &temporary))?;
    let config = work.path().join(CONFIG_FILE);
    fs::write(&config, CONFIG).map_err(WriteError::io("write", &config))?;
    let image = image.to_str().ok_or_else(|| {
        WriteError::cannot_hold(
            FORMAT,
            image.as_os_str().as_encoded_bytes(),
            "its path is not UTF-8".to_owned(),
        )
    })?;
    let extended = "lazy_itable_init=1,root_owner=0:0,nodiscard";
    let (size, inode) = (BLOCK.to_string(), INODE.to_string());
    let named = ["-q", "-F", "-t", "ext4", "-T", "ext4", "-O", EMPTY_FEATURES, "-m", "0", "-E", extended];
    let sized = ["-b", &size, "-I", &inode, "-i", "16384", image];
    run("mke2fs", &[&named[..], &sized[..]].concat(), work.path(), 0).map(drop)
}

/// Which e2fsprogs this is: others may give other bytes.
///
/// # Errors
/// When mke2fs is missing or fails.
pub fn version() -> Result<String, WriteError> {
    let said = run("mke2fs", &["-V"], &std::env::temp_dir(), 0)?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Runs a program of e2fsprogs in `directory`, and gives what it said.
pub(super) fn run(
    name: &'static str,
    arguments: &[&str],
    directory: &Path,
    time: u32,
) -> Result<String, WriteError> {
    // Debian has them where only root's PATH leads.
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":/usr/sbin:/sbin");
    let output = Command::new(name)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("MKE2FS_CONFIG", CONFIG_FILE)
        // What the superblock says of its own past. 0 would be taken for "ask the clock".
        .env("E2FSPROGS_FAKE_TIME", time.max(1).to_string())
        .output()
        .map_err(|source| WriteError::Missing { name, package: "e2fsprogs", source })?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { Ok(said) } else { Err(WriteError::Refused { name, said }) }
}

/// Whether debugfs said this of a command that failed: its exit status does not tell. Everything else is its name and version,
/// the script's lines after its name, and the numbers of inodes.
pub(super) fn is_complaint(line: &str) -> bool {
    !(line.is_empty() || line.starts_with("debugfs") || line.starts_with("Allocated inode: "))
}

/// What fills an empty file system.
#[derive(Default)]
struct Script<'a> {
    text: Vec<u8>,
    /// What the script takes from files called 0, 1, …
    staged: Vec<Staged<'a>>,
    has_attributes: bool,
}

enum Staged<'a> {
    Content(&'a Content),
    Attribute(&'a [u8]),
}

fn script<'a>(tree: &'a Tree, entries: &'a [(Vec<u8>, InodeId)]) -> Result<Script<'a>, WriteError> {
    let mut script = Script::default();
    script.line("rmdir", &[b"/lost+found"], "");
    // The first name of an inode, and how many there are.
    let mut names: HashMap<InodeId, (&[u8], u32)> = HashMap::new();
    for (path, id) in entries {
        let inode = tree.inode(*id);
        if let Some(problem) = problem(path, inode) {
            return Err(WriteError::cannot_hold(FORMAT, path, problem));
        }
        let (parent, name) = split(path);
        // What makes something but a directory looks for the name in the working directory only.
        script.line("cd", &[parent], "");
        if let Some((first, count)) = names.get_mut(id) {
            *count += 1;
            // A link does not make room in a directory that is full; what goes again does.
            script.line("mknod", &[name], "p");
            script.line("rm", &[name], "");
            script.line("ln", &[first, name], "");
            continue;
        }
        names.insert(*id, (path, 1));
        match &inode.kind {
            Kind::Directory(_) => script.line("mkdir", &[name], ""),
            Kind::File(content) => {
                let number = script.stage(Staged::Content(content));
                script.line("write", &[number.as_bytes(), name], "");
            }
            Kind::Symlink(target) => script.line("symlink", &[name, target], ""),
            Kind::Char { major, minor } => script.line("mknod", &[name], &format!("c {major} {minor}")),
            Kind::Block { major, minor } => script.line("mknod", &[name], &format!("b {major} {minor}")),
            Kind::Fifo | Kind::Socket => script.line("mknod", &[name], "p"),
        }
    }
    // Only when all is there: an entry changes the directory that it comes into.
    let root = (b"/".to_vec(), InodeId::ROOT);
    for (path, id) in std::iter::once(&root).chain(entries) {
        if let Some((_, count)) = names.get(id).filter(|(first, count)| *count > 1 && *first == path) {
            script.line("sif", &[path], &format!("links_count {count}"));
        }
        if names.get(id).is_none_or(|(first, _)| *first == path) {
            script.inode(path, tree.inode(*id));
        }
    }
    // How much mke2fs wrote depends on what the host's file system can do.
    script.line("ssv", &[], "kbytes_written 0");
    Ok(script)
}

/// Why there is no room for an entry.
fn problem(path: &[u8], inode: &Inode) -> Option<String> {
    // Whether a line of a script can have it in quotes.
    let is_sayable = |text: &[u8]| !text.iter().any(|byte| b"\n\r\"\0".contains(byte));
    let target = if let Kind::Symlink(target) = &inode.kind { target } else { &Vec::new() };
    let attributes: u64 = inode.meta.xattrs.iter().map(|(name, value)| attribute_size(name, value)).sum();
    let is_known = |name: &&Vec<u8>| crate::erofs::is_attribute(name) && is_sayable(name);
    if path.len() > PATH || split(path).1.len() > NAME {
        Some(format!("names must have at most {NAME} bytes, paths {PATH}"))
    } else if !is_sayable(path) || !is_sayable(target) {
        Some("neither names nor targets of symlinks may have a line break or a double quote".to_owned())
    } else if inode.kind == Kind::Socket {
        Some("it is a socket".to_owned())
    } else if inode.meta.mtime >= END {
        Some("it is from after 2446".to_owned())
    } else if let Some(name) = inode.meta.xattrs.keys().find(|name| !is_known(name)) {
        let name = String::from_utf8_lossy(name);
        Some(format!("the extended attribute {name} is in no name space that both know"))
    } else if attributes > BLOCK - ATTRIBUTES {
        Some(format!("its extended attributes take more than {} bytes", BLOCK - ATTRIBUTES))
    } else {
        beyond_linux(inode)
    }
}

/// An entry in the list of attributes, its name (the prefix is a number, but for safety's sake is counted) and value.
fn attribute_size(name: &[u8], value: &[u8]) -> u64 {
    16 + (name.len() as u64).next_multiple_of(4) + (value.len() as u64).next_multiple_of(4)
}

/// The directory that something is in, and its name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        None | Some(0) => (b"/", path.strip_prefix(b"/").unwrap_or(path)),
        Some(slash) => (&path[..slash], &path[slash + 1..]),
    }
}

impl<'a> Script<'a> {
    fn line(&mut self, command: &str, quoted: &[&[u8]], rest: &str) {
        self.text.extend(command.as_bytes());
        for word in quoted {
            self.text.extend([b" \"", *word, b"\""].concat());
        }
        self.text.extend(format!(" {rest}\n").as_bytes());
    }

    fn stage(&mut self, content: Staged<'a>) -> String {
        self.staged.push(content);
        (self.staged.len() - 1).to_string()
    }

    /// All that an inode says of itself. The path is absolute, so that nothing in it is taken for an inode's number.
    fn inode(&mut self, path: &[u8], inode: &'a Inode) {
        let Inode { meta, .. } = inode;
        for (name, value) in &meta.xattrs {
            let number = self.stage(Staged::Attribute(value));
            self.line("ea_set", &[b"-f", number.as_bytes(), path, name], "");
            self.has_attributes = true;
        }
        let mut set = |field: &str, value: String| self.line("sif", &[path], &format!("{field} {value}"));
        set("mode", format!("0{:o}", inode.mode()));
        set("uid", meta.uid.to_string());
        set("gid", meta.gid.to_string());
        for field in ["atime", "ctime", "mtime", "crtime"] {
            set(field, format!("@{}", meta.mtime & u64::from(u32::MAX)));
            // The field is signed; what is beyond 2038 counts from the next epoch.
            set(&format!("{field}_extra"), ((meta.mtime + (1 << 31)) >> 32).to_string());
        }
    }
}

fn inodes(entries: &[(Vec<u8>, InodeId)]) -> u64 {
    entries.len() as u64 + RESERVED
}

/// Blocks that are enough for a tree, and few more.
fn blocks(tree: &Tree, entries: &[(Vec<u8>, InodeId)]) -> u64 {
    let mut names: BTreeMap<&[u8], u64> = BTreeMap::from([(&b"/"[..], 0)]);
    let mut content = 0;
    let mut seen = HashSet::new();
    for (path, id) in entries {
        // An entry is a head and the name, in steps of four bytes.
        *names.entry(split(path).0).or_default() += 8 + (path.len() as u64).next_multiple_of(4);
        if !seen.insert(*id) {
            continue;
        }
        let Inode { meta, kind } = tree.inode(*id);
        content += u64::from(!meta.xattrs.is_empty());
        match kind {
            Kind::Directory(_) => {
                names.entry(path).or_default();
            }
            // Beyond four extents a file needs a block for their list; but there are only as many where blocks of zeros are
            // left out.
            Kind::File(bytes) => content += bytes.len().div_ceil(BLOCK),
            // Short targets are in the inode.
            Kind::Symlink(target) => content += u64::from(target.len() >= 60),
            Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo | Kind::Socket => {}
        }
    }
    // A block of a directory ends with a checksum, and where the next entry, of 264 bytes at most, did not fit.
    let directories: u64 = names.values().map(|bytes| (24 + bytes).div_ceil(BLOCK - 12 - 264)).sum();
    let tables = (inodes(entries) * INODE).div_ceil(BLOCK);
    // lost+found has four blocks while it is there.
    let used = content + directories + tables + 4;
    let groups = used.div_ceil(GROUP - 16);
    // Every group has a superblock, the list of groups and two bitmaps, and its part of the inodes is rounded up. Files
    // that go over the end of a group have one extent more.
    let blocks = used + groups * (6 + groups.div_ceil(64)) + (groups - 1) * 16;
    // mke2fs leaves out a last group, or refuses the only one, that has not 50 blocks besides its own tables.
    let (last, least) = (blocks % GROUP, 64 + tables.div_ceil(groups));
    if (1..least).contains(&last) { blocks - last + least } else { blocks }
}
