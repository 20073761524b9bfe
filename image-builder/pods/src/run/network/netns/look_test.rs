//! Links, addresses, routes and neighbours as the kernel has them, and what the agent is told of them.

use super::*;
use netlink_packet_route::route::RouteScope;

fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = flags;
    link.header.link_layer_type = LinkLayerType::Ether;
    link.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(1400),
        LinkAttribute::Address(vec![2, 0, 0, 0, 0xab, 7]),
    ];
    link
}

fn addressed(link: u32, text: &str, prefix: u8, scope: AddressScope) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = link;
    message.header.prefix_len = prefix;
    message.header.scope = scope;
    message.attributes.push(AddressAttribute::Address(text.parse().unwrap()));
    message
}

fn picked(links: &[LinkMessage], wanted: Option<&str>) -> Result<String, String> {
    let addresses = [
        addressed(1, "127.0.0.1", 8, AddressScope::Host),
        addressed(2, "10.1.0.2", 24, AddressScope::Universe),
        addressed(3, "fe80::1", 64, AddressScope::Link),
        addressed(4, "fd00::4", 64, AddressScope::Universe),
    ];
    pick("pod", links, &addresses, wanted)
        .map(|link| name(link).to_owned())
        .map_err(|error| error.to_string())
}

#[test]
fn the_only_link_with_an_address_is_taken_or_the_named_one() {
    let lo = link(1, "lo", LinkFlags::Up | LinkFlags::Loopback);
    let (eth0, bare, eth1) =
        (link(2, "eth0", LinkFlags::Up), link(3, "bare", LinkFlags::Up), link(4, "eth1", LinkFlags::Up));
    let few = [lo.clone(), eth0.clone(), bare.clone()];
    assert_eq!(picked(&few, None).unwrap(), "eth0");
    assert_eq!(picked(&few, Some("bare")).unwrap(), "bare");
    let all = [lo.clone(), eth0, bare, eth1];
    let text = picked(&all, None).unwrap_err();
    assert!(text.contains("(eth0, eth1); name one as netns=pod/LINK"), "{text}");
    assert!(picked(&all, Some("eth9")).unwrap_err().contains("no link eth9"));
    assert!(picked(std::slice::from_ref(&lo), None).unwrap_err().contains("beside its loopback"));
    assert!(picked(&[lo], Some("lo")).unwrap_err().contains("Ethernet"));
}

#[test]
fn a_link_that_is_down_says_how_to_change_that() {
    let text = picked(&[link(2, "eth0", LinkFlags::empty())], None).unwrap_err();
    assert!(text.contains("`ip -n pod link set eth0 up`"), "{text}");
}

#[test]
fn a_link_is_told_with_its_own_hardware_address_and_mtu() {
    let interface = interface(&link(2, "eth0", LinkFlags::Up | LinkFlags::Noarp));
    assert_eq!((interface.hwAddr.as_str(), interface.mtu), ("02:00:00:00:ab:07", 1400));
    assert_eq!((interface.name.as_str(), interface.raw_flags), ("eth0", 0x80));
}

#[test]
fn a_point_to_point_address_is_the_own_one() {
    let mut message = addressed(2, "10.0.0.1", 32, AddressScope::Universe);
    message.attributes.push(AddressAttribute::Local("10.0.0.2".parse().unwrap()));
    let told = address(&message, 2).unwrap();
    assert_eq!((told.address.as_str(), told.mask.as_str()), ("10.0.0.2", "32"));
    assert_eq!(address(&message, 3), None);
}

fn routed(protocol: RouteProtocol, link: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.header.protocol = protocol;
    message.header.scope = RouteScope::Universe;
    message.attributes =
        vec![RouteAttribute::Oif(link), RouteAttribute::Gateway(RouteAddress::Inet([10, 1, 0, 1].into()))];
    message
}

#[test]
fn routes_of_the_link_are_told_unless_the_kernel_made_them() {
    let told = route(routed(RouteProtocol::Static, 2), 2, "eth0").unwrap();
    assert_eq!((told.dest.as_str(), told.gateway.as_str(), told.device.as_str()), ("", "10.1.0.1", "eth0"));
    let mut network = routed(RouteProtocol::Boot, 2);
    network.header.destination_prefix_length = 16;
    network.attributes.push(RouteAttribute::Destination(RouteAddress::Inet([10, 9, 0, 0].into())));
    assert_eq!(route(network, 2, "eth0").unwrap().dest, "10.9.0.0/16");
    assert_eq!(route(routed(RouteProtocol::Kernel, 2), 2, "eth0"), None);
    assert_eq!(route(routed(RouteProtocol::Static, 3), 2, "eth0"), None);
}

#[test]
fn only_permanent_neighbours_are_told() {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = 2;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 1, 0, 9].into())),
        NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]),
    ];
    let told = neighbour(message.clone(), 2, "eth0").unwrap();
    assert_eq!((told.toIPAddress.address.as_str(), told.lladdr.as_str()), ("10.1.0.9", "02:00:00:00:00:09"));
    assert_eq!(told.state, 0x80);
    message.header.state = NeighbourState::Reachable;
    assert_eq!(neighbour(message, 2, "eth0"), None);
}
