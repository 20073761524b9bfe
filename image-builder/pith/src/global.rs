//! Options that every verb has. Finds the products, and prints results.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use pods::run::state::StateDir;
use serde::Serialize;
use store::arch::Arch;
use store::cache::Cache;
use store::layout::{INSTALLED_DATA, INSTALLED_PRODUCTS, Layout, SHIPPED};
use store::progress::Progress;
use store::text;

/// Options that every verb understands.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Print results and errors as JSON, and show no progress.
    #[arg(long, global = true)]
    pub json: bool,
    /// The directory of the guest's kernel and initrd [default: the first of those that `pith doctor` lists].
    #[arg(long, global = true, value_name = "DIR", env = "PITH_OUT")]
    pub out: Option<PathBuf>,
}

/// The file by which a directory of products for an architecture is known: no guest starts without it.
fn mark(place: &Path, arch: Arch) -> PathBuf {
    Layout::new(place.to_path_buf(), Some(place.to_path_buf())).for_arch(arch).kernel()
}

/// Whether a directory has products, for whichever architecture.
fn has_products(place: &Path) -> bool {
    Arch::ALL.into_iter().any(|arch| mark(place, arch).is_file())
}

/// Where packages put products, relative to the directory above the program's.
const INSTALLED: [&str; 2] = [INSTALLED_PRODUCTS, INSTALLED_DATA];

/// The recipes and kernel fragments that came with the package of `program`.
pub fn installed_data(program: &Path) -> Option<PathBuf> {
    let data = program.parent()?.parent()?.join(INSTALLED_DATA);
    Layout::find_root(&data).ok().filter(|root| *root == data)
}

/// Where products may be, the first place first.
///
/// `program` is where this program is, `variable` asks the environment, `here` is the working directory.
pub fn places(
    program: Option<&Path>,
    here: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let mut places = Vec::new();
    if let Some(beside) = program.and_then(Path::parent) {
        places.push(beside.to_path_buf());
        places.extend(beside.parent().into_iter().flat_map(|prefix| INSTALLED.map(|name| prefix.join(name))));
    }
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")));
    places.extend(data.map(|data| data.join("pith")));
    let trees = [here, program.and_then(Path::parent)].into_iter().flatten();
    places.extend(trees.filter_map(|dir| Some(Layout::find_root(dir).ok()?.join("out"))));
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places
}

impl Global {
    /// Places that products are looked for in; one that was named is the only one.
    pub fn places(&self) -> Vec<PathBuf> {
        match &self.out {
            Some(out) => vec![out.clone()],
            None => {
                let (program, here) = (std::env::current_exe().ok(), std::env::current_dir().ok());
                places(program.as_deref(), here.as_deref(), |name| std::env::var_os(name))
            }
        }
    }

    /// The products: those of the first place that has some.
    ///
    /// # Errors
    /// Names every place that was looked at.
    pub fn products(&self) -> anyhow::Result<Layout> {
        let places = self.places();
        match places.iter().find(|place| has_products(place)) {
            Some(place) => Ok(Layout::new(place.clone(), Some(place.clone()))),
            None => {
                let looked = places.iter().fold(String::new(), |text, place| {
                    text + "\n  " + &mark(place, Arch::host()).display().to_string()
                });
                anyhow::bail!(
                    "there is no kernel for the guest; looked for{looked}\n\
                     Fetch the guest with `image-builder pull REF --out DIR`, or build it with `make build` in the source \
                     tree; then name its directory with --out or PITH_OUT"
                )
            }
        }
    }

    /// The cache directory of this user.
    ///
    /// # Errors
    /// When no variable says where caches are.
    pub fn cache(&self) -> anyhow::Result<Cache> {
        let note = |note: &str| eprintln!("pith: {}", text::lines(note));
        Ok(Cache::locate(|name| std::env::var_os(name))?.with_notes(note))
    }

    /// How to show progress, given `--json` and where standard error goes.
    pub fn progress(&self) -> Progress {
        Progress::detect(self.json)
    }

