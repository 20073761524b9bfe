//! Mounts of a plan: the words of an OCI mount's option list, sorted into what the mount API takes.

use oci_spec::runtime::Mount;
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

use super::{IdMappings, NamespaceKind, NamespacePlan, PlanError};

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountPlan {
    /// Absolute path in the container, without `..`.
    pub destination: PathBuf,
    /// What is mounted.
    pub source: MountSource,
    /// Attributes of the mount itself.
    pub attributes: MountAttributes,
    /// Attributes of the mount and of all below it (`rro` and its kin).
    pub recursive_attributes: MountAttributes,
    /// Propagation set on the mount, in order.
    pub propagation: Vec<Propagation>,
    /// Whether what the destination holds is copied into the new file system first (`tmpcopyup`).
    #[serde(default)]
    pub copy_up: bool,
    /// Whether a new tmpfs gets the permissions of the directory that it covers, where there is one: nothing was said of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keeps_mode: bool,
    /// Other owners than the files have, for a bind.
    #[serde(default)]
    pub owners: Option<Owners>,
    /// The namespace that a file system shows, where it is not the container's user namespace that owns it: only the guest's
    /// root may mount the file system then (`user_namespaces(7)`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreign: Option<NamespaceKind>,
}

/// An ID-mapped mount (`mount_setattr(2)`, `MOUNT_ATTR_IDMAP`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Ids on the disk, as `container`, and those that show, as `host`. None are those of the container's user
    /// namespace.
    pub mappings: Option<IdMappings>,
    /// Whether the mounts below show the same.
    pub recursive: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A file or directory of the guest.
    Bind {
        /// Absolute path in the guest.
        path: PathBuf,
        /// Whether mounts below the source come along.
        recursive: bool,
    },
    /// A new instance of a file system.
    Filesystem {
        /// Type, as in `/proc/filesystems`.
        fstype: String,
        /// Source text; shown in mountinfo where the type has no use for it.
        source: String,
        /// Options of the file system: a name, and a value where there is one.
        options: Vec<(String, Option<String>)>,
    },
    /// What is mounted at the destination already, with other options.
    Remount {
        /// Options of the file system; none leaves it alone.
        options: Vec<(String, Option<String>)>,
    },
}

/// `MOUNT_ATTR_*` bits to set and to clear (`mount_setattr(2)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountAttributes {
    /// Bits to set.
    pub set: u64,
    /// Bits to clear.
    pub clear: u64,
}

/// Read-only.
pub(crate) const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME_MASK: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

impl MountAttributes {
    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.clear |= bits;
        self.set &= !bits;
    }

    /// The access-time mode is one field of three bits: the kernel wants the whole field cleared to change it.
    fn atime(&mut self, mode: u64) {
        self.set = (self.set & !ATIME_MASK) | mode;
        self.clear |= ATIME_MASK;
    }

    /// Whether there is nothing to do.
    pub fn is_empty(self) -> bool {
        self.set == 0 && self.clear == 0
    }

    fn apply(&mut self, word: &str) -> bool {
        match word {
            "ro" => self.set(RDONLY),
            "rw" => self.clear(RDONLY),
            "nosuid" => self.set(NOSUID),
            "suid" => self.clear(NOSUID),
            "nodev" => self.set(NODEV),
            "dev" => self.clear(NODEV),
            "noexec" => self.set(NOEXEC),
            "exec" => self.clear(NOEXEC),
            "nodiratime" => self.set(NODIRATIME),
            "diratime" => self.clear(NODIRATIME),
            "nosymfollow" => self.set(NOSYMFOLLOW),
            "symfollow" => self.clear(NOSYMFOLLOW),
            "noatime" => self.atime(NOATIME),
            "strictatime" => self.atime(STRICTATIME),
            "atime" | "relatime" | "norelatime" | "nostrictatime" => self.atime(0),
            _ => return false,
        }
        true
    }
}

/// Mount propagation (`mount_namespaces(7)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Propagation {
    /// How events travel.
    pub mode: PropagationMode,
    /// Whether all mounts below change too.
    pub recursive: bool,
}

/// How mount events travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PropagationMode {
    /// Not at all.
    Private,
    /// Into the mount, not out of it.
    Slave,
    /// Both ways.
    Shared,
    /// Not at all, and the mount cannot be bound.
    Unbindable,
}

impl Propagation {
    /// Reads a propagation word of the OCI runtime spec; none for any other word.
    pub fn parse(word: &str) -> Option<Propagation> {
        let (recursive, mode) = match word {
            "private" => (false, PropagationMode::Private),
            "rprivate" => (true, PropagationMode::Private),
            "slave" => (false, PropagationMode::Slave),
            "rslave" => (true, PropagationMode::Slave),
            "shared" => (false, PropagationMode::Shared),
            "rshared" => (true, PropagationMode::Shared),
            "unbindable" => (false, PropagationMode::Unbindable),
            "runbindable" => (true, PropagationMode::Unbindable),
            _ => return None,
        };
        Some(Propagation { mode, recursive })
    }
}

