//! Which option brings an object file in, by the Makefiles of a kernel's tree.
//!
//! ```text
//! obj-$(CONFIG_EXT4_FS) += ext4.o                      an object, or with a `/` a directory
//! ext4-y := balloc.o …                                 parts of ext4.o
//! ext4-$(CONFIG_EXT4_FS_POSIX_ACL) += acl.o            a part with an option of its own
//! ifdef CONFIG_X … endif                               holds for what stands inside
//! ```
//!
//! Promises the options from the nearest to the farthest: the object's own, those of what it is part of, those of the
//! directories above. Reads these forms and no others: make's functions and included files are passed over, so an
//! object may come out with the options of its directory alone. Must never run make.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::config::Config;
use super::fragment::Value;

/// How deep composites may lie in each other.
const DEEPEST: usize = 8;

/// Lists that name what is linked, rather than parts of something.
const LISTS: [&str; 5] = ["obj", "lib", "core", "drivers", "libs"];

/// One word of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// What it is part of; none for a list that is linked.
    owner: Option<String>,
    /// The options in the list's name; one of them must be on. None: always.
    options: Vec<String>,
    /// The options of conditions around it.
    around: Vec<String>,
    /// The object, or the directory with a `/` at its end.
    item: String,
}

/// What a directory's Kbuild and Makefile say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Makefile(Vec<Rule>);

impl Makefile {
    /// Reads the lists in a text; `arch` is the architecture's directory.
    fn parse(text: &str, arch: &str) -> Self {
        let joined = text.replace("\\\n", " ");
        let mut rules = Vec::new();
        let mut conditions: Vec<Vec<String>> = Vec::new();
        for line in joined.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            let line = line.replace("$(SRCARCH)", arch).replace("$(BITS)", "64");
            match line.split_whitespace().next().unwrap_or_default() {
                "ifdef" | "ifeq" | "ifneq" => conditions.push(options_in(&line)),
                "ifndef" => conditions.push(Vec::new()),
                "else" => {
                    conditions.pop();
                    conditions.push(options_in(&line));
                }
                "endif" => drop(conditions.pop()),
                _ => {
                    let Some((name, words)) = assignment(&line) else { continue };
                    let options = options_in(name);
                    let owner = Some(stem(name)).filter(|stem| !LISTS.contains(stem)).map(str::to_string);
                    rules.extend(words.split_whitespace().filter_map(item).map(|item| Rule {
                        owner: owner.clone(),
                        options: options.clone(),
                        around: conditions.concat(),
                        item,
                    }));
                }
            }
        }
        Self(rules)
    }

    /// The options that bring an object or directory in; none if no list that is on names it.
    fn options(&self, names: &[&str], config: &Config, depth: usize) -> Option<Vec<String>> {
        let on = |option: &&String| config.value(option) != Value::No;
        let mut found: Option<Vec<String>> = None;
        for rule in self.0.iter().filter(|rule| names.contains(&rule.item.as_str())) {
            if !rule.options.is_empty() && !rule.options.iter().any(|option| on(&option)) {
                continue;
            }
            let mut options: Vec<_> = rule.options.iter().chain(&rule.around).filter(on).cloned().collect();
            if let Some(owner) = rule.owner.as_ref().filter(|_| depth < DEEPEST) {
                let whole = format!("{owner}.o");
                options.extend(self.options(&[&whole], config, depth + 1).unwrap_or_default());
            }
            match &mut found {
                // What one list brings in always needs no option of another.
                Some(all) if all.is_empty() || options.is_empty() => all.clear(),
                Some(all) => all.extend(options),
                None => found = Some(options),
            }
        }
        found
    }
}

/// `name` and `words` of `name += words` and the other kinds of assignment.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, words) = line.split_once('=')?;
    let name = name.trim_end_matches([':', '+', '?']).trim_end();
    let plain = !name.is_empty() && !name.contains(':');
    (plain && (!name.contains(char::is_whitespace) || name.contains("$("))).then_some((name, words))
}

