//! Network cards that are plugged in while the pod runs.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::Result;
use machine::vm::AgentClient;
use protobuf::MessageField;
use protocols::agent::{Routes, UpdateInterfaceRequest, UpdateRoutesRequest};
use protocols::types;
use serde_json::{Value, json};
use tests::{Code, Container, Guest, GuestBuilder, Port, address, expect_code, seen};

use crate::q35;

const MAC: &str = "52:54:00:aa:bb:01";

fn card(mac: &str, path: &str, ip: &str) -> types::Interface {
    types::Interface {
        device: "eth0".into(),
        name: "eth0".into(),
        hwAddr: mac.into(),
        devicePath: path.into(),
        mtu: 1500,
        IPAddresses: vec![address(ip, "24")],
        ..Default::default()
    }
}

async fn update(client: &AgentClient, interface: types::Interface) -> ttrpc::Result<()> {
    let request = UpdateInterfaceRequest { interface: MessageField::some(interface), ..Default::default() };
    client.agent.update_interface(AgentClient::call(), &request).await.map(drop)
}

async fn plug(guest: &Guest, port: &Port, netdev: Value, mac: &str) -> Result<()> {
    plug_with(guest, port, netdev, json!({ "mac": mac })).await
}

async fn plug_with(guest: &Guest, port: &Port, netdev: Value, mut properties: Value) -> Result<()> {
    guest.vm().qmp("netdev_add", netdev).await?;
    properties["netdev"] = "n1".into();
    guest.plug_into(port, "virtio-net-pci", "card", properties).await
}

/// Answers one request of each client with a page.
fn server() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut request = [0; 512];
            if client.read(&mut request).is_ok() {
                let page = "HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\nfrom the host";
                drop(client.write_all(page.as_bytes()));
            }
        }
    });
    Ok(port)
}

/// Has the configuration asked for before the card is there.
async fn plugged_late(port: Port, path: &str) -> Result<()> {
    let builder = Guest::builder().cmdline(&["agent.hotplug_timeout=30"]);
    let guest = q35(builder, std::slice::from_ref(&port)).await?;
    let container = guest.container("c1").run().await?;
    let asking = {
        let (client, interface) = (guest.client().clone(), card(MAC, path, "10.0.2.15"));
        tokio::spawn(async move { update(&client, interface).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!asking.is_finished(), "it is not there yet");
    plug(&guest, &port, json!({ "type": "user", "id": "n1" }), MAC).await?;
    asking.await??;
    reaches_the_host(&guest, &container).await
}

/// A card with further properties is plugged in, set up and used.
pub(crate) async fn plugged(builder: GuestBuilder, port: Port, mut properties: Value) -> Result<()> {
    let guest = q35(builder, std::slice::from_ref(&port)).await?;
    let container = guest.container("c1").run().await?;
    properties["mac"] = MAC.into();
    plug_with(&guest, &port, json!({ "type": "user", "id": "n1" }), properties).await?;
    update(guest.client(), card(MAC, "", "10.0.2.15")).await?;
    reaches_the_host(&guest, &container).await
}

/// Routes lead out by the card, the host's page comes back, and the card goes.
async fn reaches_the_host(guest: &Guest, container: &Container) -> Result<()> {
    let route = types::Route { gateway: "10.0.2.2".into(), device: "eth0".into(), ..Default::default() };
    let routes = Routes { Routes: vec![route], ..Default::default() };
    let request = UpdateRoutesRequest { routes: MessageField::some(routes), ..Default::default() };
    guest.api().update_routes(AgentClient::call(), &request).await?;
    let page = container.sh(&format!("wget -q -O - http://10.0.2.2:{}/", server()?)).await?;
    assert_eq!(page, "from the host");
    guest.unplug("card").await?;
    assert_eq!(container.sh("ls /sys/class/net").await?, "lo");
    Ok(())
}

#[tokio::test]
async fn a_card_is_found_by_its_address_when_it_comes() -> Result<()> {
    plugged_late(Port::ROOT, "").await?;
    seen(
        "NIC",
        "hot-plugged, found by hardware address, reaches the host",
        "nics::a_card_is_found_by_its_address_when_it_comes",
    )
}

#[tokio::test]
async fn a_card_is_found_by_its_place_when_it_comes() -> Result<()> {
    plugged_late(Port::ROOT, Port::ROOT.path).await?;
    seen(
        "NIC",
        "hot-plugged, found by PCI path, reaches the host",
        "nics::a_card_is_found_by_its_place_when_it_comes",
    )
}

#[tokio::test]
async fn a_card_comes_through_a_bridge() -> Result<()> {
    plugged_late(Port::BRIDGE, Port::BRIDGE.path).await?;
    seen("NIC", "hot-plugged into a PCI bridge, reaches the host", "nics::a_card_comes_through_a_bridge")
}

#[tokio::test]
async fn cards_that_never_come_are_not_found() -> Result<()> {
    let guest = q35(Guest::builder().cmdline(&["agent.hotplug_timeout=1"]), &[Port::ROOT]).await?;
    let by_path = update(guest.client(), card(MAC, Port::ROOT.path, "10.0.2.15")).await;
    let text = expect_code(by_path, Code::DEADLINE_EXCEEDED);
    assert!(text.contains(Port::ROOT.path), "{text}");
    expect_code(update(guest.client(), card(MAC, "", "10.0.2.15")).await, Code::NOT_FOUND);
    expect_code(update(guest.client(), card(MAC, "zz", "10.0.2.15")).await, Code::INVALID_ARGUMENT);
    Ok(())
}

#[tokio::test]
async fn two_guests_speak_to_each_other() -> Result<()> {
    let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let mut pods = Vec::new();
    for (role, number) in [("listen", 1), ("connect", 2)] {
        let guest = q35(Guest::builder(), &[Port::ROOT]).await?;
        let container = guest.container("c1").run().await?;
        let mac = format!("52:54:00:aa:bb:0{number}");
        plug(&guest, &Port::ROOT, json!({ "type": "socket", "id": "n1", role: free }), &mac).await?;
        update(guest.client(), card(&mac, "", &format!("10.9.0.{number}"))).await?;
        pods.push((guest, container));
    }
    let (one, other) = (&pods[0].1, &pods[1].1);
    let listening = one.exec(["sh", "-c", "echo from one | nc -l -p 7000"]).start().await?;
    let got =
        other.sh("for i in $(seq 50); do nc 10.9.0.1 7000 </dev/null && break; sleep 0.1; done").await?;
    assert_eq!(got, "from one");
    assert_eq!(listening.wait().await?, 0);
    seen("NIC", "hot-plugged, reaches another VM", "nics::two_guests_speak_to_each_other")
}
