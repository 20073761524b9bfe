//! The sandbox's calls.

use std::sync::Arc;

use protocols::agent::{CreateSandboxRequest, UpdateEphemeralMountsRequest};

use super::on_a_thread;
use super::status::Failure;
use super::validate;
use crate::app::Agent;
use crate::storage::{self, Storage};

pub(super) async fn create(agent: &Arc<Agent>, request: CreateSandboxRequest) -> Result<(), Failure> {
    let request = validate::sandbox(request)?;
    Ok(agent.create_sandbox(request).await?)
}

pub(super) async fn destroy(agent: &Arc<Agent>) -> Result<(), Failure> {
    Ok(agent.destroy_sandbox().await?)
}

pub(super) async fn update_storages(
    agent: Arc<Agent>,
    request: UpdateEphemeralMountsRequest,
) -> Result<(), Failure> {
    let storages: Vec<Storage> = request.storages.into_iter().map(validate::storage).collect();
    on_a_thread(move || Ok(agent.storages.update(&storages)?)).await
}

pub(super) async fn touch_shares(agent: Arc<Agent>) -> Result<(), Failure> {
    let touch = move || storage::touch_mounts(&agent.paths.shared());
    let touched = on_a_thread(move || touch().map_err(|error| Failure::internal(error.to_string()))).await?;
    tracing::debug!(mounts = touched, "stale shares were asked for");
    Ok(())
}
