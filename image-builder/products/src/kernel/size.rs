//! What the parts of a kernel weigh: object files, by subsystem and by the fragment that asks for them.
//!
//! The sizes are measured where the tree is, at the end of a build, and kept beside the kernel; they are no part of
//! what makes it another kernel. Counts whole objects only: what an option adds inside of a file that is built anyway
//! is counted for the file. Uncompressed, before the linker drops anything. Must never change what is built.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::elf;

use super::config::Config;
use super::error::KernelError;
use super::fragment::{Requests, Value};
use super::kbuild::Tree;

/// The file in a kernel's directory.
pub(super) const FILE: &str = store::cache::MEASURED;

/// What fragment rows are called that are none: objects that no option brings in, and those whose options are all
/// selected by others or on by default.
const ALWAYS: &str = "(always built)";
const UNASKED: &str = "(options that no fragment asks for)";

/// The object files of a built kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// In order of path.
    pub objects: Vec<Object>,
}

/// One object file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Object {
    /// Below the tree's root.
    pub path: String,
    /// Bytes of code and constants.
    pub text: u64,
    /// Bytes of variables with a value.
    pub data: u64,
    /// The options that bring it in, the nearest first; none if it is always built.
    pub options: Vec<String>,
}

/// What part of a kernel weighs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The part.
    pub name: String,
    /// How many objects it has.
    pub objects: usize,
    /// Their bytes of code and constants.
    pub text: u64,
    /// Their bytes of variables with a value.
    pub data: u64,
}

impl Row {
    /// All its bytes.
    pub fn bytes(&self) -> u64 {
        self.text + self.data
    }

    fn add(&mut self, object: &Object) {
        self.objects += 1;
        self.text += object.text;
        self.data += object.data;
    }
}

/// What a kernel weighs, part by part; the largest part first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The profile's name.
    pub profile: String,
    /// `uname -r`.
    pub release: String,
    /// The kernel as a whole.
    pub total: Row,
    /// By directory.
    pub subsystems: Vec<Row>,
    /// By the fragment that asks for the nearest option.
    pub fragments: Vec<Row>,
}

impl Sizes {
    /// Measures what was linked in the tree at `root`, built for the architecture of the directory `arch`.
    pub(super) fn measure(root: &Path, arch: &str, config: &Config) -> Result<Self, KernelError> {
        let mut paths = members(root, "vmlinux.a")?;
        for library in ["lib/lib.a".to_string(), format!("arch/{arch}/lib/lib.a")] {
            if root.join(&library).is_file() {
                paths.extend(members(root, &library)?);
            }
        }
        paths.sort();
        paths.dedup();
        let mut tree = Tree::new(root, arch, config);
        let mut objects = Vec::with_capacity(paths.len());
        for path in paths {
            let file = root.join(&path);
            let bytes = fs::read(&file).map_err(KernelError::io("read", &file))?;
            let elf::Loaded { text, data } =
                elf::loaded(&bytes).map_err(|source| KernelError::Object { path: file.clone(), source })?;
            let options = tree.options(&path).map_err(KernelError::io("read the Makefiles above", &file))?;
            objects.push(Object { path, text, data, options });
        }
        Ok(Self { objects })
    }

    /// Writes them into a kernel's directory.
    pub(super) fn write(&self, dir: &Path) -> Result<(), KernelError> {
        let path = dir.join(FILE);
        let text = serde_json::to_vec(self).map_err(|error| KernelError::io("write", &path)(error.into()))?;
        fs::write(&path, text).map_err(KernelError::io("write", &path))
    }

    /// Reads those of the kernel in a directory.
    pub(super) fn read(dir: &Path, profile: &str) -> Result<Self, KernelError> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| KernelError::io("understand", &path)(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(KernelError::NoSizes { path, profile: profile.to_string() })
            }
            Err(error) => Err(KernelError::io("read", &path)(error)),
        }
    }

    /// Adds them up.
    pub fn report(&self, profile: &str, release: &str, requests: &Requests) -> Report {
        let mut total = Row { name: "all".to_string(), ..Row::default() };
        let (mut subsystems, mut fragments) = (BTreeMap::new(), BTreeMap::new());
        for object in &self.objects {
            total.add(object);
            for (rows, name) in [
                (&mut subsystems, subsystem(&object.path)),
                (&mut fragments, fragment(&object.options, requests)),
            ] {
                let row = Row { name: name.clone(), ..Row::default() };
                rows.entry(name).or_insert(row).add(object);
            }
        }
        Report {
            profile: profile.to_string(),
            release: release.to_string(),
            total,
            subsystems: by_weight(subsystems),
            fragments: by_weight(fragments),
        }
    }
}

