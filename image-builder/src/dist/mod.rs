//! A release: the programs of the host, the guest's products and what belongs to them, as a tarball, as a Debian package, and with
//! a list of ingredients and checksums beside them.
//!
//! ```text
//! programs ─┬─ manual pages, completions ─┐
//!           └─ list of ingredients ───────┼─ tree below /usr ─┬─ pith-VERSION-x86_64-linux.tar.xz ─┬─ SHA256SUMS
//! products, their manifest ───────────────┤                   └─ pith_VERSION_amd64.deb ───────────┘
//! documents of the source tree ───────────┘                      the Python package ───────────────┘
//! ```
//! Promises that the same input gives the same bytes, and that a product is what its manifest says. Must never build anything:
//! programs and products are there before.

mod archive;
mod deb;
mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fs_image::{Content, Extent, Inode, Kind, Tree};
use products::daemon;
use products::format::compress::{Compression, compress};
use products::manifest::Manifest;
use products::sbom::{self, HostProgram};
use store::digest::Digest;
use store::layout::{INSTALLED_DATA, INSTALLED_PRODUCTS, Layout};
use store::product::is_program;

use deb::Control;
pub use error::DistError;

/// The name of the whole.
const NAME: &str = "pith";
/// Recipes and kernel fragments, for guests that users make: directories of the source tree.
const DATA: [&str; 2] = ["kernel-config", "rootfs"];
/// Where the documents are, below `/usr`.
const DOCUMENTS: &str = "share/doc/pith";
/// Files of the source tree that go into [`DOCUMENTS`], together with what they link to; and directories, by the files in them.
const TEXTS: [&str; 9] = [
    "README.md",
    "LICENSE",
    "NOTICE",
    "SECURITY.md",
    "MAINTAINERS",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "agent/protocols/README.md",
    "docs",
];
const CHANGES: &str = "CHANGELOG.md";

/// What is needed to run pods, and what makes them better.
const RELATIONS: [(&str, &str); 3] = [
    ("Depends", "qemu-system-x86"),
    // Debian 12 has the daemon for shared folders in a package of QEMU's.
    ("Recommends", "virtiofsd | qemu-system-common, e2fsprogs"),
    ("Suggests", "linux-source-6.12, gcc, make, flex, bison, bc, libelf-dev"),
];
const SUMMARY: &str = "containers and pods, each pod in a virtual machine of its own";
const DESCRIPTION: &str = "\
pith runs containers and pods. Each pod has its own virtual machine under
QEMU, with a small kernel and one static program in it, the agent.

This package has the programs pith and image-builder, kernels, and the
guest's root as initrds, disks and unified kernel images. They also work
under Kata Containers, Firecracker and Cloud Hypervisor.";

/// Shells, and where below `/usr` each of them looks for completions of NAME: in front of it and behind it.
const SHELLS: [(&str, &str, &str); 3] = [
    ("bash", "share/bash-completion/completions/", ""),
    ("zsh", "share/zsh/vendor-completions/_", ""),
    ("fish", "share/fish/vendor_completions.d/", ".fish"),
];

/// What a release is made of.
#[derive(Debug)]
pub struct Release<'a> {
    /// The version.
    pub version: &'a str,
    /// The time of everything in it, in seconds since 1970.
    pub epoch: u32,
    /// Who answers for it: a name and an address, `NAME <ADDRESS>`.
    pub maintainer: &'a str,
    /// The source tree, whose documents are taken, and the products.
    pub layout: &'a Layout,
    /// The programs. They are run, for their manual pages and completions.
    pub programs: &'a [PathBuf],
    /// The daemon that stands in for the host's vsock. It is put beside the products, where `pith` finds it.
    pub daemon: &'a Path,
    /// Further files of the release, such as the Python package. They lie beside the archives.
    pub others: &'a [PathBuf],
}

