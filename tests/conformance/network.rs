//! Links, addresses, routes, neighbours and packet filters.

use anyhow::{Context as _, Result, ensure};
use machine::vm::MAC;
use protobuf::MessageField;
use protocols::agent::*;
use protocols::types;
use tests::{Code, address, link};

use crate::case::{Case, cases};
use crate::world::World;

pub(crate) const CASES: &[Case] = cases! {
    Bare "UpdateInterface" Success a_link_found_by_its_address_is_set_up_before_the_sandbox;
    Bare "UpdateInterface" Failure a_link_that_is_not_there_or_not_said_is_refused;
    Bare "ListInterfaces" Success every_link_is_listed_as_it_is;
    Bare "ListInterfaces" Failure a_list_of_links_asked_for_with_garbage_is_refused;
    Bare "UpdateRoutes" Success routes_are_set_and_answered_whole;
    Bare "UpdateRoutes" Failure routes_that_cannot_be_are_refused;
    Bare "ListRoutes" Success a_route_is_listed_with_its_gateway_and_destination;
    Bare "ListRoutes" Failure a_list_of_routes_asked_for_with_garbage_is_refused;
    Bare "AddARPNeighbors" Success a_neighbour_is_known_for_good;
    Bare "AddARPNeighbors" Failure a_neighbour_on_no_link_or_without_an_address_is_refused;
    Standard "GetIPTables" Success filters_are_saved_for_both_families;
    Bare "GetIPTables" Failure without_the_tools_filters_are_not_told;
    Standard "SetIPTables" Success filters_are_what_was_set;
    Bare "SetIPTables" Failure without_the_tools_filters_are_not_set;
    Standard "SetIPTables" Failure filters_that_are_nonsense_change_nothing;
};

fn update(interface: types::Interface) -> UpdateInterfaceRequest {
    UpdateInterfaceRequest { interface: MessageField::some(interface), ..Default::default() }
}

async fn set_up(world: &World) -> Result<types::Interface> {
    world.ok("UpdateInterface", &update(link())).await
}

async fn a_link_found_by_its_address_is_set_up_before_the_sandbox(world: &World) -> Result<()> {
    let now = set_up(world).await?;
    ensure!(now.name == "eth0" && now.hwAddr == MAC && now.mtu == 1400, "{now:?}");
    // What is listed is what is true afterwards.
    let request =
        update(types::Interface { IPAddresses: vec![address("fd00::15", "64")], mtu: 1300, ..link() });
    let now: types::Interface = world.ok("UpdateInterface", &request).await?;
    let has = |wanted: &str| now.IPAddresses.iter().any(|ip| ip.address == wanted);
    ensure!(now.mtu == 1300 && has("fd00::15") && !has("10.0.2.15"), "{now:?}");
    Ok(())
}

async fn a_link_that_is_not_there_or_not_said_is_refused(world: &World) -> Result<()> {
    let method = "UpdateInterface";
    let text = world.refused(method, &UpdateInterfaceRequest::new(), Code::INVALID_ARGUMENT).await?;
    ensure!(text.contains("empty update interface request"), "{text}");
    let before = links(world).await?;
    let bad = types::Interface { hwAddr: "not a mac".into(), ..link() };
    world.refused(method, &update(bad), Code::INVALID_ARGUMENT).await?;
    let bad = types::Interface { IPAddresses: vec![address("10.0.2.300", "24")], ..link() };
    world.refused(method, &update(bad), Code::INVALID_ARGUMENT).await?;
    let nobody = types::Interface {
        name: "eth7".into(),
        device: "eth7".into(),
        hwAddr: "02:11:22:33:44:55".into(),
        ..Default::default()
    };
    world.refused(method, &update(nobody), Code::NOT_FOUND).await?;
    let after = links(world).await?;
    ensure!(before == after, "a refused update changed {before:?} to {after:?}");
    Ok(())
}

/// Whether somebody set this address. What the kernel makes itself, also of the network's advertisements, comes when it
/// comes.
fn was_set(address: &str) -> bool {
    !["fe80:", "fec0:"].iter().any(|prefix| address.starts_with(prefix))
}

