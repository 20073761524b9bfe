//! What is decided of a container's control group, as a tree: for golden files and fuzzing.
//!
//! Must never: be part of the agent.

use oci_spec::runtime::{Linux, LinuxResources};
use serde::Deserialize;
use serde_json::{Value, json};

use super::limits::{Absent, Now};
use super::{CgroupPath, Error, devices, limits};

/// Stands for the container's id where the path comes from it.
const ID: &str = "c1";

/// What the control files hold; as [`Now`], which it becomes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Present {
    memory_max: Option<u64>,
    swap_max: Option<u64>,
    memory_current: u64,
    cpu_quota: Option<u64>,
    has_bfq: bool,
}

/// Path, writes, warnings and device rules.
///
/// # Errors
/// As of [`super::Cgroup::create`], [`super::Cgroup::apply`] and [`super::Cgroup::apply_devices`], in this order.
pub(crate) fn of_linux(linux: Option<&Linux>, present: &Present) -> Result<Value, Error> {
    let path = linux.and_then(|linux| linux.cgroups_path().as_ref()).map(|path| path.to_string_lossy());
    let path = CgroupPath::parse(path.as_deref().unwrap_or_default(), ID)?;
    let nothing = LinuxResources::default();
    let resources = linux.and_then(|linux| linux.resources().as_ref()).unwrap_or(&nothing);
    let now = Now {
        memory_max: present.memory_max,
        swap_max: present.swap_max,
        memory_current: present.memory_current,
        cpu_quota: present.cpu_quota,
        has_bfq: present.has_bfq,
    };
    let plan = limits::plan(resources, &now)?;
    let settings = plan.settings.iter().map(|setting| {
        let absent = match setting.absent {
            Absent::Refuse => "else refused".to_owned(),
            Absent::Satisfied => "else fine".to_owned(),
            Absent::Warn(reason) => format!("else warned: {reason}"),
        };
        format!("{}={} ({absent})", setting.file, setting.value)
    });
    let warnings = plan.warnings.iter().map(ToString::to_string);
    let devices = devices::outcome(resources.devices().as_deref().unwrap_or_default())?;
    Ok(json!({
        "path": path.to_string(),
        "settings": settings.collect::<Vec<_>>(),
        "warnings": warnings.collect::<Vec<_>>(),
        "devices": devices,
    }))
}