impl Release<'_> {
    /// Writes the release into the directory `out`, which is made. Files of an older release with the same names are replaced.
    /// Gives the names of the files, the checksums last.
    ///
    /// # Errors
    /// When there are no products, one of them is not what its manifest says, or something cannot be read or written.
    pub async fn write(&self, out: &Path) -> Result<Vec<String>, DistError> {
        let own = self.programs.iter().map(|program| (program.as_path(), self.layout.root().to_path_buf()));
        let crate_of_others = daemon::source().ok_or(DistError::NoSource)?;
        let mut programs = Vec::new();
        for (path, source) in own.chain([(self.daemon, crate_of_others)]) {
            let (sha256, _) = Digest::of_file(path).map_err(DistError::io("read", path))?;
            programs.push(HostProgram { name: name_of(path), sha256, source });
        }
        let ingredients = sbom::list_with(self.layout, self.epoch, &programs).await?;
        self.pack(out, &ingredients.to_json())
    }

    /// As [`Release::write`], with the list of ingredients as text.
    fn pack(&self, out: &Path, ingredients: &str) -> Result<Vec<String>, DistError> {
        if !deb::is_maintainer(self.maintainer) {
            return Err(DistError::Maintainer(self.maintainer.to_owned()));
        }
        std::fs::create_dir_all(out).map_err(DistError::io("create", out))?;
        let work = tempfile::tempdir_in(out).map_err(DistError::io("create a directory in", out))?;
        let tree = self.tree(ingredients, work.path())?;
        let Self { version, epoch, .. } = self;
        let tarball = format!("{NAME}-{version}-x86_64-linux.tar.xz");
        let package = format!("{NAME}_{version}_{}.deb", deb::ARCHITECTURE);
        let list = format!("{NAME}-{version}.spdx.json");
        let below = |prefix: &str, texts: Tree| -> Result<Tree, DistError> {
            let mut whole = texts;
            whole.underlay(moved(&tree, prefix)?)?;
            Ok(whole)
        };
        let top = format!("/{NAME}-{version}");
        archive::write(&below(&top, self.texts(&top)?)?, "", *epoch, &work.path().join(&tarball))?;
        let control = Control {
            name: NAME,
            version,
            maintainer: self.maintainer,
            relations: &RELATIONS,
            summary: SUMMARY,
            description: DESCRIPTION,
        };
        let installed = below("/usr", self.debian_texts("/usr")?)?;
        deb::write(&installed, &control, *epoch, work.path(), &work.path().join(&package))?;
        store::cache::write_atomically(&work.path().join(&list), ingredients.as_bytes())?;
        let mut names = vec![tarball, list, package];
        for path in self.others {
            let name = name_of(path);
            std::fs::copy(path, work.path().join(&name)).map_err(DistError::io("read", path))?;
            names.push(name);
        }
        let mut sums = String::new();
        for name in &names {
            let path = work.path().join(name);
            let (digest, _) = Digest::of_file(&path).map_err(DistError::io("read", &path))?;
            sums += &format!("{digest}  {name}\n");
        }
        names.push("SHA256SUMS".to_owned());
        store::cache::write_atomically(&work.path().join("SHA256SUMS"), sums.as_bytes())?;
        for name in &names {
            let to = out.join(name);
            std::fs::rename(work.path().join(name), &to).map_err(DistError::io("write", &to))?;
        }
        Ok(names)
    }

    /// What the tarball and the package have in common, as it is below `/usr`.
    fn tree(&self, ingredients: &str, work: &Path) -> Result<Tree, DistError> {
        let mut tree = Tree::new();
        for program in self.programs {
            let name = name_of(program);
            tree.insert(&format!("/bin/{name}"), Inode::new(0o755, Kind::File(on_disk(program)?)))?;
            for (shell, before, after) in SHELLS {
                let script = output(program, &["completions", shell])?;
                tree.insert(&format!("/{before}{name}{after}"), file(script))?;
            }
            let pages = work.join(format!("{name}.man"));
            output(program, &["man", &pages.display().to_string()])?;
            for page in files(&pages)? {
                let text = std::fs::read(&page).map_err(DistError::io("read", &page))?;
                tree.insert(&format!("/share/man/man1/{}.gz", name_of(&page)), file(gzip(&text)?))?;
            }
        }
        self.products(&mut tree)?;
        let daemon = Inode::new(0o755, Kind::File(on_disk(self.daemon)?));
        tree.insert(&format!("/{INSTALLED_PRODUCTS}/{}", daemon::NAME), daemon)?;
        for name in DATA {
            let mut data = Tree::new();
            data.overlay(&self.layout.root().join(name))?;
            tree.underlay(moved(&data, &format!("/{INSTALLED_DATA}/{name}"))?)?;
        }
        tree.insert(&format!("/{DOCUMENTS}/sbom.spdx.json.gz"), file(gzip(ingredients.as_bytes())?))?;
        Ok(tree)
    }

    /// The products and their manifest, without the programs that only developers need.
    fn products(&self, tree: &mut Tree) -> Result<(), DistError> {
        let mut manifest = Manifest::read(self.layout);
        manifest.products.retain(|name, _| !is_program(name));
        if manifest.products.is_empty() {
            return Err(DistError::NoProducts(self.layout.manifest()));
        }
        for (name, product) in &manifest.products {
            let path = self.layout.out().join(name);
            let found = Digest::of_file(&path).map_err(DistError::io("read", &path))?;
            if found != (product.sha256, product.size) {
                return Err(DistError::Stale(path));
            }
            let is_program = name.split('-').next() == Some("agent");
            let mode = if is_program { 0o755 } else { 0o644 };
            tree.insert(
                &format!("/{INSTALLED_PRODUCTS}/{name}"),
                Inode::new(mode, Kind::File(on_disk(&path)?)),
            )?;
        }
        let text = manifest
            .to_text()
            .map_err(|error| DistError::io("encode", self.layout.manifest())(error.into()))?;
        tree.insert(&format!("/{INSTALLED_PRODUCTS}/manifest.json"), file(text))?;
        Ok(())
    }

    /// The documents as they are in the source tree.
    fn texts(&self, prefix: &str) -> Result<Tree, DistError> {
        let mut tree = self.documents(prefix)?;
        let path = self.layout.root().join(CHANGES);
        let text = std::fs::read(&path).map_err(DistError::io("read", &path))?;
        tree.insert(&format!("{prefix}/{DOCUMENTS}/{CHANGES}"), file(text))?;
        Ok(tree)
    }

    /// The documents, and those that every Debian package has.
    fn debian_texts(&self, prefix: &str) -> Result<Tree, DistError> {
        let mut tree = self.documents(prefix)?;
        let mut add =
            |name: &str, bytes: Vec<u8>| tree.insert(&format!("{prefix}/{DOCUMENTS}/{name}"), file(bytes));
        add("copyright", COPYRIGHT.into())?;
        let path = self.layout.root().join(CHANGES);
        let changes = std::fs::read(&path).map_err(DistError::io("read", &path))?;
        add("changelog.gz", gzip(&changes)?)?;
        let (version, maintainer) = (self.version, self.maintainer);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.epoch.into());
        let date = httpdate::fmt_http_date(time).replace("GMT", "+0000");
        let entry = format!(
            "{NAME} ({version}) stable; urgency=medium\n\n  * Release {version}. changelog.gz lists what changed.\n\n -- {maintainer}  {date}\n"
        );
        add("changelog.Debian.gz", gzip(entry.as_bytes())?)?;
        Ok(tree)
    }

    fn documents(&self, prefix: &str) -> Result<Tree, DistError> {
        let mut tree = Tree::new();
        let root = self.layout.root();
        let mut wanted = Vec::new();
        for name in TEXTS {
            let path = root.join(name);
            if path.is_dir() {
                wanted.extend(files(&path)?.iter().map(|file| format!("{name}/{}", name_of(file))));
            } else {
                wanted.push(name.to_owned());
            }
        }
        // The changelog has a name of its own in each kind of package.
        let mut known = BTreeSet::from([CHANGES.to_owned()]);
        while let Some(name) = wanted.pop() {
            if !known.insert(name.clone()) {
                continue;
            }
            let path = root.join(&name);
            let text = std::fs::read(&path).map_err(DistError::io("read", &path))?;
            if name.ends_with(".md") {
                wanted.extend(links(&name, &String::from_utf8_lossy(&text)));
            }
            tree.insert(&format!("{prefix}/{DOCUMENTS}/{name}"), file(text))?;
        }
        Ok(tree)
    }
}

