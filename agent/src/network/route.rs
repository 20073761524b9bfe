//! Routes of the main table.

use std::net::IpAddr;
use std::path::Path;

use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};

use super::Session;
use super::address::{Family, Prefix};
use super::error::{During as _, NetworkError, exists};
use super::link;

/// A unicast route, as wanted or as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// The network it leads to; none is the default route.
    pub dest: Option<Prefix>,
    /// The next hop; none means that the network is on the link.
    pub gateway: Option<IpAddr>,
    /// The name of the link; may be empty when a gateway tells.
    pub device: String,
    /// What it means for source addresses.
    pub source: Option<Source>,
    /// The kernel's RT_SCOPE_ number.
    pub scope: u8,
    /// The family of a default route without gateway; others have that of their addresses.
    pub family: Family,
    /// The kernel's RTNH_F_ flags.
    pub flags: u32,
    /// The MTU of this route in bytes; 0 for that of the link.
    pub mtu: u32,
}

/// A route's say in source addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The address that packets sent this way carry.
    Preferred(IpAddr),
    /// The route is for packets from this network only.
    Within(Prefix),
}

impl Route {
    /// The family that its addresses say, or else the one given.
    fn family(&self) -> Family {
        match (self.dest, self.gateway) {
            (Some(dest), _) => dest.family(),
            (None, Some(gateway)) => Family::of(gateway),
            (None, None) => self.family,
        }
    }

    /// Whether it or its gateway is of IPv6.
    fn needs_ipv6(&self) -> bool {
        self.family() == Family::V6 || self.gateway.is_some_and(|gateway| gateway.is_ipv6())
    }

    fn text(&self) -> String {
        let mut text = match (self.dest, self.family()) {
            (Some(dest), _) => dest.to_string(),
            (None, Family::V4) => "default (IPv4)".to_owned(),
            (None, Family::V6) => "default (IPv6)".to_owned(),
        };
        if let Some(gateway) = self.gateway {
            text.push_str(&format!(" via {gateway}"));
        }
        if !self.device.is_empty() {
            text.push_str(&format!(" on {}", self.device));
        }
        text
    }

    /// The kernel's message for this route through the link with that index.
    fn to_message(&self, link: Option<u32>) -> RouteMessage {
        let family = self.family();
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.kind = RouteType::Unicast;
        message.header.flags = RouteFlags::from_bits_retain(self.flags);
        // An IPv4 gateway is only found through routes of a narrower scope than its own: what has none is on the
        // link, as ip-route(8) assumes too.
        message.header.scope = match (family, self.gateway, self.scope) {
            (Family::V4, None, 0) => RouteScope::Link,
            (_, _, scope) => RouteScope::from(scope),
        };
        let attributes = &mut message.attributes;
        if let Some(dest) = self.dest {
            message.header.destination_prefix_length = dest.length();
            attributes.push(RouteAttribute::Destination(dest.address().into()));
        }
        match self.source {
            Some(Source::Preferred(address)) => attributes.push(RouteAttribute::PrefSource(address.into())),
            Some(Source::Within(prefix)) => {
                message.header.source_prefix_length = prefix.length();
                attributes.push(RouteAttribute::Source(prefix.address().into()));
            }
            None => {}
        }
        match (family, self.gateway) {
            (Family::V4, Some(IpAddr::V6(gateway))) => {
                attributes.push(RouteAttribute::Via(RouteVia::Inet6(gateway)));
            }
            (_, Some(gateway)) => attributes.push(RouteAttribute::Gateway(gateway.into())),
            (_, None) => {}
        }
        if let Some(index) = link {
            attributes.push(RouteAttribute::Oif(index));
        }
        if self.mtu != 0 {
            attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(self.mtu)]));
        }
        message
    }

    /// The route in a message of the kernel, or none when it is not a unicast route of the main table.
    fn from_message(message: RouteMessage, name_of: impl Fn(u32) -> Option<String>) -> Option<Route> {
        let header = &message.header;
        let family = match header.address_family {
            AddressFamily::Inet => Family::V4,
            AddressFamily::Inet6 => Family::V6,
            _ => return None,
        };
        if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
            return None;
        }
        let (dest_length, source_length) = (header.destination_prefix_length, header.source_prefix_length);
        let mut route =
            Route { family, scope: header.scope.into(), flags: header.flags.bits(), ..Route::default() };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) if dest_length > 0 => {
                    route.dest = ip(&address).map(|address| Prefix::new(address, dest_length));
                }
                RouteAttribute::Gateway(address) => route.gateway = ip(&address),
                RouteAttribute::Via(RouteVia::Inet(address)) => route.gateway = Some(address.into()),
                RouteAttribute::Via(RouteVia::Inet6(address)) => route.gateway = Some(address.into()),
                RouteAttribute::PrefSource(address) => {
                    route.source = route.source.or(ip(&address).map(Source::Preferred));
                }
                RouteAttribute::Source(address) => {
                    route.source =
                        ip(&address).map(|address| Source::Within(Prefix::new(address, source_length)));
                }
                RouteAttribute::Oif(index) => route.device = name_of(index).unwrap_or_default(),
                RouteAttribute::Metrics(metrics) => {
                    let mtu = metrics.into_iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(mtu),
                        _ => None,
                    });
                    route.mtu = mtu.unwrap_or(0);
                }
                _ => {}
            }
        }
        Some(route)
    }
}

fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

