//! The guest's own root as an ext4 file system, by the programs of e2fsprogs.
//!
//! ```text
//! tree ─┬─ size ─────────── mke2fs: an empty file system ─┐
//!       ├─ contents, staged under numbers ────────────────┼─ file
//!       └─ script ───────── debugfs: entries, then what every inode says of itself
//! ```
//! Promises that owners, modes, devices and times are the tree's, whoever builds, and that the same tree gives the same
//! bytes with the same e2fsprogs, whatever the host's clock, user, umask and mke2fs.conf. Must never need root, a loop
//! device or a mount.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::program::{Program, ProgramError};
use crate::tree::{Kind, Tree, TreePath};

/// Bytes of a block; hashes are of blocks of this size, too.
const BLOCK: u64 = 4096;
/// Bytes of an inode: the smallest that has room for times after 2038.
const INODE: u64 = 256;
/// Blocks that one block of a bitmap stands for.
const GROUP: u64 = 8 * BLOCK;
/// Inodes that are never an entry's, and lost+found, which is there for a while.
const RESERVED: u64 = 11;
/// Bytes of the longest name.
const NAME: usize = 255;

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

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// A name cannot be said in a line of a script.
    #[error(
        "{path:?} cannot be put on ext4: names must have at most {NAME} bytes, and neither they nor targets of symlinks a \
         line break or a double quote; rename it, or take --root-fs erofs"
    )]
    Name {
        /// The entry.
        path: String,
    },
    /// mke2fs or debugfs is missing or failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// debugfs went on after a command of the script had failed.
    #[error("debugfs could not fill the ext4 file system; it said:\n{0}")]
    Refused(String),
    /// A temporary file cannot be used.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl Ext4Error {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }
}

/// Makes an ext4 file system of a recipe's tree, every entry with the time `time` (seconds since 1970).
///
/// # Errors
/// When a name cannot be carried, a program of e2fsprogs is missing or fails, or a temporary file cannot be written.
pub async fn root_file_system(tree: &Tree, time: u32, uuid: [u8; 16]) -> Result<Vec<u8>, Ext4Error> {
    let (script, contents) = script(tree, time)?;
    let temporary = std::env::temp_dir();
    let work = tempfile::tempdir_in(&temporary).map_err(Ext4Error::io("make a directory in", &temporary))?;
    let write = |name: &str, content: &[u8]| {
        let path = work.path().join(name);
        fs::write(&path, content).map_err(Ext4Error::io("write", &path))
    };
    write(CONFIG_FILE, CONFIG.as_bytes())?;
    write(SCRIPT, script.as_bytes())?;
    for (number, content) in contents.iter().enumerate() {
        write(&number.to_string(), content)?;
    }
    let image = work.path().join(IMAGE);
    let blocks = blocks(tree);
    let file = File::create(&image).map_err(Ext4Error::io("create", &image))?;
    file.set_len(blocks * BLOCK).map_err(Ext4Error::io("extend", &image))?;
    let uuid = Uuid::from_bytes(uuid).to_string();
    let inodes = inodes(tree);
    program("mke2fs", work.path(), time)
        .env("MKE2FS_CONFIG", CONFIG_FILE)
        .args(["-q", "-t", "ext4", "-T", "ext4", "-O", FEATURES, "-m", "0", "-U", &uuid, "-E"])
        .arg(format!("hash_seed={uuid},lazy_itable_init=0,root_owner=0:0,nodiscard"))
        .args(["-b", &BLOCK.to_string(), "-I", &INODE.to_string(), "-N", &inodes.to_string()])
        .args([IMAGE, &blocks.to_string()])
        .lines()
        .await?;
    let said = program("debugfs", work.path(), time).args(["-w", "-f", SCRIPT, IMAGE]).lines().await?;
    let complaints: Vec<String> = said.into_iter().filter(|line| is_complaint(line)).collect();
    if !complaints.is_empty() {
        return Err(Ext4Error::Refused(complaints.join("\n")));
    }
    fs::read(&image).map_err(Ext4Error::io("read", &image))
}

/// Which e2fsprogs this is: others may give other bytes.
///
/// # Errors
/// When mke2fs is missing or fails.
pub async fn version() -> Result<String, Ext4Error> {
    let said = program("mke2fs", &std::env::temp_dir(), 0).args(["-V"]).lines().await?;
    Ok(said.into_iter().next().unwrap_or_default())
}

