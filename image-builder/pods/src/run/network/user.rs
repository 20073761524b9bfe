//! The guest's way out: QEMU's user-mode network, set up through the agent as a shim would.
//!
//! The addresses are the ones QEMU gives out (its documentation, "user mode network stack").

use protocols::types::{IPAddress, Interface, Route};

use crate::run::RunError;
use machine::vm::{AgentClient, MAC};

/// A line of `resolv.conf`: QEMU's own forwarder.
pub(super) const NAMESERVER: &str = "nameserver 10.0.2.3";
/// The guest's address.
pub(super) const ADDRESS: &str = "10.0.2.15";
/// The host's.
pub(super) const GATEWAY: &str = "10.0.2.2";
const DEVICE: &str = "eth0";

/// Gives the guest's interface its address and its default route.
pub(super) async fn configure(client: &AgentClient) -> Result<(), RunError> {
    super::configure::configure(client, &interface(), &[default_route()], &[]).await
}

fn interface() -> Interface {
    Interface {
        device: DEVICE.to_owned(),
        name: DEVICE.to_owned(),
        IPAddresses: vec![IPAddress {
            address: ADDRESS.to_owned(),
            mask: "24".to_owned(),
            ..Default::default()
        }],
        mtu: 1500,
        hwAddr: MAC.to_owned(),
        ..Default::default()
    }
}

fn default_route() -> Route {
    Route { gateway: GATEWAY.to_owned(), device: DEVICE.to_owned(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_found_by_the_address_qemu_gives_it() {
        let interface = interface();
        assert_eq!((interface.hwAddr.as_str(), interface.IPAddresses[0].mask.as_str()), (MAC, "24"));
        assert!(default_route().dest.is_empty(), "no destination means the default route");
    }
}
