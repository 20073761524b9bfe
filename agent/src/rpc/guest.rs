//! What the guest is.

use protocols::agent::{AgentDetails, GuestDetailsRequest, GuestDetailsResponse};

use super::status::Failure;
use crate::guest::details::{Details, VERSION};
use crate::storage;

pub(super) fn details(request: &GuestDetailsRequest) -> Result<GuestDetailsResponse, Failure> {
    let details = Details::new("/sys");
    let agent = AgentDetails {
        version: VERSION.to_owned(),
        init_daemon: init::is_pid1(),
        storage_handlers: storage::driver_names().into_iter().map(str::to_owned).collect(),
        ..Default::default()
    };
    Ok(GuestDetailsResponse {
        mem_block_size_bytes: if request.mem_block_size { details.memory_block_size()? } else { 0 },
        support_mem_hotplug_probe: request.mem_hotplug_probe && details.memory_probe(),
        agent_details: Some(agent).into(),
        ..Default::default()
    })
}