/// `ext4` of `ext4-y`, `ext4-objs` and `ext4-$(CONFIG_X)`.
fn stem(name: &str) -> &str {
    let name = name.split_once("-$(").map_or(name, |(stem, _)| stem);
    ["-y", "-m", "-objs"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// A word as an item: an object, a directory, or a list by its name as if it were an object that is made of it.
fn item(word: &str) -> Option<String> {
    if let Some(list) = word.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')) {
        return Some(format!("{}.o", stem(list)));
    }
    ((word.ends_with(".o") || word.ends_with('/')) && !word.contains('$')).then(|| word.to_string())
}

/// Every option named in a text.
fn options_in(text: &str) -> Vec<String> {
    let after = text.split("CONFIG_").skip(1);
    after
        .filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            (end > 0).then(|| format!("CONFIG_{}", &rest[..end]))
        })
        .collect()
}

/// The Makefiles of a tree, read as they are needed.
#[derive(Debug)]
pub(super) struct Tree<'a> {
    root: &'a Path,
    arch: &'a str,
    config: &'a Config,
    read: BTreeMap<PathBuf, Makefile>,
}

impl<'a> Tree<'a> {
    /// The tree at `root`, built for the architecture of the directory `arch` with this configuration.
    pub(super) fn new(root: &'a Path, arch: &'a str, config: &'a Config) -> Self {
        Self { root, arch, config, read: BTreeMap::new() }
    }