/// The files of the source tree that a document at `name` links to.
fn links(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
        if link.is_empty() || link.contains([':', ' ', '\n']) {
            continue;
        }
        let mut parts: Vec<&str> = name.split('/').collect();
        parts.pop();
        for part in link.split('/') {
            match part {
                "." | "" => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        found.push(parts.join("/"));
    }
    found
}

/// The licences of what is in the package, in Debian's format.
const COPYRIGHT: &str = include_str!("copyright");

fn file(bytes: Vec<u8>) -> Inode {
    Inode::new(0o644, Kind::File(bytes.into()))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The content of a file that is read when it is packed.
fn on_disk(path: &Path) -> Result<Content, DistError> {
    let open = File::open(path).map_err(DistError::io("read", path))?;
    let len = open.metadata().map_err(DistError::io("inspect", path))?.len();
    Ok(Extent::new(Arc::new(open), 0, len).into())
}

/// The regular files in a directory, in order of name.
fn files(directory: &Path) -> Result<Vec<PathBuf>, DistError> {
    let failed = || DistError::io("list", directory);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>, DistError> {
    compress(bytes, Compression::Gzip).map_err(DistError::io("compress", "a text"))
}

/// The same tree below `prefix`.
fn moved(tree: &Tree, prefix: &str) -> Result<Tree, DistError> {
    let mut whole = Tree::new();
    for (path, id) in tree.walk() {
        let inode = tree.inode(id);
        let kind = if inode.kind.is_directory() { Kind::directory() } else { inode.kind.clone() };
        let path = format!("{prefix}{}", String::from_utf8_lossy(&path));
        whole.insert(&path, Inode { meta: inode.meta.clone(), kind })?;
    }
    Ok(whole)
}

/// What a program writes to its standard output.
fn output(program: &Path, arguments: &[&str]) -> Result<Vec<u8>, DistError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).env("LC_ALL", "C");
    let answer = command.output().map_err(DistError::io("run", program))?;
    if answer.status.success() {
        return Ok(answer.stdout);
    }
    Err(DistError::Program {
        program: format!("{} {}", program.display(), arguments.join(" ")),
        problem: format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.stderr).trim_end()),
    })
}
