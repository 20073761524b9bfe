//! The network against a real kernel, in a namespace of its own. Needs the right to make one.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVeth;

use super::*;

/// Runs `work` in a new, empty network namespace, on a thread that ends with it.
fn in_namespace<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(|| {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            // Visible with --no-capture; the privileged levels of the test ladder fail instead.
            eprintln!("SKIPPED: needs the right to make a network namespace ({errno}): run as root");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work());
    });
    thread.join().unwrap();
}

/// A link with that hardware address: one end of a pair, the other being `peer-NAME`.
async fn add_link(name: &str, hardware: &str) {
    let session = Session::open().unwrap();
    let address: HardwareAddress = hardware.parse().unwrap();
    let peer = format!("peer-{name}");
    let message = LinkVeth::new(name, &peer).address(address.as_bytes().to_vec()).build();
    session.handle.link().add(message).execute().await.unwrap();
    bring_up(&peer).unwrap();
}

async fn by_name(network: &Network, name: &str) -> Interface {
    let all = network.list_interfaces().await.unwrap();
    all.iter()
        .find(|interface| interface.name == name)
        .unwrap_or_else(|| panic!("no {name} in {all:?}"))
        .clone()
}

fn addresses(interface: &Interface) -> Vec<String> {
    let global = interface.addresses.iter().map(ToString::to_string);
    let mut global: Vec<String> = global.filter(|address| !address.starts_with("fe80:")).collect();
    global.sort();
    global
}

const UP: u32 = 1;
const NOARP: u32 = 0x80;

fn network() -> Network {
    Network::new(DeviceWatch::deaf(Path::new("/sys"), Duration::ZERO), Patience::for_devices())
}

#[test]
fn loopback_comes_up_with_its_address() {
    in_namespace(|| async {
        let network = network();
        assert_eq!(by_name(&network, "lo").await.raw_flags & UP, 0);
        loopback_up().unwrap();
        let lo = by_name(&network, "lo").await;
        assert_eq!(lo.raw_flags & UP, UP);
        assert!(addresses(&lo).contains(&"127.0.0.1/8".to_owned()), "{lo:?}");
        assert_eq!(std::net::TcpListener::bind("127.0.0.1:0").map(|_| ()).map_err(|e| e.to_string()), Ok(()));
    });
}

#[test]
fn an_interface_becomes_what_is_asked() {
    in_namespace(|| async {
        let network = network();
        add_link("veth7", "02:00:00:00:00:07").await;
        let mut wanted = Interface {
            name: "eth0".to_owned(),
            hw_addr: "02:00:00:00:00:07".parse().ok(),
            mtu: 1400,
            raw_flags: NOARP,
            addresses: vec![
                IpAddress::parse("10.0.0.2", "24").unwrap(),
                IpAddress::parse("10.0.0.3", "24").unwrap(),
                IpAddress::parse("fd00::2", "64").unwrap(),
            ],
            ..Interface::default()
        };
        let now = network.update_interface(&wanted).await.unwrap();
        assert_eq!((now.name.as_str(), now.mtu, now.kind.as_str()), ("eth0", 1400, "veth"));
        assert_eq!(now.raw_flags & (UP | NOARP), UP | NOARP);
        assert_eq!(addresses(&now), ["10.0.0.2/24", "10.0.0.3/24", "fd00::2/64"]);
        // Whether the carrier has come up (IFF_RUNNING) is the kernel's to say, a moment later.
        // So is when the link-local address comes.
        let still = |interface: Interface| Interface {
            raw_flags: interface.raw_flags & (UP | NOARP),
            addresses: Vec::new(),
            ..interface
        };
        let listed = by_name(&network, "eth0").await;
        assert_eq!(addresses(&now), addresses(&listed));
        assert_eq!(still(now), still(listed));

        // Again, without the primary address: what is left out goes, its secondary stays.
        wanted.addresses.remove(0);
        wanted.addresses.push(IpAddress::parse("192.0.2.1", "32").unwrap());
        let now = network.update_interface(&wanted).await.unwrap();
        assert_eq!(addresses(&now), ["10.0.0.3/24", "192.0.2.1/32", "fd00::2/64"]);

        // By name, with a new hardware address.
        wanted.hw_addr = "02:00:00:00:00:08".parse().ok();
        let now = network.update_interface(&wanted).await.unwrap();
        assert_eq!(now.hw_addr, wanted.hw_addr);
        assert_eq!(now.raw_flags & UP, UP);
    });
}

