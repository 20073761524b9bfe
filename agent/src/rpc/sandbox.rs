//! The sandbox's calls.

use std::sync::Arc;

use protocols::agent::CreateSandboxRequest;

use super::status::Failure;
use super::validate;
use crate::app::Agent;

pub(super) async fn create(agent: &Arc<Agent>, request: CreateSandboxRequest) -> Result<(), Failure> {
    let request = validate::sandbox(request)?;
    Ok(agent.create_sandbox(request).await?)
}

pub(super) async fn destroy(agent: &Arc<Agent>) -> Result<(), Failure> {
    Ok(agent.destroy_sandbox().await?)
}
