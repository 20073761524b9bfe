//! `pith run --network netns=NAME`: a pod in a network namespace of the host. Needs root and `ip`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::host_tool;

use crate::pods::Pods;

const PATIENCE: Duration = Duration::from_secs(120);
const MAC: &str = "02:70:69:74:68:02";

/// A namespace with one end of a veth pair, whose other end is in the host's. Dropping it removes both.
struct Namespace {
    name: String,
    outer: String,
    subnet: String,
}

impl Namespace {
    /// None, with the reason on standard error, where the host does not let tests make one.
    fn new(number: u8) -> Result<Option<Namespace>> {
        let name = format!("pith-{}-{number}", std::process::id());
        if let Err(error) = host_tool("ip", &["netns", "add", &name]) {
            eprintln!("SKIPPED: this host makes no network namespaces: {error:#}");
            return Ok(None);
        }
        let low = u8::try_from(std::process::id() % 200)?;
        let namespace = Namespace {
            outer: format!("pith{number}v{}", std::process::id()),
            subnet: format!("10.{}.{low}", 211 + number),
            name,
        };
        let (outer, subnet, inside) = (&namespace.outer, &namespace.subnet, &namespace.name);
        ip(&["link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", inside])?;
        ip(&["addr", "add", &format!("{subnet}.1/24"), "dev", outer])?;
        ip(&["link", "set", outer, "mtu", "1400", "up"])?;
        namespace.ip(&["link", "set", "eth0", "address", MAC, "mtu", "1400"])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
        namespace.ip(&["addr", "add", &format!("{subnet}.2/24"), "dev", "eth0"])?;
        namespace.ip(&["route", "add", "default", "via", &format!("{subnet}.1")])?;
        let neighbour = format!("{subnet}.99");
        namespace.ip(&["neigh", "add", &neighbour, "lladdr", "02:00:00:00:00:99", "dev", "eth0"])?;
        if let Err(error) = namespace.probe() {
            eprintln!("SKIPPED: this host cannot mirror links: {error:#}");
            return Ok(None);
        }
        Ok(Some(namespace))
    }

    /// Tries what a run needs, and takes it away again.
    fn probe(&self) -> Result<()> {
        let tc = |arguments: &[&str]| host_tool("tc", &[&["-n", &self.name], arguments].concat());
        std::fs::File::options().write(true).open("/dev/net/tun").context("open /dev/net/tun")?;
        tc(&["qdisc", "add", "dev", "eth0", "ingress"])?;
        let words = "filter add dev eth0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev lo";
        let mirrored = tc(&words.split(' ').collect::<Vec<_>>());
        tc(&["qdisc", "del", "dev", "eth0", "ingress"])?;
        mirrored.map(drop)
    }

    fn ip(&self, arguments: &[&str]) -> Result<String> {
        ip(&[&["-n", &self.name], arguments].concat())
    }

    /// Links and queues, without what counts or ages.
    fn shape(&self) -> Result<(String, String)> {
        let links = self.ip(&["-br", "link"])?;
        Ok((links, host_tool("tc", &["-n", &self.name, "qdisc", "show"])?))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(ip(&["link", "del", &self.outer]));
        drop(ip(&["netns", "del", &self.name]));
    }
}

fn ip(arguments: &[&str]) -> Result<String> {
    host_tool("ip", arguments)
}

/// Answers one request on the host's end of the pair.
fn serve_once(address: &str) -> Result<(u16, std::thread::JoinHandle<Result<String>>)> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    let thread = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept()?;
        let mut request = BufReader::new(stream.try_clone()?).lines();
        while request.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 13\r\n\r\nfrom the host")?;
        Ok(from.ip().to_string())
    });
    Ok((port, thread))
}