    /// The options that bring in the object at `path` below the root, the nearest first; none if it is always built.
    ///
    /// # Errors
    /// When a Makefile is there and cannot be read.
    pub(super) fn options(&mut self, path: &str) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut target = path.to_string();
        loop {
            let parents: Vec<_> = Path::new(&target).ancestors().skip(1).map(Path::to_path_buf).collect();
            let Some(nearest) = parents.first() else { break };
            let mut above = nearest.clone();
            for dir in &parents {
                let prefix = if dir.as_os_str().is_empty() { 0 } else { dir.as_os_str().len() + 1 };
                let config = self.config;
                let names = [target.get(prefix..).unwrap_or_default(), target.as_str()];
                if let Some(options) = self.makefile(dir)?.options(&names, config, 0) {
                    found.extend(options);
                    above.clone_from(dir);
                    break;
                }
            }
            if above.as_os_str().is_empty() {
                break;
            }
            target = format!("{}/", above.display());
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|option| seen.insert(option.clone()));
        Ok(found)
    }

    fn makefile(&mut self, dir: &Path) -> io::Result<&Makefile> {
        if !self.read.contains_key(dir) {
            let mut text = String::new();
            for name in ["Kbuild", "Makefile"] {
                match std::fs::read(self.root.join(dir).join(name)) {
                    Ok(bytes) => text = text + &String::from_utf8_lossy(&bytes) + "\n",
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            self.read.insert(dir.to_path_buf(), Makefile::parse(&text, self.arch));
        }
        Ok(&self.read[dir])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn the_nearest_option_comes_first_and_directories_last() {
        let dir = tree(&[
            ("Kbuild", "obj-y += fs/ mm/\nobj-y += arch/$(SRCARCH)/\nobj-$(CONFIG_NET)\t+= net/\n"),
            ("Makefile", "libs-y := lib/\nall: vmlinux\n\tfoo=bar.o\n"),
            ("fs/Makefile", "obj-y := open.o \\\n  read.o\nobj-$(CONFIG_EXT4_FS) += ext4/ # comment.o\n"),
            (
                "fs/ext4/Makefile",
                "obj-$(CONFIG_EXT4_FS) += ext4.o\next4-y := balloc.o sub/deep.o\n\
                 ext4-$(CONFIG_EXT4_ACL) += acl.o\next4-$(CONFIG_OFF) += off.o balloc.o\n",
            ),
            ("net/Makefile", "obj-y += core/\nobj-$(CONFIG_NETFILTER) += filter/\n"),
            ("net/core/Makefile", "obj-y := sock.o\n"),
            (
                "net/filter/Makefile",
                "filter-objs := core.o\nobj-$(CONFIG_NETFILTER) = filter.o\nfilter-$(subst m,y,$(CONFIG_IPV6)) += six.o\n",
            ),
            ("mm/Makefile", "mmu-y := nommu.o\nmmu-$(CONFIG_MMU) := memory.o\nobj-y := slab.o $(mmu-y)\n"),
            ("arch/x86/Kbuild", "obj-$(CONFIG_PVH) += platform/pvh/\nobj-y += kernel/\n"),
            ("arch/x86/Makefile", "drivers-$(CONFIG_PCI) += arch/x86/pci/\n"),
            ("arch/x86/platform/pvh/Makefile", "obj-$(CONFIG_PVH) += enlighten.o\n"),
            ("arch/x86/pci/Makefile", "obj-y += irq.o\n"),
            (
                "arch/x86/kernel/Makefile",
                "obj-y += process_$(BITS).o\nifdef CONFIG_SMP\nobj-y += smp.o\nelse\nobj-y += up.o\nendif\nobj-y += cpu.o\n\
                 ifeq ($(CONFIG_A),m)\nobj-y += am.o\nelse ifeq ($(CONFIG_NET),y)\nobj-y += ay.o\nendif\n",
            ),
        ]);
        let config = Config::parse(
            "CONFIG_EXT4_FS=y\nCONFIG_EXT4_ACL=y\nCONFIG_NET=y\nCONFIG_NETFILTER=y\nCONFIG_IPV6=y\nCONFIG_MMU=y\n\
             CONFIG_PVH=y\nCONFIG_PCI=y\nCONFIG_SMP=y\n",
        );
        let mut tree = Tree::new(dir.path(), "x86", &config);
        for (path, options) in [
            ("fs/open.o", ""),
            ("fs/read.o", ""),
            ("fs/unlisted.o", ""),
            ("fs/ext4/balloc.o", "EXT4_FS"),
            ("fs/ext4/sub/deep.o", "EXT4_FS"),
            ("fs/ext4/unlisted.o", "EXT4_FS"),
            ("fs/ext4/acl.o", "EXT4_ACL EXT4_FS"),
            ("net/core/sock.o", "NET"),
            ("net/filter/core.o", "NETFILTER NET"),
            ("net/filter/six.o", "IPV6 NETFILTER NET"),
            ("mm/slab.o", ""),
            ("mm/memory.o", "MMU"),
            ("arch/x86/platform/pvh/enlighten.o", "PVH"),
            ("arch/x86/pci/irq.o", "PCI"),
            ("arch/x86/kernel/process_64.o", ""),
            ("arch/x86/kernel/smp.o", "SMP"),
            ("arch/x86/kernel/cpu.o", ""),
            ("arch/x86/kernel/ay.o", "NET"),
            ("lib/sort.o", ""),
        ] {
            let expected: Vec<_> = options.split_whitespace().map(|name| format!("CONFIG_{name}")).collect();
            assert_eq!(tree.options(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn what_two_options_bring_in_has_both_and_what_is_always_there_has_none() {
        let makefile = Makefile::parse(
            "obj-$(CONFIG_A) += x.o y.o\nobj-$(CONFIG_B) += x.o\nobj-y += y.o\nloop-y := loop.o\n",
            "x86",
        );
        let config = Config::parse("CONFIG_A=y\nCONFIG_B=y\n");
        let options = |name| makefile.options(&[name], &config, 0);
        assert_eq!(options("x.o"), Some(vec!["CONFIG_A".to_string(), "CONFIG_B".to_string()]));
        assert_eq!(options("y.o"), Some(Vec::new()));
        assert_eq!(options("z.o"), None);
        assert_eq!(options("loop.o"), Some(Vec::new()), "a list that is part of itself ends");
        assert_eq!(makefile.options(&["x.o"], &Config::default(), 0), None);
    }
}
