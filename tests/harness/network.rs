//! Links as a shim would ask for them.

use machine::vm::MAC;
use protocols::types;

/// An address with its prefix length.
pub fn address(address: &str, mask: &str) -> types::IPAddress {
    types::IPAddress { address: address.into(), mask: mask.into(), ..Default::default() }
}

/// The guest's only network card, found by its hardware address, as `eth0` with an address and a small MTU.
pub fn link() -> types::Interface {
    types::Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        hwAddr: MAC.into(),
        mtu: 1400,
        IPAddresses: vec![address("10.0.2.15", "24")],
        ..Default::default()
    }
}