impl MountPlan {
    /// Sorts an OCI mount. The source of a bind must be an absolute path of the guest.
    ///
    /// # Errors
    /// [`PlanError`] naming the destination, for a path that climbs, a mount without a type, an unsupported option.
    pub fn of_spec(mount: &Mount) -> Result<MountPlan, PlanError> {
        let destination = container_path(mount.destination())?;
        let words = mount.options().as_deref().unwrap_or_default();
        let mut attributes = MountAttributes::default();
        let mut recursive_attributes = MountAttributes::default();
        let mut propagation = Vec::new();
        let mut options = Vec::new();
        let mut bind = None;
        let (mut remount, mut copy_up, mut idmap) = (false, false, None);
        for word in words {
            if word.contains('\0') {
                return Err(PlanError::nul("mount option", word));
            }
            if let Some(change) = Propagation::parse(word) {
                propagation.push(change);
            } else if attributes.apply(word) {
                // For a new file system the superblock must know too, as mount(2) with MS_RDONLY would tell it.
                if matches!(word.as_str(), "ro" | "rw") {
                    options.push((word.clone(), None));
                }
            } else if word.strip_prefix('r').is_some_and(|rest| recursive_attributes.apply(rest)) {
            } else {
                match word.as_str() {
                    "bind" => bind = bind.or(Some(false)),
                    "rbind" => bind = Some(true),
                    "defaults" | "loud" | "silent" | "iversion" | "noiversion" | "acl" | "noacl" | "" => {}
                    "remount" => remount = true,
                    "tmpcopyup" => copy_up = true,
                    "idmap" => idmap = idmap.or(Some(false)),
                    "ridmap" => idmap = Some(true),
                    // Words of other runtimes' own: as options they would be refused with less to say.
                    "copy-symlink" | "src-nofollow" | "dest-nofollow" => {
                        return Err(PlanError::Unsupported(format!(
                            "mount option {word} of {}",
                            destination.display()
                        )));
                    }
                    word => options.push(match word.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (word.to_owned(), None),
                    }),
                }
            }
        }
        let typ = mount.typ().as_deref().unwrap_or_default();
        let source = mount.source().clone().unwrap_or_default();
        if matches!(typ, "bind" | "rbind") {
            bind = bind.or(Some(typ == "rbind"));
        }
        let owners = owners(mount, idmap)?;
        let invalid =
            |text: &str| Err(PlanError::Invalid(format!("mount on {} {text}", destination.display())));
        if owners.is_some() && (bind.is_none() || remount) {
            return invalid("shows other owners, which only a bind can do");
        }
        if copy_up && (typ != "tmpfs" || bind.is_some() || remount) {
            return invalid("has tmpcopyup, which is for a new tmpfs");
        }
        let source = match bind {
            _ if remount => {
                // With bind only the mount changes, not what it shows (mount(2), MS_REMOUNT).
                MountSource::Remount { options: if bind.is_some() { Vec::new() } else { options } }
            }
            // Further options are dropped: the kernel ignores data on a bind, and other runtimes rely on that.
            Some(recursive) => {
                if !source.is_absolute() {
                    return Err(PlanError::Invalid(format!(
                        "bind mount on {} has the source {:?}, which is not an absolute path",
                        destination.display(),
                        source
                    )));
                }
                MountSource::Bind { path: source, recursive }
            }
            None if typ.is_empty() || typ == "none" => {
                return Err(PlanError::Invalid(format!(
                    "mount on {} has neither a type nor a bind option",
                    destination.display()
                )));
            }
            None => MountSource::Filesystem {
                // The guest is cgroup v2 only; the OCI word for either version is "cgroup".
                fstype: if typ == "cgroup" { "cgroup2".into() } else { typ.to_owned() },
                source: if source.as_os_str().is_empty() { typ.to_owned() } else { text(&source)? },
                options,
            },
        };
        let keeps_mode = matches!(&source, MountSource::Filesystem { fstype, options, .. }
            if fstype == "tmpfs" && options.iter().all(|(name, _)| name != "mode"));
        Ok(MountPlan {
            destination,
            source,
            attributes,
            recursive_attributes,
            propagation,
            copy_up,
            keeps_mode,
            owners,
            foreign: None,
        })
    }

    /// Notes whose namespace a file system shows in a container with a user namespace of its own.
    pub(super) fn within(mut self, namespaces: &NamespacePlan) -> MountPlan {
        let MountSource::Filesystem { fstype, .. } = &self.source else { return self };
        let kind = match fstype.as_str() {
            "sysfs" => NamespaceKind::Network,
            "mqueue" => NamespaceKind::Ipc,
            "proc" => NamespaceKind::Pid,
            "cgroup2" => NamespaceKind::Cgroup,
            _ => return self,
        };
        // One that is made together with the container is made inside its user namespace. Of one that is joined, the owner
        // is not known; the guest's root owns them all.
        let is_foreign = namespaces.has(NamespaceKind::User) && !namespaces.is_new(kind);
        self.foreign = is_foreign.then_some(kind);
        self
    }

    /// Whether this mounts procfs or sysfs, whose destination must not be reached through a link.
    pub fn is_kernel_view(&self) -> bool {
        matches!(&self.source, MountSource::Filesystem { fstype, .. } if fstype == "proc" || fstype == "sysfs")
    }
}

