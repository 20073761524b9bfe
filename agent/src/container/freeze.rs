//! Pauses and resumes a container by the freezer of its cgroup, and changes its limits while it lives.

use std::sync::Arc;
use std::time::Duration;

use oci_spec::runtime::LinuxResources;

use super::body::Body;
use super::error::ContainerError;
use super::shared::Shared;
use super::state::State;

/// How long all processes may take to stand still. One in an uninterruptible sleep can take its device's time.
const DEADLINE: Duration = Duration::from_secs(10);

/// Freezes every process. A container that cannot be frozen in time runs on.
pub(super) async fn pause(shared: &Arc<Shared>, body: &mut Body) -> Result<(), ContainerError> {
    shared.expect(&[State::Created, State::Running], "pause it")?;
    let before = shared.state();
    shared.on_cgroup("pause it", |cgroup| cgroup.freeze(DEADLINE)).await?;
    body.before_pause = Some(before);
    shared.set_state(State::Paused);
    Ok(())
}

/// Lets the processes of a paused container go on.
pub(super) async fn resume(shared: &Arc<Shared>, body: &mut Body) -> Result<(), ContainerError> {
    shared.expect(&[State::Paused], "resume it")?;
    shared.on_cgroup("resume it", |cgroup| cgroup.thaw(DEADLINE)).await?;
    shared.set_state(body.before_pause.take().unwrap_or(State::Running));
    Ok(())
}

/// Changes limits; those that the request leaves out stay.
pub(super) async fn update(shared: &Arc<Shared>, resources: LinuxResources) -> Result<(), ContainerError> {
    shared.expect(&[State::Created, State::Running, State::Paused], "update it")?;
    let warnings = shared
        .on_cgroup("update it", move |cgroup| {
            if let Some(rules) = resources.devices().as_deref().filter(|rules| !rules.is_empty()) {
                cgroup.apply_devices(rules)?;
            }
            cgroup.apply(&resources)
        })
        .await?;
    for warning in warnings {
        tracing::warn!(container_id = %shared.id, %warning, "a resource limit was changed");
    }
    Ok(())
}
