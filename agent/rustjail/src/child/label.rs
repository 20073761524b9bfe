//! Labels of security modules.
//!
//! A label is written to `attr/exec` and counts at the next `execve` (`apparmor_parser(8)`, `selinux(8)`). The file is
//! opened in the guest's own `/proc`, before the container's root could show another one there.

use std::fs::File;
use std::io::Write as _;

use rustix::io::Errno;

use super::{Step, fail, refuse};
use crate::plan::Attributes;
use crate::start::message::Failure;

/// Where labels will be written.
pub(super) struct Labels {
    files: Vec<(File, String, String)>,
}

/// Opens what the process's labels need.
///
/// # Errors
/// For a label of a module that this kernel does not have.
pub(super) fn open(attributes: &Attributes) -> Step<Labels> {
    let mut files = Vec::new();
    if let Some(profile) = &attributes.apparmor_profile {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        if enabled.trim() != "Y" {
            return Err(missing("AppArmor profile", profile, "AppArmor"));
        }
        // With several modules each has its own directory (LSM usage, "/proc/PID/attr").
        let file = writable("/proc/self/attr/apparmor/exec").or_else(|_| writable("/proc/self/attr/exec"));
        let file = file.map_err(|error| fail("open AppArmor's attr/exec", error))?;
        files.push((file, format!("exec {profile}"), format!("AppArmor profile {profile}")));
    }
    if let Some(label) = &attributes.selinux_label {
        let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        if !known.lines().any(|line| line.ends_with("selinuxfs")) {
            return Err(missing("SELinux label", label, "SELinux"));
        }
        let file =
            writable("/proc/self/attr/exec").map_err(|error| fail("open SELinux's attr/exec", error))?;
        files.push((file, label.clone(), format!("SELinux label {label}")));
    }
    Ok(Labels { files })
}

impl Labels {
    /// Gives the program its labels.
    pub(super) fn write(&mut self) -> Step<()> {
        for (file, text, what) in &mut self.files {
            file.write_all(text.as_bytes()).map_err(|error| refuse(format!("set the {what}"), error))?;
        }
        Ok(())
    }
}

fn writable(path: &str) -> std::io::Result<File> {
    File::options().write(true).open(path)
}

fn missing(what: &str, label: &str, module: &str) -> Failure {
    Failure {
        step: format!("set the {what} {label}"),
        reason: format!("this kernel has no {module}"),
        errno: Some(Errno::OPNOTSUPP.raw_os_error()),
        invalid: true,
    }
}
