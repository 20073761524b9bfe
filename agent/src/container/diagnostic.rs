//! What a container leaves for those who ask why it ended: its termination message.
//!
//! Kubernetes mounts a file into the container, `/dev/termination-log` unless an annotation says otherwise. Where the host
//! does not share that file with the guest, the shim asks for its contents before it removes the container.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::file;

const PATH_ANNOTATION: &str = "io.kubernetes.container.terminationMessagePath";
const DEFAULT_PATH: &str = "/dev/termination-log";
/// Most bytes that are given, of the end: more than Kubernetes takes (4 KiB of one container, 12 KiB of a pod).
const LARGEST: u64 = 16 * 1024;

/// Where the message is for the agent: a root, and a path that is not to lead out of it.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    root: PathBuf,
    path: PathBuf,
}

fn message(spec: &Spec) -> Message {
    let annotations = spec.annotations().as_ref();
    let path = annotations.and_then(|all| all.get(PATH_ANNOTATION)).map_or(DEFAULT_PATH, String::as_str);
    let path = Path::new(path);
    let mounted = spec.mounts().iter().flatten().rfind(|mount| mount.destination() == path);
    match mounted.and_then(|mount| mount.source().clone()) {
        // What is mounted there is what the container wrote to; the mount is gone with the container's namespace.
        Some(source) => Message {
            root: source.parent().unwrap_or(Path::new("/")).to_owned(),
            path: source.file_name().map(PathBuf::from).unwrap_or_default(),
        },
        None => Message {
            root: spec.root().as_ref().map(|root| root.path().clone()).unwrap_or_default(),
            path: path.to_owned(),
        },
    }
}

/// The end of a container's termination message; empty where it left none. Blocks.
pub(super) fn termination_message(spec: &Spec) -> io::Result<String> {
    let Message { root, path } = message(spec);
    match read(&root, &path) {
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENOTDIR)) => {
            Ok(String::new())
        }
        other => other,
    }
}

fn read(root: &Path, path: &Path) -> io::Result<String> {
    // A volume's own directories may be links that the container made.
    let plain = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat2(CWD, root, flags, Mode::empty(), plain)?;
    let mut file = file::open(root, path)?;
    let status = file.metadata()?;
    file.seek(SeekFrom::Start(status.len().saturating_sub(LARGEST)))?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{MountBuilder, RootBuilder};
    use std::collections::HashMap;

    fn spec(root: &Path) -> Spec {
        let mut spec = Spec::default();
        spec.set_root(Some(RootBuilder::default().path(root).build().unwrap()));
        spec.set_mounts(None).set_annotations(None);
        spec
    }

    #[test]
    fn the_message_is_where_it_was_mounted_from_or_else_in_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = spec(dir.path());
        assert_eq!(termination_message(&spec).unwrap(), "");
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        std::fs::write(dir.path().join("dev/termination-log"), "in the root").unwrap();
        assert_eq!(termination_message(&spec).unwrap(), "in the root");
        let source = dir.path().join("message");
        std::fs::write(&source, "mounted").unwrap();
        let mount =
            MountBuilder::default().destination("/tmp/m").source(&source).typ("bind").build().unwrap();
        spec.set_mounts(Some(vec![mount]));
        assert_eq!(termination_message(&spec).unwrap(), "in the root");
        spec.set_annotations(Some(HashMap::from([(PATH_ANNOTATION.to_owned(), "/tmp/m".to_owned())])));
        assert_eq!(termination_message(&spec).unwrap(), "mounted");
    }

    #[test]
    fn a_message_is_bounded_and_a_trap_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("dev")).unwrap();
        let log = root.join("dev/termination-log");
        let text = "x".repeat(LARGEST as usize) + "the end";
        std::fs::write(&log, &text).unwrap();
        let read = termination_message(&spec(&root)).unwrap();
        assert_eq!(read.len(), LARGEST as usize);
        assert!(read.ends_with("the end"));
        std::fs::remove_file(&log).unwrap();
        std::fs::write(dir.path().join("secret"), "of the guest").unwrap();
        std::os::unix::fs::symlink("../../secret", &log).unwrap();
        assert_eq!(termination_message(&spec(&root)).unwrap(), "");
        std::fs::remove_file(&log).unwrap();
        std::fs::create_dir(&log).unwrap();
        assert!(termination_message(&spec(&root)).is_err());
        // In a volume, too: the container made a link of the directory that its message is mounted from.
        std::os::unix::fs::symlink(dir.path(), dir.path().join("volume")).unwrap();
        let source = dir.path().join("volume/secret");
        let mount = MountBuilder::default().destination(DEFAULT_PATH).source(source).typ("bind").build();
        let mut spec = spec(&root);
        spec.set_mounts(Some(vec![mount.unwrap()]));
        assert!(termination_message(&spec).is_err());
    }
}
