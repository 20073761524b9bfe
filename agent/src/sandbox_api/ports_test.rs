//! Which port is meant, what its server gets, and connections that are upgraded, over TCP on both sides.

use futures_util::future::{BoxFuture, FutureExt as _};
use sandbox_api::http::{Limits, Service, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

fn head(fields: &[(&str, &str)]) -> Head {
    let mut head = Head::of("GET", "/a%20b?x");
    fields.iter().for_each(|(name, value)| head.headers.push(name, value));
    head
}

#[test]
fn a_port_is_named_by_a_header() {
    assert_eq!(wanted(&head(&[("E2b-Sandbox-Port", "49999")])), Some(49999));
    for none in ["49983", "0", "-1", "65536", "x", ""] {
        assert_eq!(wanted(&head(&[("E2b-Sandbox-Port", none)])), None, "{none}");
    }
    assert_eq!(wanted(&head(&[])), None);
}

#[test]
fn a_request_is_passed_on_without_the_token_and_asks_for_the_end() {
    let fields = [("Host", "h"), ("X-Access-Token", "t"), ("Connection", "keep-alive"), ("Keep-Alive", "5")];
    let text = String::from_utf8(rewritten(&head(&fields))).unwrap();
    assert_eq!(text, "GET /a%20b?x HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
    let fields = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("X-Access-Token", "t")];
    let text = String::from_utf8(rewritten(&head(&fields))).unwrap();
    assert_eq!(text, "GET /a%20b?x HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
}

/// Hands every request over to a server at this address.
struct Port(SocketAddr);

impl Service for Port {
    fn call(&self, request: Request) -> BoxFuture<'static, Response> {
        let address = self.0;
        async move {
            drop(request.body);
            handed_over(request.head, TcpStream::connect(address).await.unwrap())
        }
        .boxed()
    }
}

const REQUEST: &str =
    "GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Access-Token: t\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\n\r\n";

/// A client and the server that it was upgraded to. The first message is on its way before the server has answered.
async fn upgraded() -> (TcpStream, TcpStream) {
    let loopback = (Ipv4Addr::LOCALHOST, 0);
    let (api, port) =
        (TcpListener::bind(loopback).await.unwrap(), TcpListener::bind(loopback).await.unwrap());
    let at_port = port.local_addr().unwrap();
    let mut client = TcpStream::connect(api.local_addr().unwrap()).await.unwrap();
    let (near, _) = api.accept().await.unwrap();
    tokio::spawn(async move { serve(Box::new(near), &Port(at_port), &Limits::default()).await });
    client.write_all(format!("{REQUEST}first").as_bytes()).await.unwrap();
    let (mut server, _) = port.accept().await.unwrap();
    hears(&mut server, "GET /chat HTTP/1.1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nfirst").await;
    server.write_all(SWITCHED.as_bytes()).await.unwrap();
    hears(&mut client, SWITCHED).await;
    (client, server)
}

/// Reads exactly this.
async fn hears(stream: &mut TcpStream, expected: &str) {
    let mut read = vec![0; expected.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&read), expected);
}

/// Reads what is left until the other side says that there is no more.
async fn hears_at_last(stream: &mut TcpStream, expected: &str) {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn messages_of_an_upgraded_connection_pass_both_ways() {
    let (mut client, mut server) = upgraded().await;
    for number in 0..20 {
        let (ask, answer) = (format!("ask {number}"), format!("answer {number}, and something unasked"));
        client.write_all(ask.as_bytes()).await.unwrap();
        hears(&mut server, &ask).await;
        server.write_all(answer.as_bytes()).await.unwrap();
        hears(&mut client, &answer).await;
    }
    // Both at once, more than what waits anywhere on the way.
    let flood = "0123456789abcdef".repeat(1 << 16);
    let (mut from_server, mut to_server) = client.split();
    let (mut from_client, mut to_client) = server.split();
    let (mut here, mut there) = (vec![0; flood.len()], vec![0; flood.len()]);
    let passed = tokio::join!(
        to_server.write_all(flood.as_bytes()),
        to_client.write_all(flood.as_bytes()),
        from_server.read_exact(&mut here),
        from_client.read_exact(&mut there),
    );
    assert!(passed.0.is_ok() && passed.1.is_ok() && passed.2.is_ok() && passed.3.is_ok());
    assert!(here == flood.as_bytes() && there == flood.as_bytes());
}

#[tokio::test]
async fn an_upgraded_connection_outlives_the_end_of_what_the_client_sends() {
    let (mut client, mut server) = upgraded().await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    hears_at_last(&mut server, "last").await;
    // Longer than silence lasts on a connection that is over.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.write_all(b"so much for that").await.unwrap();
    drop(server);
    hears_at_last(&mut client, "so much for that").await;
}

#[tokio::test]
async fn an_upgraded_connection_ends_when_either_side_hangs_up() {
    let (mut client, mut server) = upgraded().await;
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    hears_at_last(&mut client, "bye").await;
    // What was under way arrives, and then the server hears of the end though the client does nothing.
    client.write_all(b"bye, too").await.unwrap();
    hears_at_last(&mut server, "bye, too").await;
    let (client, mut server) = upgraded().await;
    drop(client);
    hears_at_last(&mut server, "").await;
    // A server that dies is an end for the client, as well.
    let (mut client, server) = upgraded().await;
    server.set_zero_linger().unwrap();
    drop(server);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest)).await;
    ended.expect("the client hears of it").ok();
    assert!(rest.is_empty());
}
