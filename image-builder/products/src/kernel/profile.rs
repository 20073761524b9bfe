//! The data files of a kernel: `kernel.toml`, `profile/<name>.toml`, `forbid.toml`, the fragments they lead to and the
//! requirements they meet.
//!
//! Promises that unknown keys are errors and that fragments come in a fixed order. Must never run anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::arch::Arch;
use super::data::{DataError, read, read_toml};
use super::forbid::Forbidden;
use super::fragment::{self, Requests};
use super::requirement::Requirement;

/// `kernel.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelFile {
    /// Which source.
    pub source: SourceFile,
    /// How it is built.
    pub build: BuildFile,
}

/// Where the source comes from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// The release series, such as `6.12`.
    pub series: String,
    /// The tarball on this host.
    pub path: Option<PathBuf>,
    /// The tarball elsewhere.
    pub url: Option<String>,
    /// What the tarball must hash to.
    pub sha256: Option<String>,
    /// The distribution's package that installs `path`.
    pub package: Option<String>,
}

/// Constants of the build.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildFile {
    /// For which processor, unless the profile says otherwise.
    pub arch: Arch,
    /// KBUILD_BUILD_USER.
    pub user: String,
    /// KBUILD_BUILD_HOST.
    pub host: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    description: String,
    arch: Option<Arch>,
    fragments: Vec<PathBuf>,
    #[serde(default)]
    meets: Vec<String>,
    #[serde(default)]
    allow: Vec<String>,
    /// Upper bounds in bytes, by product.
    #[serde(default)]
    budget: BTreeMap<String, u64>,
}

/// Everything that the data files say about one kernel.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The profile's name.
    pub name: String,
    /// One sentence about it.
    pub description: String,
    /// `kernel.toml`.
    pub kernel: KernelFile,
    /// For which processor.
    pub arch: Arch,
    /// All options of all fragments.
    pub requests: Requests,
    /// What must not be set.
    pub forbidden: Forbidden,
    /// All requirements there are of kernels for this processor.
    pub requirements: Vec<Requirement>,
    /// The names of those that this profile promises to meet.
    pub meets: Vec<String>,
    /// How many fragments there are.
    pub fragments: usize,
    /// How many bytes the image that VMMs boot may have, if there is a bound.
    pub budget: Option<u64>,
}

impl Profile {
    /// Reads the profile called `name` below `dir`, the `kernel-config` directory.
    ///
    /// # Errors
    /// The first file that is missing or wrong.
    pub fn load(dir: &Path, name: &str) -> Result<Self, DataError> {
        let kernel: KernelFile = read_toml(&dir.join("kernel.toml"))?;
        let path = dir.join("profile").join(format!("{name}.toml"));
        if name.is_empty() || name.contains(['/', '.']) || !path.is_file() {
            return Err(DataError::NoProfile {
                name: name.to_string(),
                known: known_profiles(dir).join(", "),
            });
        }
        let file: ProfileFile = read_toml(&path)?;
        let list = dir.join("forbid.toml");
        let forbidden = Forbidden::parse(&list, &read(&list)?)?.allowing(&path, &file.allow)?;
        let arch = file.arch.unwrap_or(kernel.build.arch);
        let (requirements, others): (Vec<_>, Vec<_>) =
            Requirement::load_all(dir)?.into_iter().partition(|list| list.arch.is_none_or(|of| of == arch));
        let met = others.iter().find(|list| file.meets.contains(&list.name));
        if let Some((name, theirs)) = met.and_then(|list| Some((list.name.clone(), list.arch?))) {
            return Err(DataError::OtherArch { path, name, theirs, ours: arch });
        }
        if let Some(name) =
            file.meets.iter().find(|name| requirements.iter().all(|known| known.name != **name))
        {
            let known: Vec<_> = requirements.iter().map(|known| known.name.as_str()).collect();
            return Err(DataError::NoRequirement { path, name: name.clone(), known: known.join(", ") });
        }
        if let Some(name) = file.budget.keys().find(|name| *name != arch.image()) {
            return Err(DataError::Budget { path, name: name.clone(), arch, image: arch.image() });
        }
        let mut requests = Vec::new();
        let mut fragments = 0;
        for relative in &file.fragments {
            for fragment in fragment_files(&path, &dir.join(relative))? {
                let shown = fragment.strip_prefix(dir).unwrap_or(&fragment);
                requests.extend(fragment::parse(shown, &read(&fragment)?)?);
                fragments += 1;
            }
        }
        Ok(Self {
            name: name.to_string(),
            description: file.description,
            kernel,
            arch,
            requests: Requests::merge(requests)?,
            forbidden,
            requirements,
            meets: file.meets,
            fragments,
            budget: file.budget.get(arch.image()).copied(),
        })
    }

