//! Addresses and routes for the guest's card, through the agent as a shim gives them.

use protobuf::MessageField;
use protocols::agent::{
    ARPNeighbors, AddARPNeighborsRequest, Routes, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use protocols::types::{ARPNeighbor, Interface, Route};

use crate::run::error::RunError;
use machine::vm::AgentClient;

/// Has the guest's card become an interface.
pub(super) async fn configure(
    client: &AgentClient,
    interface: &Interface,
    routes: &[Route],
    neighbours: &[ARPNeighbor],
) -> Result<(), RunError> {
    let link = interface.name.as_str();
    let request =
        UpdateInterfaceRequest { interface: MessageField::some(interface.clone()), ..Default::default() };
    let updated = client.agent.update_interface(AgentClient::call(), &request).await;
    updated.map_err(RunError::call("UpdateInterface", link))?;
    if !routes.is_empty() {
        let routes = Routes { Routes: routes.to_vec(), ..Default::default() };
        let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
        let updated = client.agent.update_routes(AgentClient::call(), &request).await;
        updated.map_err(RunError::call("UpdateRoutes", link))?;
    }
    if !neighbours.is_empty() {
        let neighbours = ARPNeighbors { ARPNeighbors: neighbours.to_vec(), ..Default::default() };
        let request =
            AddARPNeighborsRequest { neighbors: MessageField::some(neighbours), ..Default::default() };
        let added = client.agent.add_arp_neighbors(AgentClient::call(), &request).await;
        added.map_err(RunError::call("AddARPNeighbors", link))?;
    }
    Ok(())
}
