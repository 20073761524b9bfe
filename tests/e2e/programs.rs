//! Helper programs of the guest, run by the agent: packet filters.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::{GetIPTablesRequest, SetIPTablesRequest};
use tests::{Code, Guest, expect_code};

async fn save(guest: &Guest, is_ipv6: bool) -> ttrpc::Result<String> {
    let request = GetIPTablesRequest { is_ipv6, ..Default::default() };
    let answer = guest.api().get_ip_tables(AgentClient::call(), &request).await?;
    Ok(String::from_utf8_lossy(&answer.data).into_owned())
}

async fn restore(guest: &Guest, is_ipv6: bool, rules: &str) -> ttrpc::Result<()> {
    let request = SetIPTablesRequest { is_ipv6, data: rules.into(), ..Default::default() };
    guest.api().set_ip_tables(AgentClient::call(), &request).await.map(drop)
}

/// What a service mesh sets up: its own traffic goes through, all other outgoing connections to its proxy.
const MESH: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:MESH_OUT - [0:0]
-A PREROUTING -p tcp -m multiport --dports 80,443 -j REDIRECT --to-ports 15006
-A OUTPUT -p tcp -j MESH_OUT
-A MESH_OUT -m owner --uid-owner 1337 -m comment --comment \"the proxy itself\" -j RETURN
-A MESH_OUT -p tcp -j REDIRECT --to-ports 15001
COMMIT
*filter
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m tcp --dport 15020 -j REJECT --reject-with tcp-reset
COMMIT
*mangle
-A PREROUTING -p tcp -m mark --mark 0x539 -j CONNMARK --save-mark
COMMIT
";

#[tokio::test]
async fn packet_filters_are_set_and_read_for_both_versions() -> Result<()> {
    let guest = Guest::builder().flavour("standard").boot().await?;
    for is_ipv6 in [false, true] {
        restore(&guest, is_ipv6, MESH).await?;
        let rules = save(&guest, is_ipv6).await?;
        for rule in MESH.lines().filter(|line| line.starts_with("-A") && !line.contains("CONNMARK")) {
            assert!(rules.contains(rule), "no {rule:?} (v6 {is_ipv6}) in\n{rules}");
        }
        assert!(rules.contains("--mark 0x539 -j CONNMARK --save-mark"), "{rules}");
        // A restore replaces the tables it names, and leaves the others.
        restore(&guest, is_ipv6, "*nat\n-A OUTPUT -p udp -j ACCEPT\nCOMMIT\n").await?;
        let rules = save(&guest, is_ipv6).await?;
        assert!(rules.contains("-A OUTPUT -p udp -j ACCEPT"), "{rules}");
        assert!(!rules.contains("MESH_OUT") && rules.contains("--dport 15020"), "{rules}");
    }
    Ok(())
}

/// What firewalls, network policies and Istio's zones of connections are written with, beside the words of `MESH`.
const FIREWALL: &str = "\
*raw
-A PREROUTING -p udp -m udp --dport 53 -j CT --zone 1
COMMIT
*filter
-A INPUT -m pkttype --pkt-type broadcast -j DROP
-A INPUT -p tcp -m connlimit --connlimit-above 20 -j REJECT
-A INPUT -m recent --update --seconds 60 --hitcount 4 --name ssh -j DROP
-A INPUT -m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name web -j ACCEPT
-A INPUT -m string --string \"attack\" --algo bm -j DROP
-A FORWARD -j LOG --log-prefix \"forwarded: \"
-A FORWARD -j NFLOG --nflog-group 3
COMMIT
";

/// The word of an address range needs addresses of the version.
const RANGES: [&str; 2] = ["10.0.0.1-10.0.0.9", "fd00::1-fd00::9"];

