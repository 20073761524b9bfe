//! The Health service.

use async_trait::async_trait;
use protocols::health::{
    CheckRequest, HealthCheckResponse, VersionCheckResponse, health_check_response::ServingStatus,
};
use protocols::health_ttrpc::Health;
use ttrpc::r#async::TtrpcContext;

use crate::guest::details::VERSION;

/// Answers as long as the agent's thread turns.
pub(super) struct HealthService;

#[async_trait]
impl Health for HealthService {
    async fn check(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<HealthCheckResponse> {
        Ok(HealthCheckResponse { status: ServingStatus::SERVING.into(), ..Default::default() })
    }

    async fn version(&self, _: &TtrpcContext, _: CheckRequest) -> ttrpc::Result<VersionCheckResponse> {
        Ok(VersionCheckResponse {
            grpc_version: super::API_VERSION.to_owned(),
            agent_version: VERSION.to_owned(),
            ..Default::default()
        })
    }
}