#[test]
fn names_are_swapped_when_taken() {
    in_namespace(|| async {
        let network = network();
        add_link("eth0", "02:00:00:00:00:01").await;
        add_link("eth1", "02:00:00:00:00:02").await;
        let first = Interface {
            name: "eth1".to_owned(),
            hw_addr: "02:00:00:00:00:01".parse().ok(),
            ..Interface::default()
        };
        network.update_interface(&first).await.unwrap();
        assert_eq!(by_name(&network, "eth1").await.hw_addr, "02:00:00:00:00:01".parse().ok());
        assert_eq!(by_name(&network, "eth0").await.hw_addr, "02:00:00:00:00:02".parse().ok());
        // Both are up for the way back.
        let second = Interface {
            name: "eth0".to_owned(),
            hw_addr: "02:00:00:00:00:02".parse().ok(),
            ..Interface::default()
        };
        network.update_interface(&second).await.unwrap();
        let back = Interface { name: "eth0".to_owned(), ..first };
        let now = network.update_interface(&back).await.unwrap();
        assert_eq!((now.name.as_str(), now.raw_flags & UP), ("eth0", UP));
        let other = by_name(&network, "eth1").await;
        assert_eq!((other.hw_addr, other.raw_flags & UP), ("02:00:00:00:00:02".parse().ok(), UP));
    });
}

#[test]
fn routes_are_added_in_a_workable_order_and_replaced() {
    in_namespace(|| async {
        let network = network();
        add_link("eth0", "02:00:00:00:00:01").await;
        for (name, address) in [("eth0", "10.0.0.2"), ("peer-eth0", "10.0.0.1")] {
            let wanted = Interface {
                name: name.to_owned(),
                addresses: vec![IpAddress::parse(address, "24").unwrap()],
                ..Interface::default()
            };
            network.update_interface(&wanted).await.unwrap();
        }
        let route = |dest: &str, gateway: &str| Route {
            dest: dest.parse().ok(),
            gateway: gateway.parse().ok(),
            device: "eth0".to_owned(),
            ..Route::default()
        };
        // The default route's gateway is reachable only through the route that comes last.
        let wanted =
            [route("", "169.254.1.1"), route("192.0.2.0/24", "10.0.0.1"), route("169.254.1.1/32", "")];
        let all = network.update_routes(&wanted).await.unwrap();
        let default = all.iter().find(|route| route.dest.is_none()).expect("a default route");
        assert_eq!((default.gateway, default.device.as_str()), ("169.254.1.1".parse().ok(), "eth0"));
        let known = |dest: &str| all.iter().find(|route| route.dest == dest.parse().ok()).cloned();
        assert_eq!(known("192.0.2.0/24").and_then(|route| route.gateway), "10.0.0.1".parse().ok());
        assert_eq!(known("169.254.1.1/32").map(|route| route.scope), Some(253));

        // The same again, with another gateway: replaced, not doubled.
        let all = network.update_routes(&[Route { mtu: 1300, ..route("", "10.0.0.1") }]).await.unwrap();
        let defaults: Vec<&Route> = all.iter().filter(|route| route.dest.is_none()).collect();
        assert_eq!(defaults.len(), 1, "{all:?}");
        assert_eq!((defaults[0].gateway, defaults[0].mtu), ("10.0.0.1".parse().ok(), 1300));
    });
}

#[test]
fn ipv6_routes_work_too() {
    in_namespace(|| async {
        let network = network();
        add_link("eth0", "02:00:00:00:00:01").await;
        let wanted = Interface {
            name: "eth0".to_owned(),
            addresses: vec![IpAddress::parse("fd00::2", "64").unwrap()],
            ..Interface::default()
        };
        network.update_interface(&wanted).await.unwrap();
        let default =
            Route { gateway: "fd00::1".parse().ok(), device: "eth0".to_owned(), ..Route::default() };
        let other = Route { dest: "fd01::/64".parse().ok(), device: "eth0".to_owned(), ..Route::default() };
        let all = network.update_routes(&[default, other]).await.unwrap();
        let v6: Vec<&Route> = all.iter().filter(|route| route.family == Family::V6).collect();
        assert!(
            v6.iter().any(|route| route.dest.is_none() && route.gateway == "fd00::1".parse().ok()),
            "{v6:?}"
        );
        assert!(v6.iter().any(|route| route.dest == "fd01::/64".parse().ok()), "{v6:?}");
    });
}