/// Whose a mount's files show to be. Mappings without the word mean it too, as other runtimes read them.
fn owners(mount: &Mount, idmap: Option<bool>) -> Result<Option<Owners>, PlanError> {
    let (uids, gids) = (mount.uid_mappings().as_ref(), mount.gid_mappings().as_ref());
    let mappings = IdMappings::of_spec(&format!("mount on {}", mount.destination().display()), uids, gids)?;
    if mappings.uids.is_empty() != mappings.gids.is_empty() {
        return Err(PlanError::Invalid(format!(
            "mount on {} has only one of uidMappings and gidMappings",
            mount.destination().display()
        )));
    }
    let mappings = (!mappings.is_empty()).then_some(mappings);
    Ok((idmap.is_some() || mappings.is_some())
        .then(|| Owners { mappings, recursive: idmap.unwrap_or(false) }))
}

/// Checks a path inside the container: absolute, no `..`, no NUL. A relative one counts from `/`, as older
/// configurations rely on (runtime-spec, "destination").
pub(super) fn container_path(path: &Path) -> Result<PathBuf, PlanError> {
    text(path)?;
    if path.as_os_str().is_empty() {
        return Err(PlanError::Invalid("a path in the container is empty".into()));
    }
    let mut clean = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => clean.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(PlanError::Invalid(format!("the path {} contains \"..\"", path.display())));
            }
        }
    }
    Ok(clean)
}

fn text(path: &Path) -> Result<String, PlanError> {
    let text = path.to_string_lossy().into_owned();
    if text.contains('\0') { Err(PlanError::nul("path", &text)) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::MountBuilder;
    use proptest::prelude::*;

    fn plan(typ: &str, source: &str, options: &[&str]) -> Result<MountPlan, PlanError> {
        let mount = MountBuilder::default()
            .destination("/x/./y/")
            .typ(typ)
            .source(source)
            .options(options.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
            .build()
            .unwrap();
        MountPlan::of_spec(&mount)
    }

    #[test]
    fn words_are_sorted_into_attributes_propagation_and_options() {
        let got = plan(
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=64k", "ro", "rslave", "noswap"],
        )
        .unwrap();
        assert_eq!(got.destination, Path::new("/x/y"));
        assert_eq!(got.attributes, MountAttributes { set: RDONLY | NOSUID | STRICTATIME, clear: ATIME_MASK });
        assert_eq!(got.propagation, [Propagation { mode: PropagationMode::Slave, recursive: true }]);
        let MountSource::Filesystem { options, .. } = got.source else { panic!("{got:?}") };
        let names: Vec<_> = options.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        assert_eq!(names, [("mode", Some("755")), ("size", Some("64k")), ("ro", None), ("noswap", None)]);
    }

    #[test]
    fn a_later_word_wins() {
        let got = plan("bind", "/src", &["ro", "rw", "noexec", "exec", "noatime", "relatime"]).unwrap();
        assert_eq!(got.attributes, MountAttributes { set: 0, clear: RDONLY | NOEXEC | ATIME_MASK });
        assert_eq!(got.source, MountSource::Bind { path: "/src".into(), recursive: false });
    }

    #[test]
    fn recursive_words_stay_apart() {
        let got = plan("none", "/src", &["rbind", "rro", "nodev"]).unwrap();
        assert_eq!(got.recursive_attributes.set, RDONLY);
        assert_eq!(got.attributes.set, NODEV);
        assert_eq!(got.source, MountSource::Bind { path: "/src".into(), recursive: true });
    }

    #[test]
    fn cgroup_means_version_two() {
        let got = plan("cgroup", "cgroup", &["ro"]).unwrap();
        assert!(matches!(got.source, MountSource::Filesystem { fstype, .. } if fstype == "cgroup2"));
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        assert!(plan("", "", &[]).unwrap_err().to_string().contains("neither a type nor a bind"));
        assert!(plan("bind", "relative", &[]).unwrap_err().to_string().contains("not an absolute path"));
        assert!(plan("proc", "t", &["tmpcopyup"]).unwrap_err().to_string().contains("tmpcopyup"));
        assert!(plan("tmpfs", "t", &["idmap"]).unwrap_err().to_string().contains("only a bind"));
        assert!(plan("bind", "/t", &["copy-symlink"]).unwrap_err().to_string().contains("copy-symlink"));
        assert!(container_path(Path::new("/a/../b")).is_err());
        assert_eq!(container_path(Path::new("/a..b")).unwrap(), Path::new("/a..b"));
    }

    proptest! {
        #[test]
        fn no_list_of_words_panics(words in prop::collection::vec("[a-z=0-9,]{0,12}", 0..8)) {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // Any answer will do; the property is that there is one.
            drop(plan("tmpfs", "tmpfs", &words));
        }

        #[test]
        fn a_container_path_never_climbs(path in "[a./]{1,20}") {
            if let Ok(clean) = container_path(Path::new(&path)) {
                prop_assert!(clean.is_absolute());
                prop_assert!(clean.components().all(|part| part != Component::ParentDir));
            }
        }
    }
}
