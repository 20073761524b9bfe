//! One network for the pod, links and routes as the host wants them.

use anyhow::Result;
use machine::vm::{AgentClient, MAC};
use protobuf::MessageField;
use protocols::agent::{
    ListInterfacesRequest, ListRoutesRequest, Routes, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use protocols::types;
use tests::{Code, Guest, expect_code, link};

#[tokio::test]
async fn two_containers_of_a_pod_meet_on_the_loopback() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let serve = "mkdir /www; echo hello from the server > /www/index.html; httpd -f -p 8080 -h /www";
    guest.container("server").script(serve).run().await?;
    let client = guest.container("client").run().await?;
    let fetch =
        "for i in $(seq 50); do wget -q -O - http://127.0.0.1:8080/ && exit 0; sleep 0.1; done; exit 1";
    assert_eq!(client.sh(fetch).await?, "hello from the server");
    Ok(())
}

#[tokio::test]
async fn a_container_whose_spec_lists_a_network_namespace_has_its_own() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let shared = guest.container("shared").run().await?;
    let alone = guest
        .container("alone")
        .linux(|linux| {
            let namespace = protocols::oci::LinuxNamespace { Type: "network".into(), ..Default::default() };
            linux.Namespaces.push(namespace);
        })
        .run()
        .await?;
    let link = "readlink /proc/self/ns/net";
    assert_ne!(shared.sh(link).await?, alone.sh(link).await?);
    // Its loopback is another one: what the pod serves there cannot be reached from it.
    shared.sh("mkdir /www; echo hello > /www/index.html; httpd -p 127.0.0.1:8080 -h /www").await?;
    let fetch = "wget -q -O - http://127.0.0.1:8080/";
    assert_eq!(
        shared.sh(&format!("for i in $(seq 50); do {fetch} && exit 0; sleep 0.1; done; exit 1")).await?,
        "hello"
    );
    assert_ne!(alone.exec(["sh", "-c", fetch]).run().await?.status, 0);
    assert_eq!(alone.sh("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '").await?, "lo");
    Ok(())
}

#[tokio::test]
async fn links_and_routes_become_what_the_host_asks_for() -> Result<()> {
    let guest = Guest::builder().network().boot().await?;
    let request = UpdateInterfaceRequest { interface: MessageField::some(link()), ..Default::default() };
    guest.api().update_interface(AgentClient::call(), &request).await?;
    let list = guest.api().list_interfaces(AgentClient::call(), &ListInterfacesRequest::new()).await?;
    let eth0 = list.Interfaces.iter().find(|link| link.name == "eth0").expect("eth0 is listed");
    assert_eq!((eth0.mtu, eth0.hwAddr.as_str()), (1400, MAC));
    assert!(eth0.IPAddresses.iter().any(|ip| ip.address == "10.0.2.15" && ip.mask == "24"), "{eth0:?}");
    // QEMU's network has a router that announces addresses.
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    assert_eq!(container.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra").await?, "0");
    // A router answers whoever comes up, within a second. The link has no address but its own, and no default route.
    let addresses = "sleep 3; grep ' eth0$' /proc/net/if_inet6 | grep -v ^fe80 || true";
    assert_eq!(container.sh(addresses).await?, "");
    let defaults = "grep '^0\\{32\\} 00 .* eth0$' /proc/net/ipv6_route || true";
    assert_eq!(container.sh(defaults).await?, "");
    let loopback = list.Interfaces.iter().find(|link| link.name == "lo").expect("lo is listed");
    let own = loopback.IPAddresses.iter().find(|ip| ip.address == "127.0.0.1").expect("lo has its address");
    assert_eq!(own.family.enum_value(), Ok(types::IPFamily::v4));

    let gateway = types::Route { gateway: "10.0.2.2".into(), device: "eth0".into(), ..Default::default() };
    let routes = Routes { Routes: vec![gateway], ..Default::default() };
    let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
    guest.api().update_routes(AgentClient::call(), &request).await?;
    let now = guest.api().list_routes(AgentClient::call(), &ListRoutesRequest::new()).await?;
    assert!(now.Routes.iter().any(|route| route.gateway == "10.0.2.2" && route.device == "eth0"), "{now:?}");
    Ok(())
}

#[tokio::test]
async fn where_ipv6_is_off_ipv4_is_set_all_the_same() -> Result<()> {
    let guest = Guest::builder().network().cmdline(&["ipv6.disable=1"]).boot().await?;
    let mut wanted = link();
    wanted.IPAddresses.push(types::IPAddress {
        family: types::IPFamily::v6.into(),
        address: "fd00::15".into(),
        mask: "64".into(),
        ..Default::default()
    });
    let request = UpdateInterfaceRequest { interface: MessageField::some(wanted), ..Default::default() };
    guest.api().update_interface(AgentClient::call(), &request).await?;
    let default =
        |gateway: &str| types::Route { gateway: gateway.into(), device: "eth0".into(), ..Default::default() };
    let routes = Routes { Routes: vec![default("fd00::1"), default("10.0.2.2")], ..Default::default() };
    let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
    guest.api().update_routes(AgentClient::call(), &request).await?;
    let now = guest.api().list_routes(AgentClient::call(), &ListRoutesRequest::new()).await?;
    let gateways: Vec<_> = now.Routes.iter().map(|route| route.gateway.as_str()).collect();
    assert!(gateways.contains(&"10.0.2.2") && !gateways.contains(&"fd00::1"), "{now:?}");
    assert!(now.Routes.iter().all(|route| !route.dest.contains(':')), "{now:?}");
    let list = guest.api().list_interfaces(AgentClient::call(), &ListInterfacesRequest::new()).await?;
    let addresses: Vec<_> = list.Interfaces.iter().flat_map(|link| &link.IPAddresses).collect();
    assert!(addresses.iter().any(|ip| ip.address == "10.0.2.15"), "{list:?}");
    assert!(addresses.iter().all(|ip| !ip.address.contains(':')), "{list:?}");
    // The kernel says the same: it has no table of IPv6 at all, or an empty one.
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    assert_eq!(container.sh("cat /proc/net/if_inet6 /proc/net/ipv6_route 2>/dev/null || true").await?, "");
    Ok(())
}

#[tokio::test]
async fn empty_and_impossible_network_requests_are_refused() -> Result<()> {
    let guest = Guest::boot().await?;
    let empty = guest.api().update_interface(AgentClient::call(), &UpdateInterfaceRequest::new()).await;
    expect_code(empty, Code::INVALID_ARGUMENT);
    let empty = guest.api().update_routes(AgentClient::call(), &UpdateRoutesRequest::new()).await;
    expect_code(empty, Code::INVALID_ARGUMENT);
    let bad = types::Interface { name: "eth0".into(), hwAddr: "not a mac".into(), ..Default::default() };
    let request = UpdateInterfaceRequest { interface: MessageField::some(bad), ..Default::default() };
    expect_code(guest.api().update_interface(AgentClient::call(), &request).await, Code::INVALID_ARGUMENT);
    Ok(())
}
