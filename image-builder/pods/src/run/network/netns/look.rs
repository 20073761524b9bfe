//! Reads the link, addresses, routes and neighbours of a network namespace, which the guest gets.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteType, RouteVia,
};
use protocols::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};
use rtnetlink::Handle;

use super::super::NetworkError;

/// A link with all that belongs to it, as the agent is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    /// The kernel's number of the link.
    pub(super) index: u32,
    pub(super) interface: Interface,
    pub(super) routes: Vec<Route>,
    pub(super) neighbours: Vec<ARPNeighbor>,
}

/// Looks at a namespace: at the link with this name, or else at the only one with addresses.
pub(super) async fn at(handle: &Handle, namespace: &str, link: Option<&str>) -> Result<Look, NetworkError> {
    let failed = |what: &str| {
        let operation = format!("list {what} of network namespace {namespace}");
        move |error| NetworkError::netlink(operation, error)
    };
    let links: Vec<LinkMessage> =
        handle.link().get().execute().try_collect().await.map_err(failed("the links"))?;
    let addresses: Vec<AddressMessage> =
        handle.address().get().execute().try_collect().await.map_err(failed("the addresses"))?;
    let link = pick(namespace, &links, &addresses, link)?;
    let index = link.header.index;
    let mut interface = interface(link);
    interface.IPAddresses = addresses.iter().filter_map(|message| address(message, index)).collect();
    let name = interface.name.clone();

    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let found: Vec<RouteMessage> =
            handle.route().get(query).execute().try_collect().await.map_err(failed("the routes"))?;
        routes.extend(found.into_iter().filter_map(|message| route(message, index, &name)));
    }
    let neighbours: Vec<NeighbourMessage> =
        handle.neighbours().get().execute().try_collect().await.map_err(failed("the neighbours"))?;
    let neighbours = neighbours.into_iter().filter_map(|message| neighbour(message, index, &name)).collect();
    Ok(Look { index, interface, routes, neighbours })
}

/// The link that the guest gets.
fn pick<'a>(
    namespace: &str,
    links: &'a [LinkMessage],
    addresses: &[AddressMessage],
    wanted: Option<&str>,
) -> Result<&'a LinkMessage, NetworkError> {
    let wrong = |problem: String| NetworkError::Link { namespace: namespace.to_owned(), problem };
    let has_address =
        |link: &LinkMessage| addresses.iter().any(|message| address(message, link.header.index).is_some());
    let is_loopback = |link: &LinkMessage| link.header.flags.contains(LinkFlags::Loopback);
    let candidates: Vec<&LinkMessage> = match wanted {
        Some(wanted) => links.iter().filter(|link| name(link) == wanted).collect(),
        None => links.iter().filter(|link| !is_loopback(link) && has_address(link)).collect(),
    };
    let link = match (candidates.as_slice(), wanted) {
        ([link], _) => *link,
        ([], Some(wanted)) => return Err(wrong(format!("has no link {wanted}"))),
        ([], None) => return Err(wrong("has no link with an address beside its loopback".to_owned())),
        (several, _) => {
            let names: Vec<&str> = several.iter().map(|link| name(link)).collect();
            return Err(wrong(format!(
                "has several links with addresses ({}); name one as netns={namespace}/LINK",
                names.join(", ")
            )));
        }
    };
    let name = name(link);
    if is_loopback(link) || link.header.link_layer_type != LinkLayerType::Ether {
        return Err(wrong(format!(
            "has a link {name} that does not carry Ethernet frames, which the guest's card does"
        )));
    }
    if !link.header.flags.contains(LinkFlags::Up) {
        return Err(wrong(format!("has its link {name} down; `ip -n {namespace} link set {name} up`")));
    }
    Ok(link)
}

fn name(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn interface(link: &LinkMessage) -> Interface {
    let name = name(link).to_owned();
    let mut interface = Interface { device: name.clone(), name, ..Interface::default() };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => interface.hwAddr = hardware_address(bytes),
            LinkAttribute::Mtu(mtu) => interface.mtu = u64::from(*mtu),
            _ => {}
        }
    }
    interface.raw_flags = (link.header.flags & LinkFlags::Noarp).bits();
    interface
}

fn hardware_address(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

fn family(address: IpAddr) -> IPFamily {
    if address.is_ipv4() { IPFamily::v4 } else { IPFamily::v6 }
}

/// An address that the guest cannot make itself: link-local ones it does.
fn address(message: &AddressMessage, link: u32) -> Option<IPAddress> {
    let scope = message.header.scope;
    if message.header.index != link || !matches!(scope, AddressScope::Universe | AddressScope::Site) {
        return None;
    }
    // On a point-to-point link the other attribute is the peer's.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let own = local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    Some(IPAddress {
        family: family(own).into(),
        address: own.to_string(),
        mask: message.header.prefix_len.to_string(),
        ..IPAddress::default()
    })
}

/// A unicast route of the main table through the link. Those of the kernel come with the addresses, and those of
/// routers' announcements the guest hears itself.
fn route(message: RouteMessage, link: u32, device: &str) -> Option<Route> {
    let header = &message.header;
    let of_others = matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra);
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast || of_others {
        return None;
    }
    let is_v4 = header.address_family == AddressFamily::Inet;
    let mut route = Route {
        device: device.to_owned(),
        family: (if is_v4 { IPFamily::v4 } else { IPFamily::v6 }).into(),
        scope: u32::from(u8::from(header.scope)),
        flags: (header.flags & RouteFlags::Onlink).bits(),
        ..Route::default()
    };
    let (length, mut through) = (header.destination_prefix_length, None);
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => through = Some(index),
            RouteAttribute::Destination(to) if length > 0 => route.dest = format!("{}/{length}", ip(&to)?),
            RouteAttribute::Gateway(gateway) => route.gateway = ip(&gateway)?.to_string(),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = gateway.to_string(),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = gateway.to_string(),
            RouteAttribute::PrefSource(source) => route.source = ip(&source)?.to_string(),
            RouteAttribute::Metrics(metrics) => {
                let mtu = metrics.into_iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(mtu),
                    _ => None,
                });
                route.mtu = mtu.unwrap_or_default();
            }
            _ => {}
        }
    }
    (through == Some(link)).then_some(route)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// A neighbour that somebody wrote down; the others the guest finds itself.
fn neighbour(message: NeighbourMessage, link: u32, device: &str) -> Option<ARPNeighbor> {
    if message.header.ifindex != link || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut to, mut lladdr) = (None, String::new());
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                to = Some(IpAddr::from(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                to = Some(IpAddr::from(*address));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = hardware_address(bytes),
            _ => {}
        }
    }
    let to = to?;
    let address = IPAddress { family: family(to).into(), address: to.to_string(), ..IPAddress::default() };
    Some(ARPNeighbor {
        toIPAddress: protobuf::MessageField::some(address),
        device: device.to_owned(),
        lladdr,
        state: i32::from(u16::from(message.header.state)),
        flags: i32::from(message.header.flags.bits()),
        ..ARPNeighbor::default()
    })
}

#[cfg(test)]
#[path = "look_test.rs"]
mod tests;
