//! The calls about links and routes: between the API's messages and the network's own types. No decisions here.

use std::sync::Arc;

use protocols::agent::{
    AddARPNeighborsRequest, GetIPTablesRequest, GetIPTablesResponse, Interfaces, Routes, SetIPTablesRequest,
    SetIPTablesResponse, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use protocols::types;

use super::status::Failure;
use crate::network::iptables::{self, Version};
use crate::network::{
    Family, HardwareAddress, Interface, IpAddress, Neighbour, Network, NetworkError, PciPath, Prefix, Route,
    Source, parse_ip,
};
use crate::process::command::Commands;

pub(super) async fn list_interfaces(network: &Network) -> Result<Interfaces, Failure> {
    let interfaces = network.list_interfaces().await?;
    Ok(Interfaces {
        Interfaces: interfaces.into_iter().map(encode_interface).collect(),
        ..Interfaces::default()
    })
}

pub(super) async fn list_routes(network: &Network) -> Result<Routes, Failure> {
    Ok(encode_routes(network.list_routes().await?))
}

pub(super) async fn update_interface(
    network: &Network,
    request: UpdateInterfaceRequest,
) -> Result<types::Interface, Failure> {
    let wanted = request.interface.into_option();
    let wanted = wanted.ok_or_else(|| Failure::invalid("empty update interface request"))?;
    let now = network.update_interface(&decode_interface(&wanted)?).await?;
    // Callers may match the answer by what they call the device and by where it is plugged in.
    Ok(types::Interface { device: wanted.device, devicePath: wanted.devicePath, ..encode_interface(now) })
}

pub(super) async fn update_routes(
    network: &Network,
    request: UpdateRoutesRequest,
) -> Result<Routes, Failure> {
    let wanted = request.routes.into_option();
    let wanted = wanted.ok_or_else(|| Failure::invalid("empty update routes request"))?;
    let wanted: Vec<Route> = wanted.Routes.iter().map(decode_route).collect::<Result<_, _>>()?;
    Ok(encode_routes(network.update_routes(&wanted).await?))
}

pub(super) async fn add_neighbours(
    network: &Network,
    request: AddARPNeighborsRequest,
) -> Result<(), Failure> {
    let wanted = request.neighbors.into_option();
    let wanted = wanted.ok_or_else(|| Failure::invalid("empty add arp neighbours request"))?;
    let wanted: Vec<Neighbour> =
        wanted.ARPNeighbors.iter().map(decode_neighbour).collect::<Result<_, Failure>>()?;
    Ok(network.add_neighbours(&wanted).await?)
}

pub(super) async fn get_iptables(
    commands: &Arc<Commands>,
    request: GetIPTablesRequest,
) -> Result<GetIPTablesResponse, Failure> {
    let data = iptables::save(commands, version(request.is_ipv6)).await?;
    Ok(GetIPTablesResponse { data, ..Default::default() })
}

pub(super) async fn set_iptables(
    commands: &Arc<Commands>,
    request: SetIPTablesRequest,
) -> Result<SetIPTablesResponse, Failure> {
    let data = iptables::restore(commands, version(request.is_ipv6), request.data).await?;
    Ok(SetIPTablesResponse { data, ..Default::default() })
}

fn version(is_ipv6: bool) -> Version {
    if is_ipv6 { Version::V6 } else { Version::V4 }
}

pub(super) fn decode_neighbour(wire: &types::ARPNeighbor) -> Result<Neighbour, Failure> {
    let address =
        wire.toIPAddress.as_ref().ok_or_else(|| Failure::invalid("a neighbour without an address"))?;
    // What goes beyond would be cut: the flags by the message to the kernel, the state by the kernel (a u8 of its own).
    let number = |value: i32, what: &str| {
        u8::try_from(value)
            .map_err(|_| Failure::invalid(format!("{value} is not a neighbour's {what}: 0 to 255")))
    };
    Ok(Neighbour {
        address: parse_ip(&address.address)?,
        device: wire.device.clone(),
        hw_addr: optional(&wire.lladdr, str::parse::<HardwareAddress>)?,
        state: number(wire.state, "state")?.into(),
        flags: number(wire.flags, "flags")?,
    })
}

/// `parse` of text that may be empty for none.
fn optional<T, E: Into<NetworkError>>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, NetworkError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some).map_err(E::into) }
}

pub(super) fn decode_interface(wire: &types::Interface) -> Result<Interface, NetworkError> {
    let addresses = wire.IPAddresses.iter().map(|ip| IpAddress::parse(&ip.address, &ip.mask));
    Ok(Interface {
        device: wire.device.clone(),
        name: wire.name.clone(),
        addresses: addresses.collect::<Result<_, _>>()?,
        mtu: narrow(wire.mtu, "an MTU below 2^32")?,
        hw_addr: optional(&wire.hwAddr, str::parse::<HardwareAddress>)?,
        device_path: optional(&wire.devicePath, str::parse::<PciPath>)?,
        kind: wire.type_.clone(),
        raw_flags: wire.raw_flags,
    })
}