async fn links(world: &World) -> Result<Interfaces> {
    let mut list: Interfaces = world.ok("ListInterfaces", &ListInterfacesRequest::new()).await?;
    for link in &mut list.Interfaces {
        link.IPAddresses.retain(|ip| was_set(&ip.address));
    }
    Ok(list)
}

async fn all_routes(world: &World) -> Result<Routes> {
    let mut list: Routes = world.ok("ListRoutes", &ListRoutesRequest::new()).await?;
    list.Routes.retain(|route| was_set(&route.dest) && was_set(&route.gateway));
    Ok(list)
}

async fn every_link_is_listed_as_it_is(world: &World) -> Result<()> {
    set_up(world).await?;
    let list: Interfaces = world.ok("ListInterfaces", &ListInterfacesRequest::new()).await?;
    let find = |name: &str| list.Interfaces.iter().find(|link| link.name == name).context(name.to_owned());
    let eth0 = find("eth0")?;
    ensure!(eth0.mtu == 1400 && eth0.hwAddr == MAC, "{eth0:?}");
    ensure!(eth0.IPAddresses.iter().any(|ip| ip.address == "10.0.2.15" && ip.mask == "24"), "{eth0:?}");
    let loopback = find("lo")?;
    let own = loopback.IPAddresses.iter().find(|ip| ip.address == "127.0.0.1").context("127.0.0.1")?;
    ensure!(own.family.enum_value() == Ok(types::IPFamily::v4), "{own:?}");
    Ok(())
}

async fn a_list_of_links_asked_for_with_garbage_is_refused(world: &World) -> Result<()> {
    world.garbage("ListInterfaces").await.map(drop)
}

fn routes(list: Vec<types::Route>) -> UpdateRoutesRequest {
    let routes = Routes { Routes: list, ..Default::default() };
    UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() }
}

fn route(dest: &str, gateway: &str, device: &str) -> types::Route {
    types::Route { dest: dest.into(), gateway: gateway.into(), device: device.into(), ..Default::default() }
}

async fn routes_are_set_and_answered_whole(world: &World) -> Result<()> {
    set_up(world).await?;
    let wanted = routes(vec![route("", "10.0.2.2", "eth0"), route("192.0.2.0/24", "10.0.2.3", "eth0")]);
    for _ in 0..2 {
        let now: Routes = world.ok("UpdateRoutes", &wanted).await?;
        let has = |gateway: &str| now.Routes.iter().filter(|route| route.gateway == gateway).count() == 1;
        ensure!(has("10.0.2.2") && has("10.0.2.3"), "{now:?}");
    }
    Ok(())
}

async fn routes_that_cannot_be_are_refused(world: &World) -> Result<()> {
    set_up(world).await?;
    let text = world.refused("UpdateRoutes", &UpdateRoutesRequest::new(), Code::INVALID_ARGUMENT).await?;
    ensure!(text.contains("empty update routes request"), "{text}");
    let before = all_routes(world).await?;
    let nonsense = routes(vec![route("10.0.2.0/99", "", "eth0")]);
    world.refused("UpdateRoutes", &nonsense, Code::INVALID_ARGUMENT).await?;
    let elsewhere = routes(vec![route("198.51.100.0/24", "", "eth7")]);
    world.refused("UpdateRoutes", &elsewhere, Code::NOT_FOUND).await?;
    let after = all_routes(world).await?;
    ensure!(before == after, "a refused update changed {before:?} to {after:?}");
    Ok(())
}

async fn a_route_is_listed_with_its_gateway_and_destination(world: &World) -> Result<()> {
    set_up(world).await?;
    let wanted = routes(vec![route("192.0.2.0/24", "10.0.2.3", "eth0")]);
    let _: Routes = world.ok("UpdateRoutes", &wanted).await?;
    let now: Routes = world.ok("ListRoutes", &ListRoutesRequest::new()).await?;
    let is_there = |route: &types::Route| {
        (route.dest.as_str(), route.gateway.as_str(), route.device.as_str())
            == ("192.0.2.0/24", "10.0.2.3", "eth0")
    };
    ensure!(now.Routes.iter().any(is_there), "{now:?}");
    Ok(())
}

async fn a_list_of_routes_asked_for_with_garbage_is_refused(world: &World) -> Result<()> {
    world.garbage("ListRoutes").await.map(drop)
}

