//! CDI: devices that a spec in the guest describes.

use anyhow::Result;
use serde_json::json;
use tests::{Code, ContainerBuilder, Guest, expect_code, seen};

fn named(builder: ContainerBuilder, devices: &str) -> ContainerBuilder {
    builder.spec(|spec| drop(spec.Annotations.insert("cdi.k8s.io/plugin".into(), devices.into())))
}

#[tokio::test]
async fn a_described_device_is_given_with_all_it_needs() -> Result<()> {
    let spec = json!({
        "cdiVersion": "0.6.0",
        "kind": "acme.com/noise",
        "containerEdits": { "env": ["ACME=yes"] },
        "devices": [{
            "name": "0",
            "containerEdits": {
                "env": ["NOISE=/dev/noise0"],
                "deviceNodes": [{ "path": "/dev/noise0", "hostPath": "/dev/full", "fileMode": 432, "gid": 33 }],
                "mounts": [{ "hostPath": "/etc/acme", "containerPath": "/acme", "options": ["ro"] }],
                "additionalGids": [33],
            },
        }],
    });
    let guest = Guest::builder()
        .cmdline(&["agent.cdi_timeout=1"])
        .file("/etc/cdi/acme.json", &spec.to_string())
        .file("/etc/cdi/other.yaml", "kind: acme.com/other")
        .file("/etc/acme/library", "of acme")
        .boot()
        .await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    let plain = guest.container("plain").run().await?;
    assert_ne!(plain.exec(["sh", "-c", "mknod /tmp/f c 1 7; echo x > /tmp/f"]).run().await?.status, 0);
    plain.remove().await?;
    let before = inspector.snapshot().await?;
    let container = named(guest.container("c1"), "acme.com/noise=0").run().await?;
    assert_eq!(
        container.sh("stat -c '%F %t %T %a %g' /dev/noise0").await?,
        "character special file 1 7 660 33"
    );
    assert_eq!(container.sh("head -c 3 /dev/noise0 | hexdump -e '3/1 \"%02x\"'").await?, "000000");
    let full = container.exec(["sh", "-c", "echo x > /dev/noise0"]).run().await?;
    assert!(String::from_utf8_lossy(&full.stderr).contains("No space left"), "it is the real one: {full:?}");
    assert_eq!(container.sh("cat /acme/library").await?, "of acme");
    let env = container.sh("tr '\\0' '\\n' </proc/1/environ | grep -e ACME -e NOISE").await?;
    assert_eq!(env, "ACME=yes\nNOISE=/dev/noise0");
    container.remove().await?;

    let refused = async |devices: &str, code: Code| {
        expect_code(named(guest.container("c1"), devices).try_create().await.map(drop), code)
    };
    let text = refused("acme.com/noise=0,acme.com/noise=7", Code::DEADLINE_EXCEEDED).await;
    assert!(text.contains("acme.com/noise=7") && !text.contains("noise=0"), "{text}");
    let text = refused("acme.com/other=0", Code::DEADLINE_EXCEEDED).await;
    assert!(text.contains("other.yaml") && text.contains("JSON"), "{text}");
    refused("nonsense", Code::INVALID_ARGUMENT).await;
    assert_eq!(inspector.settled(&before).await?, before);
    seen(
        "CDI",
        "device described by a spec in the guest",
        "described::a_described_device_is_given_with_all_it_needs",
    )
}
