//! The sandbox's calls.

use std::sync::Arc;

use protocols::agent::{CreateSandboxRequest, UpdateEphemeralMountsRequest};

use super::on_a_thread;
use super::status::Failure;
use super::validate;
use crate::container::Tools;
use crate::pod::Pod;
use crate::storage::{self, Storage};

pub(super) async fn create(pod: &Pod, request: CreateSandboxRequest) -> Result<(), Failure> {
    let request = validate::sandbox(request)?;
    Ok(pod.create(request).await?)
}

pub(super) async fn destroy(pod: &Pod) -> Result<(), Failure> {
    Ok(pod.destroy().await?)
}

pub(super) async fn update_storages(
    tools: Arc<Tools>,
    request: UpdateEphemeralMountsRequest,
) -> Result<(), Failure> {
    let storages: Vec<Storage> = request.storages.into_iter().map(validate::storage).collect();
    on_a_thread(move || Ok(tools.storages.update(&storages)?)).await
}

pub(super) async fn touch_shares(tools: Arc<Tools>) -> Result<(), Failure> {
    let touch = move || storage::touch_mounts(&tools.paths.shared());
    let touched = on_a_thread(move || touch().map_err(|error| Failure::internal(error.to_string()))).await?;
    tracing::debug!(mounts = touched, "stale shares were asked for");
    Ok(())
}