fn neighbours(ip: Option<&str>, device: &str) -> AddARPNeighborsRequest {
    let neighbour = types::ARPNeighbor {
        toIPAddress: ip.map(|ip| address(ip, "24")).into(),
        device: device.into(),
        lladdr: "02:00:00:00:00:99".into(),
        ..Default::default()
    };
    let list = ARPNeighbors { ARPNeighbors: vec![neighbour], ..Default::default() };
    AddARPNeighborsRequest { neighbors: MessageField::some(list), ..Default::default() }
}

async fn a_neighbour_is_known_for_good(world: &World) -> Result<()> {
    set_up(world).await?;
    world.done("AddARPNeighbors", &neighbours(Some("10.0.2.99"), "eth0")).await?;
    // Once more replaces it.
    world.done("AddARPNeighbors", &neighbours(Some("10.0.2.99"), "eth0")).await
}

async fn a_neighbour_on_no_link_or_without_an_address_is_refused(world: &World) -> Result<()> {
    let method = "AddARPNeighbors";
    world.refused(method, &AddARPNeighborsRequest::new(), Code::INVALID_ARGUMENT).await?;
    world.refused(method, &neighbours(Some("10.0.2.99"), "eth7"), Code::NOT_FOUND).await?;
    world.refused(method, &neighbours(Some("nonsense"), "eth0"), Code::INVALID_ARGUMENT).await?;
    world.refused(method, &neighbours(None, "eth0"), Code::INVALID_ARGUMENT).await?;
    Ok(())
}

fn get(is_ipv6: bool) -> GetIPTablesRequest {
    GetIPTablesRequest { is_ipv6, ..Default::default() }
}

fn set(is_ipv6: bool, data: &str) -> SetIPTablesRequest {
    SetIPTablesRequest { is_ipv6, data: data.into(), ..Default::default() }
}

async fn saved(world: &World, is_ipv6: bool) -> Result<String> {
    let response: GetIPTablesResponse = world.ok("GetIPTables", &get(is_ipv6)).await?;
    Ok(String::from_utf8(response.data)?)
}

const FILTER: &str = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A INPUT -p tcp -m tcp --dport 4711 -j DROP\nCOMMIT\n";

async fn filters_are_saved_for_both_families(world: &World) -> Result<()> {
    for is_ipv6 in [false, true] {
        let _: SetIPTablesResponse = world.ok("SetIPTables", &set(is_ipv6, FILTER)).await?;
        let text = saved(world, is_ipv6).await?;
        ensure!(text.contains("*filter") && text.contains("COMMIT"), "{text}");
    }
    Ok(())
}

async fn without_the_tools_filters_are_not_told(world: &World) -> Result<()> {
    for is_ipv6 in [false, true] {
        let text = world.refused("GetIPTables", &get(is_ipv6), Code::UNIMPLEMENTED).await?;
        ensure!(text.contains("tables"), "it does not say what is missing: {text}");
    }
    Ok(())
}

async fn filters_are_what_was_set(world: &World) -> Result<()> {
    for is_ipv6 in [false, true] {
        let _: SetIPTablesResponse = world.ok("SetIPTables", &set(is_ipv6, FILTER)).await?;
        let text = saved(world, is_ipv6).await?;
        ensure!(text.contains("--dport 4711 -j DROP"), "{text}");
    }
    Ok(())
}

async fn without_the_tools_filters_are_not_set(world: &World) -> Result<()> {
    world.refused("SetIPTables", &set(false, FILTER), Code::UNIMPLEMENTED).await?;
    world.refused("SetIPTables", &set(true, FILTER), Code::UNIMPLEMENTED).await?;
    Ok(())
}

/// Lines that count nothing and tell no time.
fn rules(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("-A")).collect()
}

async fn filters_that_are_nonsense_change_nothing(world: &World) -> Result<()> {
    let _: SetIPTablesResponse = world.ok("SetIPTables", &set(false, FILTER)).await?;
    let before = saved(world, false).await?;
    let nonsense = FILTER.replace("-j DROP", "-j NOSUCHTARGET");
    world.refused("SetIPTables", &set(false, &nonsense), Code::INVALID_ARGUMENT).await?;
    let after = saved(world, false).await?;
    ensure!(rules(&before) == rules(&after), "{before}\nbecame\n{after}");
    Ok(())
}