fn get(address: &str) -> Result<String> {
    let begun = Instant::now();
    let mut stream = loop {
        match TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(2)) {
            Ok(stream) => break stream,
            Err(error) if begun.elapsed() > PATIENCE => return Err(error).context("no connection"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_pod_in_a_namespace_serves_and_reaches_the_other_end_of_its_link() -> Result<()> {
    let Some(namespace) = Namespace::new(1)? else { return Ok(()) };
    let subnet = &namespace.subnet;
    let before = namespace.shape()?;
    let pods = Pods::new()?;
    let serve = "mkdir /www; seq 100000 > /www/index.html; exec httpd -f -p 8080 -h /www";
    let manifest = pods.manifest("joined", &[("one", serve)])?.display().to_string();
    let network = format!("netns={}", namespace.name);
    pods.success(&["run", "--detach", "--network", &network, "-f", &manifest])?;

    // More than fits in one segment, so that offloads are met too.
    let page = get(&format!("{subnet}.2:8080"))?;
    ensure!(page.starts_with("HTTP/1.") && page.ends_with("99999\n100000\n"), "{} bytes", page.len());
    let (port, server) = serve_once(&format!("{subnet}.1"))?;
    let sh = |script: &str| pods.success(&["exec", "joined", "one", "--", "sh", "-c", script]);
    assert_eq!(sh(&format!("wget -q -O - http://{subnet}.1:{port}/"))?, "from the host");
    let seen = server.join().map_err(|_| anyhow::anyhow!("the server died"))??;
    assert_eq!(seen, format!("{subnet}.2"), "the guest has the link's address");

    assert_eq!(sh("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu")?, format!("{MAC}\n1400\n"));
    assert!(sh("ip route")?.contains(&format!("default via {subnet}.1 dev eth0")));
    assert!(sh("cat /proc/net/arp")?.contains("02:00:00:00:00:99"), "the permanent neighbour");
    pods.success(&["stop", "joined"])?;
    assert_eq!(namespace.shape()?, before, "what was made is gone");
    pods.nothing_is_left()
}

#[test]
fn what_a_killed_run_left_is_said_and_never_replaced() -> Result<()> {
    let Some(namespace) = Namespace::new(2)? else { return Ok(()) };
    let pods = Pods::new()?;
    let manifest = pods.manifest("again", &[("one", "sleep 1000")])?.display().to_string();
    let network = format!("netns={}/eth0", namespace.name);
    let run = ["run", "--detach", "--network", &network, "-f", &manifest];
    pods.success(&run)?;
    let listed: serde_json::Value = serde_json::from_str(&pods.success(&["--json", "ps"])?)?;
    let pid = listed[0]["pid"].as_u64().context("no pid")?;
    let killed = Command::new("kill").args(["-KILL", &pid.to_string()]).status()?;
    ensure!(killed.success(), "kill failed");
    // It takes a moment to die, and whoever looks afterwards tidies up.
    let begun = Instant::now();
    loop {
        pods.success(&["ps"])?;
        match pods.nothing_is_left() {
            Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(100)),
            result => break result?,
        }
    }
    ensure!(!namespace.shape()?.0.contains("pith"), "the TAP device goes with its process");
    let refused = pods.run(&run)?;
    let stderr = String::from_utf8_lossy(&refused.stderr);
    let fix = format!("tc -n {} qdisc del dev eth0 ingress", namespace.name);
    ensure!(!refused.status.success() && stderr.contains(&fix), "{stderr}");
    ensure!(!namespace.shape()?.0.contains("pith"), "a refused run leaves nothing");
    host_tool("tc", &["-n", &namespace.name, "qdisc", "del", "dev", "eth0", "ingress"])?;
    pods.success(&run)?;
    pods.success(&["stop", "again"])?;
    pods.nothing_is_left()
}

#[test]
fn a_namespace_that_will_not_do_is_named_before_anything_boots() -> Result<()> {
    let Some(namespace) = Namespace::new(3)? else { return Ok(()) };
    let pods = Pods::new()?;
    let manifest = pods.manifest("refused", &[("one", "true")])?.display().to_string();
    for (network, named) in [
        ("netns=pith-no-such".to_owned(), "no network namespace \"pith-no-such\""),
        (format!("netns={}/eth7", namespace.name), "has no link eth7"),
        (format!("netns={}/lo", namespace.name), "does not carry Ethernet"),
    ] {
        let output = pods.run(&["run", "--network", &network, "-f", &manifest])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !stderr.contains(named) {
            bail!("{named:?} is not in {stderr:?}");
        }
    }
    namespace.ip(&["link", "set", "eth0", "down"])?;
    let output =
        pods.run(&["run", "--network", &format!("netns={}/eth0", namespace.name), "-f", &manifest])?;
    ensure!(String::from_utf8_lossy(&output.stderr).contains("link set eth0 up"), "{output:?}");
    pods.nothing_is_left()
}