/// A program of e2fsprogs, to be run in `directory`.
fn program(name: &str, directory: &Path, time: u32) -> Program {
    // Debian has them where only root's PATH leads.
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    path.push(":/usr/sbin:/sbin");
    Program::new(name, "install the Debian package e2fsprogs, or take --root-fs erofs")
        .env("PATH", path)
        // What the superblock says of its own past. 0 would be taken for "ask the clock".
        .env("E2FSPROGS_FAKE_TIME", time.max(1).to_string())
        .current_dir(directory)
}

/// Whether debugfs said this of a command that failed: its exit status does not tell. Everything else is its name and version,
/// the script's lines after its name, and the numbers of inodes.
fn is_complaint(line: &str) -> bool {
    !(line.is_empty() || line.starts_with("debugfs") || line.starts_with("Allocated inode: "))
}

/// The script that fills an empty file system, and the contents of files that it takes from files called 0, 1, …
fn script(tree: &Tree, time: u32) -> Result<(String, Vec<&[u8]>), Ext4Error> {
    let (mut script, mut contents) = (Script::default(), Vec::new());
    script.line("rmdir", &["/lost+found"], "");
    for (path, node) in tree.iter() {
        let wrong = || Ext4Error::Name { path: path.to_string() };
        let target = if let Kind::Symlink(target) = &node.kind { target } else { "" };
        if !(is_sayable(path.as_str()) && is_sayable(target)) {
            return Err(wrong());
        }
        let name = path.as_str().rsplit('/').next().unwrap_or_default();
        if name.len() > NAME {
            return Err(wrong());
        }
        // What makes something but a directory looks for the name in the working directory only.
        let parent = path.parent();
        script.line("cd", &[parent.as_ref().map_or("/", TreePath::as_str)], "");
        match &node.kind {
            Kind::Directory => script.line("mkdir", &[name], ""),
            Kind::File(content) => {
                script.line("write", &[&contents.len().to_string(), name], "");
                contents.push(content.as_slice());
            }
            Kind::Symlink(target) => script.line("symlink", &[name, target], ""),
            Kind::Character { major, minor } => script.line("mknod", &[name], &format!("c {major} {minor}")),
            Kind::Block { major, minor } => script.line("mknod", &[name], &format!("b {major} {minor}")),
            Kind::Fifo => script.line("mknod", &[name], "p"),
        }
    }
    // Only when all is there: an entry changes the directory that it comes into.
    script.inode("/", 0o040_755, (0, 0), time);
    for (path, node) in tree.iter() {
        script.inode(path.as_str(), node.kind.bits() | node.mode & 0o7777, (node.uid, node.gid), time);
    }
    // How much mke2fs wrote depends on what the host's file system can do.
    script.0.push_str("ssv kbytes_written 0\n");
    Ok((script.0, contents))
}

/// Whether a line of a script can have it in quotes.
fn is_sayable(text: &str) -> bool {
    !text.contains(['\n', '\r', '"', '\0'])
}

#[derive(Default)]
struct Script(String);

impl Script {
    fn line(&mut self, command: &str, quoted: &[&str], rest: &str) {
        let quoted: Vec<String> = quoted.iter().map(|word| format!("\"{word}\"")).collect();
        self.0.push_str(&format!("{command} {} {rest}\n", quoted.join(" ")));
    }

    /// All that an inode says of itself. The path is absolute, so that nothing in it is taken for an inode's number.
    fn inode(&mut self, path: &str, mode: u32, (uid, gid): (u32, u32), time: u32) {
        let mut set = |field: &str, value: &str| self.line("sif", &[path], &format!("{field} {value}"));
        set("mode", &format!("0{mode:o}"));
        set("uid", &uid.to_string());
        set("gid", &gid.to_string());
        for field in ["atime", "ctime", "mtime", "crtime"] {
            set(field, &format!("@{time}"));
            // The field is signed; what is beyond 2038 counts from the next epoch.
            set(&format!("{field}_extra"), &(time >> 31).to_string());
        }
    }
}

fn inodes(tree: &Tree) -> u64 {
    tree.len() as u64 + RESERVED
}