fn by_weight(rows: BTreeMap<String, Row>) -> Vec<Row> {
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes()));
    rows
}

/// The directory that counts as a part: two names deep, three below `arch`.
fn subsystem(path: &str) -> String {
    let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
    let depth = if dir.starts_with("arch/") { 3 } else { 2 };
    dir.split('/').take(depth).collect::<Vec<_>>().join("/")
}

/// The fragment that asks for the nearest option that any asks for.
fn fragment(options: &[String], requests: &Requests) -> String {
    let request = options.iter().filter_map(|option| requests.get(option)).find(|r| r.value != Value::No);
    match request {
        Some(request) => request.place.file.display().to_string(),
        None if options.is_empty() => ALWAYS.to_string(),
        None => UNASKED.to_string(),
    }
}

/// The members of the archive called `name`, as paths below `root`.
fn members(root: &Path, name: &str) -> Result<Vec<String>, KernelError> {
    let path = root.join(name);
    let archive = fs::read(&path).map_err(KernelError::io("read", &path))?;
    let names = thin(&archive).ok_or(KernelError::Archive(path))?;
    let dir = Path::new(name).parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(names.iter().map(|member| below(&dir, member)).collect())
}

/// Puts a relative path behind a directory, and takes `..` back where it can.
fn below(dir: &Path, member: &str) -> String {
    let mut path = PathBuf::new();
    for part in dir.join(member).components() {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::CurDir => {}
            part => path.push(part),
        }
    }
    path.display().to_string()
}

