//! Which system calls a container may make, as its profile says.

use std::io::Read as _;
use std::path::Path;

use oci_spec::runtime;
use protocols::oci;

use super::error::SpecError;
use crate::run::pod::{Container, Seccomp};
use store::plain;

/// What Docker gives a container that asks for nothing.
const USUAL: &str = include_str!("seccomp-default.json");
/// The most bytes of a profile.
const MAX_PROFILE: u64 = 1 << 20;

/// The filter of a container; none if it may make all calls.
pub(super) fn profile(container: &Container, base: &Path) -> Result<Option<oci::LinuxSeccomp>, SpecError> {
    let wrong = |profile: &str, problem: String| SpecError::Seccomp {
        container: container.name.clone(),
        profile: profile.to_owned(),
        problem,
    };
    // As container engines do: what may do everything is not filtered.
    if container.security.privileged {
        return Ok(None);
    }
    let (name, text) = match &container.security.seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => ("RuntimeDefault", USUAL.to_owned()),
        Seccomp::Localhost(file) => {
            let text = read(&base.join(file)).map_err(|error| wrong(file, error.to_string()))?;
            (file.as_str(), text)
        }
    };
    let parsed: Result<runtime::LinuxSeccomp, _> = serde_json::from_str(&text);
    let seccomp = parsed.map_err(|error| wrong(name, error.to_string()))?;
    let mut linux = runtime::Linux::default();
    linux.set_seccomp(Some(seccomp));
    let mut spec = runtime::Spec::default();
    spec.set_linux(Some(linux));
    Ok(protocols::spec::to_wire(&spec).Linux.into_option().and_then(|linux| linux.Seccomp.into_option()))
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    plain::open(path)?.take(MAX_PROFILE).read_to_string(&mut text)?;
    Ok(text)
}