    /// Adds fragments of a user, from anywhere. They go over those of the profile and need no reasons. The kernel gets the name
    /// of the first one, and has no bound on its size.
    ///
    /// # Errors
    /// When one cannot be read or understood, two of them ask for the same option, or the first has no name that a kernel can
    /// have.
    pub fn with_fragments(mut self, dir: &Path, files: &[PathBuf]) -> Result<Self, DataError> {
        let Some(first) = files.first() else { return Ok(self) };
        let name = first.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if name.is_empty() || !is_name || known_profiles(dir).contains(&name) {
            return Err(DataError::FragmentName(first.clone()));
        }
        let mut own = Vec::new();
        for file in files {
            own.extend(fragment::parse_own(file, &read(file)?)?);
        }
        self.requests = self.requests.overridden(own)?;
        self.fragments += files.len();
        self.budget = None;
        self.name = name;
        Ok(self)
    }

    /// The requirements that this profile promises to meet.
    pub fn promised(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter().filter(|requirement| self.meets.contains(&requirement.name))
    }
}

/// The names of all profiles below `dir`, sorted.
pub fn known_profiles(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("profile")) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix(".toml")?.to_string()))
        .collect();
    names.sort();
    names
}

/// `path` itself, or every `*.conf` below it in order of name.
fn fragment_files(profile: &Path, path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    let mut pending = vec![path.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(&dir).map_err(DataError::read(&dir))? {
            let entry = entry.map_err(DataError::read(&dir))?.path();
            match entry.is_dir() {
                true => pending.push(entry),
                false if entry.extension().is_some_and(|extension| extension == "conf") => found.push(entry),
                false => {}
            }
        }
    }
    if found.is_empty() {
        return Err(DataError::NoFragment { profile: profile.to_path_buf(), fragments: path.to_path_buf() });
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::cache::write_atomically;

    fn shipped() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kernel-config")
    }

    #[test]
    fn every_shipped_profile_loads_and_asks_for_nothing_forbidden() {
        let names = known_profiles(&shipped());
        assert!(names.contains(&"kata".to_string()), "{names:?}");
        for name in names {
            let profile = Profile::load(&shipped(), &name).unwrap();
            assert!(profile.requests.len() > 100 && profile.fragments > 10, "{name}");
            for (symbol, _) in profile.forbidden.iter() {
                let asked =
                    profile.requests.get(symbol).filter(|request| request.value != fragment::Value::No);
                assert_eq!(asked, None, "{name} asks for a forbidden option");
            }
        }
    }

    /// Options that the project's other parts cannot work without; a fragment that loses one breaks them at a distance.
    #[test]
    fn the_kata_profile_has_what_the_agent_builds_on() {
        let requests = Profile::load(&shipped(), "kata").unwrap().requests;
        for symbol in [
            "PVH",
            "VIRTIO_MMIO_CMDLINE_DEVICES",
            "VIRTIO_VSOCKETS",
            "VIRTIO_BLK",
            "VIRTIO_NET",
            "VIRTIO_FS",
            "OVERLAY_FS",
            "EROFS_FS",
            "EXT4_FS",
            "USER_NS",
            "PID_NS",
            "NET_NS",
            "TIME_NS",
            "CGROUP_BPF",
            "CFS_BANDWIDTH",
            "MEMCG",
            "CGROUP_PIDS",
            "CPUSETS",
            "SECCOMP",
            "VETH",
            "RD_ZSTD",
            "RD_GZIP",
            "RD_LZ4",
            "DEVTMPFS",
            "POSIX_MQUEUE",
        ] {
            let request = requests.get(&format!("CONFIG_{symbol}"));
            assert_eq!(request.map(|r| r.value.to_string()).as_deref(), Some("y"), "{symbol}");
        }
    }

    /// What a profile's description promises, so that no requirement is dropped from `meets` to make a check pass.
    #[test]
    fn the_machines_that_profiles_are_for_are_among_what_they_meet() {
        const SHIMS: [&str; 8] = [
            "qemu-q35",
            "qemu-microvm",
            "kata-qemu-nested",
            "cloud-hypervisor",
            "firecracker",
            "firecracker-pci",
            "dragonball",
            "feature-vmgenid",
        ];
        for (name, machines) in [
            ("kata", &SHIMS[..]),
            ("kata-xfs", &SHIMS),
            ("debug", &SHIMS),
            (
                "sandbox",
                &["qemu-microvm", "firecracker", "firecracker-pci", "cloud-hypervisor", "feature-vmgenid"],
            ),
            ("aarch64", &["qemu-virt", "cloud-hypervisor-aarch64", "firecracker-aarch64"]),
        ] {
            let meets = Profile::load(&shipped(), name).unwrap().meets;
            for machine in machines {
                assert!(meets.iter().any(|met| met == machine), "{name}: {machine}");
            }
        }
    }

    #[test]
    fn fragments_of_a_user_change_and_name_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            write_atomically(&path, text.as_bytes()).unwrap();
            path
        };
        let kata = Profile::load(&shipped(), "kata").unwrap();
        let (one, two) = (file("my-own.conf", "CONFIG_XFS_FS=y\n"), file("more.conf", "CONFIG_EXT4_FS=n\n"));
        let mine = kata.clone().with_fragments(&shipped(), &[one.clone(), two]).unwrap();
        assert_eq!((mine.name.as_str(), mine.budget, mine.fragments), ("my-own", None, kata.fragments + 2));
        let value = |symbol: &str| mine.requests.get(symbol).unwrap().value.to_string();
        assert_eq!((value("CONFIG_XFS_FS").as_str(), value("CONFIG_EXT4_FS").as_str()), ("y", "n"));
        assert_eq!(kata.clone().with_fragments(&shipped(), &[]).unwrap().name, "kata");
        for name in ["debug.conf", "a b.conf", "a.b.conf"] {
            let path = file(name, "CONFIG_XFS_FS=y\n");
            let error = kata.clone().with_fragments(&shipped(), &[path]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("name of"), "{error}");
        }
        let error = kata.with_fragments(&shipped(), &[one.clone(), one]).unwrap_err().to_string();
        assert!(error.contains("CONFIG_XFS_FS is asked for twice"), "{error}");
    }

    #[test]
    fn an_unknown_profile_names_the_known_ones() {
        for name in ["nope", "", "../kernel", "a/b"] {
            let error = Profile::load(&shipped(), name).unwrap_err().to_string();
            assert!(error.contains("debug, kata"), "{error}");
        }
    }

    #[test]
    fn unknown_keys_and_empty_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| write_atomically(&dir.path().join(name), text.as_bytes()).unwrap();
        write("kernel.toml", "[source]\nseries='6'\n[build]\narch='x86_64'\nuser='u'\nhost='h'\n");
        write("forbid.toml", "");
        write("base/README", "");
        write("profile/a.toml", "description=''\nfragments=['base']\ncolour=1\n");
        let error = Profile::load(dir.path(), "a").unwrap_err();
        assert!(
            matches!(&error, DataError::Toml { source, .. } if source.to_string().contains("colour")),
            "{error:?}"
        );
        write("profile/a.toml", "description=''\nfragments=['base']\n");
        assert!(matches!(Profile::load(dir.path(), "a"), Err(DataError::NoFragment { .. })));
        write("base/deep/b.conf", "# why: w\n# needed-by: n\nCONFIG_B=y\n");
        let profile = Profile::load(dir.path(), "a").unwrap();
        let places: Vec<_> = profile.requests.iter().map(|request| request.place.to_string()).collect();
        assert_eq!(places, ["base/deep/b.conf:3"]);
        write("requirement/vmm.toml", "description='d'\n[[require]]\noptions=['CONFIG_B']\nwhy='w'\n");
        write("profile/a.toml", "description=''\nfragments=['base']\nmeets=['vmx']\n");
        let error = Profile::load(dir.path(), "a").unwrap_err().to_string();
        assert!(
            error.ends_with("meets \"vmx\", which is no file in requirement/; there are: vmm"),
            "{error}"
        );
        write("profile/a.toml", "description=''\nfragments=['base']\nmeets=['vmm']\n");
        let profile = Profile::load(dir.path(), "a").unwrap();
        assert_eq!(profile.promised().map(|list| list.name.as_str()).collect::<Vec<_>>(), ["vmm"]);
    }

    #[test]
    fn a_profile_can_be_for_another_processor_and_meets_no_list_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| write_atomically(&dir.path().join(name), text.as_bytes()).unwrap();
        let list =
            |arch: &str| format!("description='d'\n{arch}[[require]]\noptions=['CONFIG_B']\nwhy='w'\n");
        write("kernel.toml", "[source]\nseries='6'\n[build]\narch='x86_64'\nuser='u'\nhost='h'\n");
        write("forbid.toml", "");
        write("base/b.conf", "# why: w\n# needed-by: n\nCONFIG_B=y\n");
        write("requirement/pc.toml", &list("arch='x86_64'\n"));
        write("requirement/arm.toml", &list("arch='aarch64'\n"));
        write("requirement/any.toml", &list(""));
        write("profile/a.toml", "description=''\nfragments=['base']\nmeets=['any', 'pc']\n");
        write("profile/b.toml", "description=''\narch='aarch64'\nfragments=['base']\nmeets=['any', 'arm']\n");
        for (name, arch, lists) in [("a", Arch::X86_64, ["any", "pc"]), ("b", Arch::Aarch64, ["any", "arm"])]
        {
            let profile = Profile::load(dir.path(), name).unwrap();
            assert_eq!(profile.arch, arch);
            assert_eq!(profile.requirements.iter().map(|list| &*list.name).collect::<Vec<_>>(), lists);
        }
        write("profile/b.toml", "description=''\narch='aarch64'\nfragments=['base']\nmeets=['pc']\n");
        let error = Profile::load(dir.path(), "b").unwrap_err().to_string();
        assert!(
            error.ends_with("meets \"pc\", which is for x86_64, and this profile is for aarch64"),
            "{error}"
        );
        write("profile/b.toml", "description=''\narch='aarch64'\nfragments=['base']\n[budget]\nvmlinuz=1\n");
        let error = Profile::load(dir.path(), "b").unwrap_err().to_string();
        assert!(error.ends_with("is for vmlinuz, but a kernel for aarch64 is bounded by Image"), "{error}");
    }
}