    /// Prints a result: as JSON with `--json`, else as `words`. A closed pipe is not an error of ours.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn print<T: Serialize>(&self, value: &T, words: impl FnOnce() -> String) -> anyhow::Result<()> {
        // What is printed may quote anything: names in an image, answers of a registry.
        let line = if self.json {
            text::json(&serde_json::to_string_pretty(value)?).into_owned()
        } else {
            text::lines(&words()).into_owned()
        };
        if line.is_empty() { Ok(()) } else { write(&(line + "\n")) }
    }
}

/// Writes to standard output. A closed pipe is not an error of ours.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// The flavours of which this directory has an initrd for an architecture.
pub(crate) fn flavours(directory: &Path, arch: Arch) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> =
        names.filter_map(|name| flavour_of(&name, arch).map(str::to_owned)).collect();
    found.sort();
    found
}

/// The flavour whose initrd for an architecture has this file name.
fn flavour_of(name: &str, arch: Arch) -> Option<&str> {
    let name = name.strip_prefix("initrd")?.strip_suffix(".img")?;
    let marked = Arch::ALL.into_iter().filter(|other| !other.suffix().is_empty());
    let marked = marked.filter_map(|other| Some((other, name.strip_suffix(other.suffix())?))).next();
    let (of, name) = marked.unwrap_or((Arch::X86_64, name));
    match name {
        _ if of != arch => None,
        "" => Some(SHIPPED),
        other => other.strip_prefix('-').filter(|flavour| !flavour.is_empty()),
    }
}

/// What is said about a product for an architecture that is not there: what makes it, and which flavours are there.
pub(crate) fn missing_product(path: &Path, arch: Arch) -> String {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let is_foreign = arch != Arch::host();
    let guest = if is_foreign { format!("the guest is for {arch}, and ") } else { String::new() };
    let Some(flavour) = flavour_of(name, arch) else {
        let command =
            if is_foreign { format!("image-builder build --arch {arch}") } else { "make build".to_owned() };
        return format!("{guest}there is no {}; in the source tree, `{command}` makes it", path.display());
    };
    let option = if is_foreign { format!(" --arch {arch}") } else { String::new() };
    let known = match path.parent().map(|place| flavours(place, arch)).unwrap_or_default() {
        none if none.is_empty() => String::new(),
        known => format!("; flavours: {}", known.join(", ")),
    };
    format!(
        "{guest}there is no {}{known}; in the source tree, `image-builder initrd --flavour {flavour}{option}` makes it",
        path.display()
    )
}

/// Where pods are known.
pub(crate) fn state() -> StateDir {
    StateDir::locate(|name| std::env::var_os(name))
}

/// A process's status as ours. What does not fit in a byte is a failure all the same.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(255))
}

/// Rows with their cells below each other.
pub(crate) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_looked_for_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("kernel-config")).unwrap();
        std::fs::create_dir_all(tree.join("sub")).unwrap();
        std::fs::write(tree.join("kernel-config/kernel.toml"), "").unwrap();
        let places = places(Some(Path::new("/usr/bin/pith")), Some(&tree.join("sub")), |name| {
            (name == "HOME").then(|| "/home/me".into())
        });
        let expected = ["/usr/bin", "/usr/lib/pith", "/usr/share/pith", "/home/me/.local/share/pith"]
            .map(PathBuf::from)
            .into_iter();
        assert_eq!(places, expected.chain([tree.join("out")]).collect::<Vec<_>>());
        let xdg = super::places(None, None, |name| (name == "XDG_DATA_HOME").then(|| "/data".into()));
        assert_eq!(xdg, [PathBuf::from("/data/pith")]);
    }

    #[test]
    fn data_of_a_package_is_beside_its_programs() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("bin/image-builder");
        assert_eq!(installed_data(&program), None);
        let data = dir.path().join("share/pith");
        std::fs::create_dir_all(data.join("kernel-config")).unwrap();
        std::fs::write(data.join("kernel-config/kernel.toml"), "").unwrap();
        assert_eq!(installed_data(&program), Some(data));
    }

    #[test]
    fn a_place_that_is_named_is_the_only_one_and_what_is_missing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global { json: false, out: Some(dir.path().into()) };
        let error = global.products().unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()) && error.contains("--out"), "{error}");
        std::fs::write(mark(dir.path(), Arch::host()), "").unwrap();
        assert_eq!(global.products().unwrap().out(), dir.path());
    }
}