/// A switch of IPv6 in the namespace of the calling thread.
fn switch(link: &str, name: &str) -> std::path::PathBuf {
    format!("/proc/sys/net/ipv6/conf/{link}/{name}").into()
}

#[test]
fn routers_are_not_heard_on_links_that_the_host_configures() {
    in_namespace(|| async {
        let network = network();
        add_link("veth3", "02:00:00:00:00:03").await;
        let wanted = Interface {
            name: "eth0".to_owned(),
            hw_addr: "02:00:00:00:00:03".parse().ok(),
            addresses: vec![IpAddress::parse("10.0.0.2", "24").unwrap()],
            ..Interface::default()
        };
        network.update_interface(&wanted).await.unwrap();
        let read = |link: &str| std::fs::read_to_string(switch(link, "accept_ra")).unwrap();
        assert_eq!((read("eth0").trim(), read("peer-veth3").trim()), ("0", "1"));
    });
}

#[test]
fn where_ipv6_is_off_all_the_rest_is_done() {
    in_namespace(|| async {
        let network = network();
        add_link("eth0", "02:00:00:00:00:01").await;
        std::fs::write(switch("all", "disable_ipv6"), "1").unwrap();
        let wanted = Interface {
            name: "eth0".to_owned(),
            addresses: ["10.0.0.2/24", "fd00::2/64"]
                .map(|text| text.split_once('/').unwrap())
                .map(|(address, mask)| IpAddress::parse(address, mask).unwrap())
                .to_vec(),
            ..Interface::default()
        };
        let now = network.update_interface(&wanted).await.unwrap();
        assert_eq!(addresses(&now), ["10.0.0.2/24"]);
        let route = |dest: &str, gateway: &str, device: &str| Route {
            dest: dest.parse().ok(),
            gateway: gateway.parse().ok(),
            device: device.to_owned(),
            ..Route::default()
        };
        let wanted = [
            route("", "fd00::1", "eth0"),
            route("", "fd00::1", ""),
            route("192.0.2.0/24", "fe80::1", "eth0"),
            route("", "10.0.0.1", "eth0"),
        ];
        let all = network.update_routes(&wanted).await.unwrap();
        let through: Vec<_> = all.iter().filter_map(|route| route.gateway).collect();
        assert_eq!(through, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()], "{all:?}");
        let neighbour = |address: &str| Neighbour {
            address: address.parse().unwrap(),
            device: "eth0".to_owned(),
            hw_addr: "02:00:00:00:00:09".parse().ok(),
            state: 0,
            flags: 0,
        };
        network.add_neighbours(&[neighbour("fd00::1"), neighbour("10.0.0.1")]).await.unwrap();
        let table = std::fs::read_to_string("/proc/thread-self/net/arp").unwrap();
        assert!(table.contains("02:00:00:00:00:09"), "{table}");
    });
}

#[test]
fn failures_name_what_was_tried() {
    in_namespace(|| async {
        let network = network();
        let missing = Interface { name: "eth9".to_owned(), ..Interface::default() };
        let error = network.update_interface(&missing).await.unwrap_err();
        assert_eq!(error.to_string(), "no network link with name \"eth9\"");
        let route = Route { dest: "10.0.0.0/8".parse().ok(), device: "eth9".to_owned(), ..Route::default() };
        let error = network.update_routes(&[route]).await.unwrap_err();
        assert_eq!(error.to_string(), "no network link with name \"eth9\"");
        let route = Route { gateway: "10.0.0.1".parse().ok(), ..Route::default() };
        let error = crate::error::chain(&network.update_routes(&[route]).await.unwrap_err());
        assert_eq!(error, "add route default (IPv4) via 10.0.0.1: Network is unreachable (os error 101)");
    });
}