fn encode_interface(interface: Interface) -> types::Interface {
    types::Interface {
        device: interface.device,
        name: interface.name,
        IPAddresses: interface.addresses.iter().map(encode_address).collect(),
        mtu: interface.mtu.into(),
        hwAddr: interface.hw_addr.map(|address| address.to_string()).unwrap_or_default(),
        devicePath: interface.device_path.map(|path| path.to_string()).unwrap_or_default(),
        type_: interface.kind,
        raw_flags: interface.raw_flags,
        ..types::Interface::default()
    }
}

fn encode_address(address: &IpAddress) -> types::IPAddress {
    types::IPAddress {
        family: encode_family(address.family()).into(),
        address: address.address.to_string(),
        mask: address.prefix.to_string(),
        ..types::IPAddress::default()
    }
}

pub(super) fn decode_route(wire: &types::Route) -> Result<Route, NetworkError> {
    let family = match wire.family.enum_value() {
        Ok(types::IPFamily::v4) => Family::V4,
        Ok(types::IPFamily::v6) => Family::V6,
        Err(number) => {
            let expected = "an IP family, 0 (IPv4) or 1 (IPv6)";
            return Err(NetworkError::Malformed { text: number.to_string(), expected });
        }
    };
    let (dest, family) = decode_dest(&wire.dest, family)?;
    Ok(Route {
        dest,
        gateway: optional(&wire.gateway, parse_ip)?,
        device: wire.device.clone(),
        source: optional(&wire.source, decode_source)?,
        scope: narrow(wire.scope, "a route scope from 0 to 255")?,
        family,
        flags: wire.flags,
        mtu: wire.mtu,
    })
}

/// Callers write the default route as nothing, as the unspecified address, or as the prefix that covers all.
fn decode_dest(text: &str, family: Family) -> Result<(Option<Prefix>, Family), NetworkError> {
    if text.is_empty() || text == "default" {
        return Ok((None, family));
    }
    let dest: Prefix = text.parse()?;
    let everywhere = dest.length() == 0 || (dest.address().is_unspecified() && !text.contains('/'));
    Ok(((!everywhere).then_some(dest), dest.family()))
}

/// A source with a prefix selects packets; one without, or of length 0, is the address they get.
fn decode_source(text: &str) -> Result<Source, NetworkError> {
    match text.split_once('/') {
        None => parse_ip(text).map(Source::Preferred),
        Some((address, "0")) => parse_ip(address).map(Source::Preferred),
        Some(_) => text.parse().map(Source::Within),
    }
}

fn encode_routes(routes: Vec<Route>) -> Routes {
    Routes { Routes: routes.into_iter().map(encode_route).collect(), ..Routes::default() }
}

/// The default route has no destination, in answers as in requests.
fn encode_route(route: Route) -> types::Route {
    types::Route {
        dest: route.dest.map(|dest| dest.to_string()).unwrap_or_default(),
        gateway: route.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        device: route.device,
        source: match route.source {
            None => String::new(),
            Some(Source::Preferred(address)) => address.to_string(),
            Some(Source::Within(prefix)) => prefix.to_string(),
        },
        scope: route.scope.into(),
        family: encode_family(route.family).into(),
        flags: route.flags,
        mtu: route.mtu,
        ..types::Route::default()
    }
}

fn encode_family(family: Family) -> types::IPFamily {
    match family {
        Family::V4 => types::IPFamily::v4,
        Family::V6 => types::IPFamily::v6,
    }
}