#[tokio::test]
async fn words_of_firewalls_and_of_zones_are_known() -> Result<()> {
    let guest = Guest::builder().flavour("standard").boot().await?;
    for (is_ipv6, range) in [false, true].into_iter().zip(RANGES) {
        let ranged = format!("*mangle\n-A INPUT -m iprange --src-range {range} -j ACCEPT\nCOMMIT\n");
        restore(&guest, is_ipv6, &format!("{FIREWALL}{ranged}")).await?;
        let rules = save(&guest, is_ipv6).await?;
        for word in [
            "--pkt-type broadcast",
            "--connlimit-above 20",
            "--hitcount 4",
            "--hashlimit-name web",
            "--string attack",
            "--log-prefix",
            "--nflog-group 3",
            "--zone 1",
            range,
        ] {
            assert!(rules.replace('"', "").contains(word), "no {word:?} (v6 {is_ipv6}) in\n{rules}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn bad_packet_filters_are_refused_and_change_nothing() -> Result<()> {
    let guest = Guest::builder().flavour("standard").boot().await?;
    restore(&guest, false, MESH).await?;
    let before = save(&guest, false).await?;
    for bad in [
        "nonsense\n",
        "*nat\n-A OUTPUT -p udp -j ACCEPT\n-A OUTPUT -j NO_SUCH_TARGET\nCOMMIT\n",
        "*nat\n-A NO_SUCH_CHAIN -j ACCEPT\nCOMMIT\n",
        "*nat\n-A OUTPUT --no-such-option\nCOMMIT\n",
    ] {
        let text = expect_code(restore(&guest, false, bad).await, Code::INVALID_ARGUMENT);
        assert!(text.contains("line"), "{bad:?}: {text}");
    }
    let text = expect_code(restore(&guest, false, "*nat\0").await, Code::INVALID_ARGUMENT);
    assert!(text.contains("NUL"), "{text}");
    // Counters may have moved; the rules have not.
    let plain = |rules: &str| {
        let lines = rules.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split('[').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(plain(&save(&guest, false).await?), plain(&before));
    Ok(())
}

#[tokio::test]
async fn a_mesh_redirects_what_a_container_sends() -> Result<()> {
    let guest = Guest::builder().flavour("standard").boot().await?;
    guest.sandbox().await?;
    let serve = "mkdir /www; echo through the proxy > /www/index.html; httpd -f -p 127.0.0.1:15001 -h /www";
    guest.container("proxy").script(serve).run().await?;
    restore(&guest, false, MESH).await?;
    let client = guest.container("client").run().await?;
    let fetch =
        "for i in $(seq 50); do wget -q -O - http://127.0.0.1:8080/ && exit 0; sleep 0.1; done; exit 1";
    assert_eq!(client.sh(fetch).await?, "through the proxy");
    // The proxy's own user is left alone: nobody listens on that port.
    let own = client.exec(["sh", "-c", "wget -q -O - http://127.0.0.1:8080/"]);
    let own = own.process(|process| process.User.mut_or_insert_default().UID = 1337).run().await?;
    assert_ne!(own.status, 0);
    Ok(())
}

#[tokio::test]
async fn a_flavour_without_packet_filter_tools_says_so() -> Result<()> {
    let guest = Guest::boot().await?;
    for is_ipv6 in [false, true] {
        let text = expect_code(save(&guest, is_ipv6).await, Code::UNIMPLEMENTED);
        assert!(text.contains("flavour"), "{text}");
        let text = expect_code(restore(&guest, is_ipv6, MESH).await, Code::UNIMPLEMENTED);
        assert!(text.contains("flavour") && text.contains("restore"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn two_hundred_calls_leave_nothing_of_the_programs() -> Result<()> {
    let guest = Guest::builder().flavour("standard").boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    save(&guest, false).await?;
    let before = inspector.snapshot().await?;
    for _ in 0..20 {
        let calls = (0..10).map(|number| {
            let api = guest.api().clone();
            let request = GetIPTablesRequest { is_ipv6: number % 2 == 0, ..Default::default() };
            tokio::spawn(async move { api.get_ip_tables(AgentClient::call(), &request).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await??;
        }
    }
    assert_eq!(inspector.settled(&before).await?, before);
    Ok(())
}
