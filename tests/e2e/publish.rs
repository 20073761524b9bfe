//! `pith run --publish`: ports of the host that lead into a pod.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::pods::{Pods, root};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody has.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An HTTP request by hand, and all that comes back.
fn get(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: pod\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200") || answer.starts_with("HTTP/1.0 200"), "{answer:?}");
    Ok(answer)
}

#[test]
fn a_published_port_leads_to_the_sample_pods_server() -> Result<()> {
    let pods = Pods::new()?;
    let port = free_port()?;
    let sample = root().join("tests/samples/pod.yaml").display().to_string();
    // The pod's main container fetches one page and ends.
    pods.success(&["run", "-d", "--keep", "-f", &sample, "-p", &format!("{port}:80")])?;
    let begun = Instant::now();
    let page = loop {
        match get(port) {
            Ok(page) => break page,
            Err(error) if begun.elapsed() > PATIENCE => return Err(error).context("no page"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    };
    assert!(page.contains("nginx"), "{page}");
    assert!(pods.success(&["ps"])?.contains(&format!("127.0.0.1:{port}->80/tcp")));
    let listed: serde_json::Value = serde_json::from_str(&pods.success(&["--json", "ps"])?)?;
    assert_eq!(listed[0]["ports"][0]["host_port"], port, "{listed}");
    pods.success(&["stop", "sample"])?;
    ensure!(TcpStream::connect(("127.0.0.1", port)).is_err(), "the port is open without the pod");
    pods.nothing_is_left()
}

#[test]
fn a_pod_without_published_ports_reaches_out_and_one_without_a_network_has_only_its_loopback() -> Result<()> {
    let pods = Pods::new()?;
    let script = "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' '";
    let manifest = pods.manifest("links", &[("one", script)])?.display().to_string();
    let with = pods.success(&["run", "-f", &manifest])?;
    assert!(with.contains("eth0 lo"), "{with}");
    let without = pods.success(&["run", "--network", "none", "-f", &manifest])?;
    assert!(without.contains("lo") && !without.contains("eth0"), "{without}");
    pods.nothing_is_left()
}

#[test]
fn ports_that_cannot_be_published_are_named_before_anything_boots() -> Result<()> {
    let pods = Pods::new()?;
    let manifest = pods.manifest("refused", &[("one", "true")])?.display().to_string();
    let refused = |arguments: &[&str], named: &str| -> Result<()> {
        let output = pods.run(&[&["run", "-f", manifest.as_str()], arguments].concat())?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && stderr.contains(named), "{named:?} is not in {stderr:?}");
        Ok(())
    };
    let holder = TcpListener::bind("127.0.0.1:0")?;
    let port = holder.local_addr()?.port();
    refused(&["-p", &format!("{port}:80")], &format!("tcp port {port} of this host is taken"))?;
    refused(&["-p", "8080:80", "--network", "none"], "--network user only, not with none")?;
    refused(&["-p", "8080:80", "-p", "8080:81"], "publish the same port")?;
    refused(&["-p", "0:80"], "from 1 to 65535")?;
    refused(&["--network", "host"], "there is user, none")?;
    pods.nothing_is_left()
}