pub(super) async fn list(session: &Session) -> Result<Vec<Route>, NetworkError> {
    let names = link::names(session).await?;
    let name_of = |index| names.iter().find(|(known, _)| *known == index).map(|(_, name)| name.clone());
    let mut routes = Vec::new();
    for family in [Family::V4, Family::V6] {
        let mut query = RouteMessage::default();
        query.header.address_family = address_family(family);
        let answer = session.handle.route().get(query).execute().try_collect::<Vec<_>>().await;
        let messages = match answer.during(|| format!("list {family:?} routes")) {
            // A kernel without IPv6 has no such routes to tell of.
            Err(_) if family == Family::V6 => Vec::new(),
            messages => messages?,
        };
        routes.extend(messages.into_iter().filter_map(|message| Route::from_message(message, name_of)));
    }
    Ok(routes)
}

pub(super) async fn update(
    session: &Session,
    wanted: &[Route],
    proc: &Path,
) -> Result<Vec<Route>, NetworkError> {
    // A gateway must be reachable when a route names it.
    let (through, direct): (Vec<&Route>, Vec<&Route>) =
        wanted.iter().partition(|route| route.gateway.is_some());
    for route in direct.into_iter().chain(through) {
        let index = match route.device.as_str() {
            "" => None,
            device => Some(link::index_of(session, device).await?),
        };
        if route.needs_ipv6() && !link::ipv6_usable(proc, &route.device) {
            tracing::warn!(route = route.text(), "route left out: the guest has no IPv6 there");
            continue;
        }
        let request = session.handle.route().add(route.to_message(index)).replace();
        match request.execute().await.during(|| format!("add route {}", route.text())) {
            Err(error) if exists(&error) => {}
            result => result?,
        }
    }
    list(session).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back(route: &Route) -> Route {
        let message = route.to_message((!route.device.is_empty()).then_some(7));
        Route::from_message(message, |index| (index == 7).then(|| "eth0".to_owned()))
            .expect("a unicast route")
    }

    fn on_eth0() -> Route {
        Route { device: "eth0".to_owned(), ..Route::default() }
    }

    #[test]
    fn routes_survive_the_way_through_a_message() {
        for route in [
            Route { gateway: "10.0.0.1".parse().ok(), ..on_eth0() },
            Route { dest: "10.0.0.0/24".parse().ok(), scope: 253, ..on_eth0() },
            Route {
                dest: "192.0.2.0/24".parse().ok(),
                gateway: "10.0.0.1".parse().ok(),
                source: Some(Source::Preferred("10.0.0.2".parse().unwrap())),
                flags: 4,
                mtu: 1400,
                ..on_eth0()
            },
            Route { dest: "192.0.2.0/24".parse().ok(), gateway: "fe80::1".parse().ok(), ..on_eth0() },
            Route { family: Family::V6, gateway: "fe80::1".parse().ok(), ..on_eth0() },
            Route {
                family: Family::V6,
                dest: "fd00:1::/64".parse().ok(),
                source: Some(Source::Within("fd00:2::/64".parse().unwrap())),
                ..on_eth0()
            },
            Route { family: Family::V6, gateway: "fd00::1".parse().ok(), ..Route::default() },
        ] {
            assert_eq!(back(&route), route);
        }
    }

    #[test]
    fn a_direct_ipv4_route_is_on_the_link() {
        let route = Route { dest: "10.0.0.0/24".parse().ok(), ..on_eth0() };
        assert_eq!(back(&route).scope, 253);
        let default = Route { gateway: "10.0.0.1".parse().ok(), ..on_eth0() };
        assert_eq!(back(&default).scope, 0);
    }

    #[test]
    fn addresses_decide_the_family() {
        let route = Route { dest: "fd00::/64".parse().ok(), family: Family::V4, ..on_eth0() };
        assert_eq!(route.to_message(None).header.address_family, AddressFamily::Inet6);
        let route = Route { gateway: "fd00::1".parse().ok(), family: Family::V4, ..on_eth0() };
        assert_eq!(route.to_message(None).header.address_family, AddressFamily::Inet6);
        let route = Route { family: Family::V6, ..on_eth0() };
        assert_eq!(route.to_message(None).header.address_family, AddressFamily::Inet6);
    }

    #[test]
    fn other_tables_and_kinds_are_not_routes_of_the_pod() {
        let mut local = on_eth0().to_message(Some(7));
        local.header.table = 255;
        assert_eq!(Route::from_message(local, |_| None), None);
        let mut unreachable = on_eth0().to_message(Some(7));
        unreachable.header.kind = RouteType::Unreachable;
        assert_eq!(Route::from_message(unreachable, |_| None), None);
    }

    #[test]
    fn routes_that_ipv6_is_needed_for_are_known() {
        let needs = |dest: &str, gateway: &str, family: Family| {
            Route { dest: dest.parse().ok(), gateway: gateway.parse().ok(), family, ..on_eth0() }.needs_ipv6()
        };
        assert!(needs("fd00::/64", "", Family::V4) && needs("", "fe80::1", Family::V4));
        assert!(needs("", "", Family::V6) && needs("192.0.2.0/24", "fe80::1", Family::V4));
        assert!(!needs("192.0.2.0/24", "10.0.0.1", Family::V6) && !needs("", "", Family::V4));
    }

    #[test]
    fn errors_can_name_the_route() {
        let route = Route { dest: "10.1.0.0/16".parse().ok(), gateway: "10.0.0.1".parse().ok(), ..on_eth0() };
        assert_eq!(route.text(), "10.1.0.0/16 via 10.0.0.1 on eth0");
        assert_eq!(Route::default().text(), "default (IPv4)");
    }
}