/// Blocks that are enough for a tree, and few more.
fn blocks(tree: &Tree) -> u64 {
    let mut names: BTreeMap<Option<TreePath>, u64> = BTreeMap::from([(None, 0)]);
    let mut content = 0;
    for (path, node) in tree.iter() {
        // An entry is a head and the name, in steps of four bytes.
        *names.entry(path.parent()).or_default() += 8 + (path.as_str().len() as u64).next_multiple_of(4);
        match &node.kind {
            Kind::Directory => {
                names.entry(Some(path.clone())).or_default();
            }
            // Beyond four extents a file needs a block for their list; but there are only as many where blocks of zeros are
            // left out.
            Kind::File(bytes) => content += (bytes.len() as u64).div_ceil(BLOCK),
            // Short targets are in the inode.
            Kind::Symlink(target) => content += u64::from(target.len() >= 60),
            Kind::Character { .. } | Kind::Block { .. } | Kind::Fifo => {}
        }
    }
    // A block of a directory ends with a checksum, and where the next entry, of 264 bytes at most, did not fit.
    let directories: u64 = names.values().map(|bytes| (24 + bytes).div_ceil(BLOCK - 12 - 264)).sum();
    let tables = (inodes(tree) * INODE).div_ceil(BLOCK);
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

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use super::*;
    use crate::format::cpio::tests::sample;
    use crate::tree::Node;

    /// One of everything, and what a script, a directory or a host could get wrong.
    fn tree() -> Tree {
        let mut tree = sample();
        let mut add = |path: &str, node| tree.insert(TreePath::parse(path).unwrap(), node).unwrap();
        let file = |content: &[u8]| Node::new(0o644, Kind::File(content.to_vec()));
        add("/bin/su", Node { uid: 70_000, gid: 7, mode: 0o4750, ..file(b"su") });
        add("/a b/#c d", file(b"spaces"));
        add("/a b/<12>", file(b"no inode"));
        add("/a b/-R", file(b"no option"));
        add("/a b/it's $HOME\\n", file(b"no shell"));
        add("/dev/much", Node::new(0o600, Kind::Block { major: 259, minor: 300 }));
        add("/long", Node::new(0o777, Kind::Symlink("t/".repeat(1000))));
        // Blocks of zeros between others: more extents than an inode has room for.
        let holes: Vec<u8> = (0..40 * BLOCK as usize).map(|n| u8::from(n / 4096 % 2 == 0)).collect();
        add("/holes", file(&holes));
        for number in 0..600 {
            add(&format!("/many/{}-{number}", "n".repeat(90)), file(b"m"));
        }
        tree
    }

    #[tokio::test]
    async fn the_version_is_told() {
        if is_installed() {
            let version = version().await.unwrap();
            assert!(version.starts_with("mke2fs 1."), "{version}");
        }
    }

    async fn packed(tree: &Tree, time: u32) -> tempfile::NamedTempFile {
        let bytes = root_file_system(tree, time, [7; 16]).await.unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        file
    }

    fn run(program: &str, arguments: &[&str], file: &Path) -> (bool, String) {
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let output = Command::new(program).env("PATH", path).args(arguments).arg(file).output();
        let output = output.expect("mke2fs ran, so all of e2fsprogs is there");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Says so when the tests below can have nothing to look at.
    pub(crate) fn is_installed() -> bool {
        let found = ["/usr/sbin/mke2fs", "/sbin/mke2fs"].iter().any(|path| Path::new(path).exists());
        if !found {
            eprintln!("skipped: mke2fs (package e2fsprogs) is not installed");
        }
        found
    }

    #[tokio::test]
    async fn e2fsck_finds_nothing_wrong_and_debugfs_sees_every_entry() {
        if !is_installed() {
            return;
        }
        // Beyond 2038, where times need their second half: 2100-01-01.
        let time: u32 = 4_102_444_800;
        let (tree, image) = (tree(), packed(&tree(), time).await);
        let (clean, text) = run("e2fsck", &["-f", "-n"], image.path());
        assert!(clean, "{text}");
        let (_, many) = run("debugfs", &["-R", "ls -p /many"], image.path());
        assert_eq!(many.lines().filter(|line| line.contains("nnn-")).count(), 600);
        for (path, node) in tree.iter().filter(|(path, _)| !path.as_str().starts_with("/many/")) {
            let (_, text) = run("debugfs", &["-R", &format!("stat \"{path}\"")], image.path());
            let has = |part: &str| assert!(text.contains(part), "{path}: no {part:?} in {text}");
            has(&format!("Mode:  0{:03o} ", node.mode));
            has(&format!("User: {:5}   Group: {:5}", node.uid, node.gid));
            for field in [" ctime", " atime", " mtime", "crtime"] {
                has(&format!("{field}: 0x{time:08x}:00000001"));
            }
            match &node.kind {
                Kind::File(content) => {
                    has("Type: regular");
                    let (_, found) = run("debugfs", &["-R", &format!("cat \"{path}\"")], image.path());
                    assert!(found.as_bytes() == content, "{path}");
                }
                Kind::Symlink(target) if target.len() < 60 => has(&format!("Fast link dest: \"{target}\"")),
                Kind::Symlink(target) => has(&format!("Size: {}", target.len())),
                Kind::Character { .. } => has("Device major/minor number: 05:01"),
                Kind::Block { major: 259, .. } => has("Device major/minor number: 259:300"),
                Kind::Block { .. } => has("Device major/minor number: 254:03"),
                Kind::Fifo => has("Type: FIFO"),
                Kind::Directory => has("Type: directory"),
            }
        }
        let (_, listed) = run("debugfs", &["-R", "ls -p /"], image.path());
        assert!(!listed.contains("lost+found"), "{listed}");
    }

    #[tokio::test]
    async fn the_same_tree_gives_the_same_bytes_at_another_time() {
        if !is_installed() {
            return;
        }
        let first = packed(&tree(), 0).await;
        // ext4's own times count seconds.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let second = packed(&tree(), 0).await;
        assert!(fs::read(first.path()).unwrap() == fs::read(second.path()).unwrap());
        let (_, text) = run("dumpe2fs", &["-h"], first.path());
        for line in text.lines().filter(|line| {
            ["Filesystem created", "Last write time", "Last checked"]
                .iter()
                .any(|name| line.starts_with(name))
        }) {
            assert!(line.ends_with("1970"), "{line}");
        }
    }

    #[tokio::test]
    async fn little_of_it_is_free() {
        if !is_installed() {
            return;
        }
        let mut large = Tree::default();
        // More than one group.
        for (name, megabytes) in [("/a", 100), ("/b", 40)] {
            let content = vec![1; megabytes << 20];
            large.insert(TreePath::parse(name).unwrap(), Node::new(0o644, Kind::File(content))).unwrap();
        }
        for tree in [Tree::default(), sample(), tree(), large] {
            let image = packed(&tree, 0).await;
            let bytes = fs::read(image.path()).unwrap();
            let field =
                |at: usize| u64::from(u32::from_le_bytes(bytes[1024 + at..][..4].try_into().unwrap()));
            let (blocks, free) = (field(4), field(12));
            println!("{} entries: {blocks} blocks, {free} of them free", tree.len());
            assert_eq!(blocks * BLOCK, bytes.len() as u64);
            assert!(free <= 64 + blocks / 50, "{free} of {blocks} blocks are free");
            assert!(run("e2fsck", &["-f", "-n"], image.path()).0);
        }
    }

    #[tokio::test]
    async fn names_that_a_script_cannot_carry_are_refused_by_path() {
        let refused = [
            ("/a\"b", Kind::Fifo),
            ("/a\nrm b", Kind::Fifo),
            ("/d\r/x", Kind::Directory),
            ("/link", Kind::Symlink("a\nb".into())),
        ];
        for (path, kind) in refused {
            let mut tree = Tree::default();
            tree.insert(TreePath::parse(path).unwrap(), Node::new(0, kind)).unwrap();
            let error = root_file_system(&tree, 0, [0; 16]).await.unwrap_err().to_string();
            assert!(
                error.contains("--root-fs erofs") && error.starts_with(&format!("\"/{}", &path[1..2])),
                "{error}"
            );
        }
        let mut tree = Tree::default();
        tree.insert(TreePath::parse(&format!("/{}", "x".repeat(256))).unwrap(), Node::new(0, Kind::Fifo))
            .unwrap();
        assert!(matches!(root_file_system(&tree, 0, [0; 16]).await, Err(Ext4Error::Name { .. })));
    }

    #[tokio::test]
    async fn a_missing_program_is_named_with_its_package() {
        let work = tempfile::tempdir().unwrap();
        let error = program("no-such-program", work.path(), 0).lines().await.unwrap_err().to_string();
        assert!(error.contains("no-such-program") && error.contains("package e2fsprogs"), "{error}");
    }

    #[test]
    fn a_command_that_failed_is_told_from_the_scripts_echo() {
        for line in
            ["debugfs 1.47.0 (5-Feb-2023)", "debugfs: write \"0\" \"write: x\"", "Allocated inode: 12", ""]
        {
            assert!(!is_complaint(line), "{line}");
        }
        for line in
            ["write: Could not allocate block in ext2 filesystem ", "/a: File not found by ext2_lookup "]
        {
            assert!(is_complaint(line), "{line}");
        }
    }
}
