//! Certificates that the programs of a container are to trust: appended to the image's own store.
//!
//! What was installed before is known by a file of its own, from which the image's tools make the store anew as well. So the
//! bundle of one call takes the place of the one before.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::rooted::{self, FileError, Root};
use crate::container::ContainerHandle;

/// How a certificate begins.
pub(super) const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// Stores of certificates: of Debian, Alpine and Arch; of Fedora; of SUSE; of OpenSSL's own default. Some are links to others.
const STORES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// What was installed, where `update-ca-certificates` finds it when it makes the store anew; that of envd.
const INSTALLED: &str = "/usr/local/share/ca-certificates/e2b-ca.crt";
/// Most bytes of a store.
const LARGEST: u64 = 16 << 20;

/// Has a container's programs trust what is in `bundle`. An image without a store gets one. Blocks.
pub(super) fn trust(container: &ContainerHandle, bundle: &str) -> io::Result<()> {
    install(container.root()?, bundle).map_err(io::Error::other)
}

fn install(root: OwnedFd, bundle: &str) -> Result<(), FileError> {
    let root = Root::new(Arc::new(root));
    let bundle = format!("{}\n", bundle.trim_end());
    let before = read(&root, INSTALLED)?.filter(|before| before.contains(BEGIN));
    let mut is_installed = false;
    for path in STORES {
        let Some(store) = read(&root, path)? else { continue };
        is_installed = true;
        let mut wanted = match &before {
            Some(before) if *before != bundle => store.replace(before.as_str(), ""),
            _ => store.clone(),
        };
        if !wanted.contains(&bundle) {
            if !wanted.is_empty() && !wanted.ends_with('\n') {
                wanted.push('\n');
            }
            wanted.push_str(&bundle);
        }
        if wanted != store {
            replace(&root, path, &wanted)?;
        }
    }
    if !is_installed {
        replace(&root, STORES[0], &bundle)?;
    }
    // Last: what was installed before is known until it is gone.
    if before.as_deref() == Some(bundle.as_str()) { Ok(()) } else { replace(&root, INSTALLED, &bundle) }
}

/// A file's text; none if it is not there.
fn read(root: &Root, path: &str) -> Result<Option<String>, FileError> {
    let file = match root.read(path) {
        Err(FileError::Missing(_)) => return Ok(None),
        file => file?.0,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(FileError::during("read", path))?;
    if bytes.len() as u64 > LARGEST {
        return Err(FileError::Exhausted(format!("'{path}' has more than {} MiB", LARGEST >> 20)));
    }
    // A store may have comments in any encoding; it is written back only where it is understood.
    String::from_utf8(bytes).map(Some).map_err(|_| FileError::Invalid(format!("'{path}' is no UTF-8")))
}

/// Writes a store anew. Of a link, what it leads to is written.
fn replace(root: &Root, path: &str, text: &str) -> Result<(), FileError> {
    let real = root.find(path, true).ok().and_then(|found| root.path_of(&found.fd));
    rooted::replace(root, real.as_deref().unwrap_or(path), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn certificate(name: &str) -> String {
        format!("{BEGIN}\n{name}\n-----END CERTIFICATE-----\n")
    }

    fn installed(dir: &Path, bundle: &str) {
        install(std::fs::File::open(dir).unwrap().into(), bundle).unwrap();
    }

    #[test]
    fn a_bundle_is_appended_once_and_the_next_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (certs, text) = (dir.path().join("etc/ssl/certs"), |name| std::fs::read_to_string(name).unwrap());
        std::fs::create_dir_all(&certs).unwrap();
        let store = certs.join("ca-certificates.crt");
        // As an image may have it: without an end of its last line, and with a link as its second name.
        std::fs::write(&store, certificate("own").trim_end()).unwrap();
        std::os::unix::fs::symlink("/etc/ssl/certs/ca-certificates.crt", dir.path().join("etc/ssl/cert.pem"))
            .unwrap();
        let (first, second) = (certificate("first"), certificate("second"));
        for _ in 0..2 {
            installed(dir.path(), first.trim_end());
            assert_eq!(text(&store), certificate("own") + &first);
        }
        installed(dir.path(), &second);
        assert_eq!(text(&store), certificate("own") + &second);
        assert_eq!(text(&dir.path().join(&INSTALLED[1..])), second);
        assert!(dir.path().join("etc/ssl/cert.pem").is_symlink());
        // Nothing is left over.
        assert_eq!(std::fs::read_dir(&certs).unwrap().count(), 1);
    }

    #[test]
    fn an_image_without_a_store_gets_one_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("../../outside", root.join("etc/ssl")).unwrap();
        std::fs::create_dir(root.join("outside")).unwrap();
        installed(&root, &certificate("first"));
        assert!(std::fs::read_dir(dir.path().join("outside")).unwrap().next().is_none());
        let store = root.join("outside/certs/ca-certificates.crt");
        assert_eq!(std::fs::read_to_string(store).unwrap(), certificate("first"));
        // What is no file is no store.
        let other = dir.path().join("other");
        std::fs::create_dir_all(other.join("etc/ssl/cert.pem")).unwrap();
        let failed = install(std::fs::File::open(&other).unwrap().into(), &certificate("first"));
        assert!(matches!(failed, Err(FileError::Directory(_))));
    }

    #[test]
    fn a_store_has_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("etc/ssl")).unwrap();
        std::fs::write(dir.path().join("etc/ssl/cert.pem"), vec![b'\n'; LARGEST as usize + 1]).unwrap();
        let failed = install(std::fs::File::open(dir.path()).unwrap().into(), &certificate("first"));
        assert!(matches!(failed, Err(FileError::Exhausted(_))));
    }
}
