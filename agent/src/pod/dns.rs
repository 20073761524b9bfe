//! The pod's `resolv.conf`.

use std::path::Path;

use super::error::PodError;

/// Writes the pod's `resolv.conf`, and makes it the guest's own where that has one.
pub(super) fn write_resolv_conf(lines: &[String], directory: &Path) -> Result<(), PodError> {
    if lines.is_empty() {
        return Ok(());
    }
    let text = lines.iter().fold(String::new(), |text, line| text + line.trim() + "\n");
    let write = |path: &Path| {
        std::fs::write(path, &text)
            .map_err(|source| PodError::Write { path: path.display().to_string(), source })
    };
    std::fs::create_dir_all(directory)
        .map_err(|source| PodError::Write { path: directory.display().to_string(), source })?;
    let pods = directory.join("resolv.conf");
    write(&pods)?;
    let own = Path::new("/etc/resolv.conf");
    if !own.exists() || nix::unistd::getpid().as_raw() != 1 {
        return Ok(());
    }
    match write(own) {
        // The guest's root is a disk that nobody writes to.
        Err(PodError::Write { source, path }) if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
            rustix::mount::mount_bind(&pods, own)
                .map_err(|errno| PodError::Write { path, source: errno.into() })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_lines_are_trimmed_and_joined() {
        let dir = tempfile::tempdir().unwrap();
        write_resolv_conf(&[" nameserver 10.0.0.2 ".into(), "search a b".into()], dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("resolv.conf")).unwrap();
        assert_eq!(text, "nameserver 10.0.0.2\nsearch a b\n");
    }
}
