//! Entries of the neighbour tables (ARP, NDP), which a host sets so that the guest need not ask.

use std::net::IpAddr;
use std::path::Path;

use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourState};

use super::Session;
use super::address::HardwareAddress;
use super::error::{During as _, NetworkError};
use super::link;

/// Who has an address on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The address.
    pub address: IpAddr,
    /// Name of the link.
    pub device: String,
    /// Whose it is; none leaves that to be found out.
    pub hw_addr: Option<HardwareAddress>,
    /// The kernel's NUD_ state; 0 is taken for permanent.
    pub state: u16,
    /// The kernel's NTF_ flags.
    pub flags: u8,
}

/// Adds or replaces entries, in order; what was added before a failure stays.
pub(super) async fn add(session: &Session, wanted: &[Neighbour], proc: &Path) -> Result<(), NetworkError> {
    for neighbour in wanted {
        let index = link::index_of(session, &neighbour.device).await?;
        if neighbour.address.is_ipv6() && !link::ipv6_usable(proc, &neighbour.device) {
            tracing::warn!(
                address = %neighbour.address,
                link = neighbour.device,
                "neighbour left out: the guest has no IPv6 on this link"
            );
            continue;
        }
        let state = match neighbour.state {
            0 => NeighbourState::Permanent,
            other => NeighbourState::from(other),
        };
        let mut request = session.handle.neighbours().add(index, neighbour.address).state(state).replace();
        request = request.flags(NeighbourFlags::from_bits_retain(neighbour.flags));
        if let Some(hw_addr) = &neighbour.hw_addr {
            request = request.link_layer_address(hw_addr.as_bytes());
        }
        let entry = || format!("add neighbour {} on {}", neighbour.address, neighbour.device);
        request.execute().await.during(entry)?;
    }
    Ok(())
}