/// The names in a thin archive, which has headers and a table of names, and leaves the members where they are; none if
/// it is something else.
fn thin(archive: &[u8]) -> Option<Vec<String>> {
    let mut rest = archive.strip_prefix(b"!<thin>\n")?;
    let (mut table, mut names): (&[u8], _) = (&[], Vec::new());
    while !rest.is_empty() {
        let (header, body) = rest.split_at_checked(60)?;
        let name = std::str::from_utf8(&header[..16]).ok()?.trim_end();
        let size: usize = std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok()?;
        rest = body;
        if name == "/" || name == "//" {
            let (content, after) = body.split_at_checked(size)?;
            if name == "//" {
                table = content;
            }
            // Contents are padded to an even length.
            rest = if size % 2 == 1 { after.strip_prefix(b"\n").unwrap_or(after) } else { after };
        } else {
            // GNU ar leaves a `/` at the field's end when it takes a member over from another thin archive.
            let digits = name.strip_prefix('/')?.split(|c: char| !c.is_ascii_digit()).next()?;
            let at: usize = digits.parse().ok()?;
            let text = table.get(at..)?;
            let end = text.iter().position(|byte| *byte == b'\n')?;
            names.push(std::str::from_utf8(&text[..end]).ok()?.trim_end_matches('/').to_string());
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::super::fragment;
    use super::*;

    /// A thin archive as GNU ar writes it.
    fn archive(symbols: &str, names: &[&str]) -> Vec<u8> {
        let header =
            |name: &str, size: usize| format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644);
        let mut table = names.iter().map(|name| format!("{name}/\n")).collect::<String>();
        if table.len() % 2 == 1 {
            table.push('\n');
        }
        let mut text = "!<thin>\n".to_string();
        if !symbols.is_empty() {
            text += &(header("/", symbols.len()) + symbols);
        }
        text += &(header("//", table.len()) + &table);
        let mut at = 0;
        for name in names {
            text += &header(&format!("/{at}"), 1234);
            at += name.len() + 2;
        }
        text.into_bytes()
    }

    /// An object with these sections: flags, type, size.
    fn object(sections: &[(u64, u32, u64)]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[40..48].copy_from_slice(&64_u64.to_le_bytes());
        file[58..60].copy_from_slice(&64_u16.to_le_bytes());
        file[60..62].copy_from_slice(&u16::try_from(sections.len()).unwrap().to_le_bytes());
        for (flags, kind, size) in sections {
            let mut header = [0; 64];
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[8..16].copy_from_slice(&flags.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            file.extend(header);
        }
        file
    }

    #[test]
    fn thin_archives_are_read_and_others_refused() {
        let names = ["init/main.o", "fs/a-name-that-is-longer-than-a-header.o"];
        assert_eq!(thin(&archive("", &names)).unwrap(), names);
        assert_eq!(thin(&archive("symbol", &names)).unwrap(), names);
        let mut taken_over = archive("", &names);
        let at = taken_over.len() - 60 + 15;
        taken_over[at] = b'/';
        assert_eq!(thin(&taken_over).unwrap(), names);
        assert_eq!(thin(b"!<thin>\n"), Some(Vec::new()));
        assert_eq!(thin(b"!<arch>\n"), None);
        let whole = archive("", &names);
        for cut in 9..whole.len() {
            assert!(thin(&whole[..cut]).is_none_or(|found| found.len() < 2), "{cut}");
        }
        assert_eq!(below(Path::new("arch/x86/lib"), "../../x86/./lib/a.o"), "arch/x86/lib/a.o");
    }

    #[test]
    fn a_tree_is_measured_and_added_up() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        write("vmlinux.a", &archive("", &["fs/open.o", "fs/ext4/inode.o", "crypto/aes.o"]));
        write("lib/lib.a", &archive("sy", &["sort.o"]));
        write("Kbuild", b"obj-y += fs/ crypto/\nlibs-y += lib/\n");
        write("fs/Makefile", b"obj-y += open.o\nobj-$(CONFIG_EXT4_FS) += ext4/\n");
        write("fs/ext4/Makefile", b"obj-$(CONFIG_EXT4_FS) += ext4.o\next4-y := inode.o\n");
        write("crypto/Makefile", b"obj-$(CONFIG_CRYPTO_AES) += aes.o\n");
        // Code, constants, variables; then zeroes, and what is not loaded, which do not count.
        let sections = [(6, 1, 100), (2, 1, 10), (3, 1, 7), (3, 8, 1000), (0, 1, 1000)];
        for name in ["fs/open.o", "fs/ext4/inode.o", "crypto/aes.o", "lib/sort.o"] {
            write(name, &object(&sections));
        }
        write("fs/not-linked.o", b"");
        let config = Config::parse("CONFIG_EXT4_FS=y\nCONFIG_CRYPTO_AES=y\n");
        let sizes = Sizes::measure(dir.path(), "x86", &config).unwrap();
        sizes.write(dir.path()).unwrap();
        assert_eq!(Sizes::read(dir.path(), "p").unwrap(), sizes);
        let text = "# why: w\n# needed-by: n\nCONFIG_EXT4_FS=y\n";
        let requests = Requests::merge(fragment::parse(Path::new("feature/fs.conf"), text).unwrap()).unwrap();
        let report = sizes.report("p", "6", &requests);
        let row = |name: &str, objects, text, data| Row { name: name.to_string(), objects, text, data };
        assert_eq!(report.total, row("all", 4, 440, 28));
        assert_eq!(
            report.fragments,
            [
                row("(always built)", 2, 220, 14),
                row("(options that no fragment asks for)", 1, 110, 7),
                row("feature/fs.conf", 1, 110, 7)
            ]
        );
        let names: Vec<_> = report.subsystems.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["crypto", "fs", "fs/ext4", "lib"]);
    }

    #[test]
    fn a_kernel_without_sizes_says_how_to_get_them() {
        let dir = tempfile::tempdir().unwrap();
        let error = Sizes::read(dir.path(), "sandbox").unwrap_err().to_string();
        assert!(
            error.contains("sizes.json") && error.contains("kernel build --profile sandbox --rebuild"),
            "{error}"
        );
        fs::write(dir.path().join("vmlinux.a"), "!<arch>\n").unwrap();
        let error = Sizes::measure(dir.path(), "x86", &Config::default()).unwrap_err().to_string();
        assert!(error.contains("vmlinux.a is not a thin archive"), "{error}");
    }

    #[test]
    fn parts_are_named_by_their_directories() {
        for (path, part) in [
            ("fs/ext4/acl.o", "fs/ext4"),
            ("mm/slub.o", "mm"),
            ("drivers/net/ethernet/x.o", "drivers/net"),
            ("arch/x86/kernel/cpu/amd.o", "arch/x86/kernel"),
        ] {
            assert_eq!(subsystem(path), part);
        }
    }
}