fn narrow<From: Copy + ToString, To: TryFrom<From>>(
    number: From,
    expected: &'static str,
) -> Result<To, NetworkError> {
    To::try_from(number).map_err(|_| NetworkError::Malformed { text: number.to_string(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_route(dest: &str) -> types::Route {
        types::Route {
            dest: dest.to_owned(),
            gateway: "10.0.0.1".to_owned(),
            device: "eth0".to_owned(),
            source: "10.0.0.2".to_owned(),
            scope: 253,
            flags: 4,
            mtu: 1400,
            ..types::Route::default()
        }
    }

    #[test]
    fn interfaces_survive_both_ways() {
        let wire = types::Interface {
            device: "eth0".to_owned(),
            name: "eth0".to_owned(),
            IPAddresses: vec![
                types::IPAddress {
                    family: types::IPFamily::v4.into(),
                    address: "10.0.0.2".to_owned(),
                    mask: "24".to_owned(),
                    ..Default::default()
                },
                types::IPAddress {
                    family: types::IPFamily::v6.into(),
                    address: "fd00::2".to_owned(),
                    mask: "64".to_owned(),
                    ..Default::default()
                },
            ],
            mtu: 1500,
            hwAddr: "02:00:ca:fe:00:01".to_owned(),
            devicePath: "02/00".to_owned(),
            type_: "veth".to_owned(),
            raw_flags: 0x80,
            ..types::Interface::default()
        };
        assert_eq!(encode_interface(decode_interface(&wire).unwrap()), wire);
        assert_eq!(
            encode_interface(decode_interface(&types::Interface::new()).unwrap()),
            types::Interface::new()
        );
    }

    #[test]
    fn bad_interfaces_are_refused_with_the_reason() {
        let mut wire = types::Interface { mtu: 1 << 32, ..types::Interface::default() };
        let error = decode_interface(&wire).unwrap_err();
        assert_eq!(error.to_string(), "\"4294967296\" is not an MTU below 2^32");
        wire.mtu = 0;
        wire.hwAddr = "nonsense".to_owned();
        assert!(decode_interface(&wire).is_err());
        wire.hwAddr.clear();
        wire.IPAddresses.push(types::IPAddress { address: "10.0.0.2".to_owned(), ..Default::default() });
        assert!(decode_interface(&wire).unwrap_err().to_string().contains("prefix length"));
    }

    #[test]
    fn routes_survive_both_ways() {
        for wire in [wire_route("192.0.2.0/24"), wire_route("")] {
            assert_eq!(encode_route(decode_route(&wire).unwrap()), wire);
        }
        let mut within = wire_route("192.0.2.0/24");
        within.source = "10.1.0.0/16".to_owned();
        assert_eq!(encode_route(decode_route(&within).unwrap()), within);
    }

    #[test]
    fn the_default_route_has_several_names() {
        for (dest, family) in [
            ("", Family::V4),
            ("default", Family::V4),
            ("0.0.0.0", Family::V4),
            ("0.0.0.0/0", Family::V4),
            ("::", Family::V6),
            ("::/0", Family::V6),
        ] {
            let route = decode_route(&types::Route { dest: dest.to_owned(), ..Default::default() }).unwrap();
            assert_eq!((route.dest, route.family), (None, family), "{dest:?}");
        }
        let v6 = types::Route { family: types::IPFamily::v6.into(), ..Default::default() };
        assert_eq!(decode_route(&v6).unwrap().family, Family::V6);
    }

    #[test]
    fn sources_without_a_prefix_are_preferred_addresses() {
        let source = |text: &str| decode_source(text).map(|source| format!("{source:?}")).unwrap_or_default();
        assert_eq!(source("10.0.0.2"), "Preferred(10.0.0.2)");
        assert_eq!(source("10.0.0.2/0"), "Preferred(10.0.0.2)");
        assert!(source("10.0.0.2/24").starts_with("Within("));
        assert_eq!(source("nonsense"), "");
    }

    #[test]
    fn a_neighbours_numbers_are_taken_whole_or_refused() {
        let decode = |state: i32, flags: i32| {
            let address = types::IPAddress { address: "10.0.0.9".to_owned(), ..Default::default() };
            decode_neighbour(&types::ARPNeighbor {
                toIPAddress: Some(address).into(),
                state,
                flags,
                ..Default::default()
            })
        };
        for (state, flags) in [(0, 0), (0x80, 0x02), (0x40, 0x80), (255, 255)] {
            let neighbour = decode(state, flags).unwrap();
            assert_eq!((i32::from(neighbour.state), i32::from(neighbour.flags)), (state, flags));
        }
        for (state, flags) in
            [(0, 0x180), (0, 256), (0, -1), (0, i32::MAX), (0x100, 0), (-1, 0), (i32::MIN, 0)]
        {
            let failure = decode(state, flags).unwrap_err();
            let ttrpc::Error::RpcStatus(status) = failure.into() else { panic!("no status") };
            assert_eq!(status.code(), ttrpc::Code::INVALID_ARGUMENT, "{state} {flags}");
        }
    }

    #[test]
    fn bad_routes_are_refused() {
        for wire in [
            types::Route { dest: "10.0.0.0/33".to_owned(), ..Default::default() },
            types::Route { gateway: "router".to_owned(), ..Default::default() },
            types::Route { scope: 256, ..Default::default() },
            types::Route { family: protobuf::EnumOrUnknown::from_i32(2), ..Default::default() },
            types::Route { source: "10.0.0.0/x".to_owned(), ..Default::default() },
        ] {
            assert!(decode_route(&wire).is_err(), "{wire}");
        }
    }
}
