//! GetDiagnosticData: the host asks what a container left, and the container decides what is there.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::{CopyFileRequest, GetDiagnosticDataRequest};
use tests::{Code, Container, Guest, expect_code};

const SHARED: &str = "/run/kata-containers/shared/containers";
const PATH: &str = "io.kubernetes.container.terminationMessagePath";

async fn message(guest: &Guest, id: &str) -> ttrpc::Result<String> {
    let request = GetDiagnosticDataRequest {
        log_type: "termination_log".into(),
        container_id: id.into(),
        ..Default::default()
    };
    Ok(guest.api().get_diagnostic_data(AgentClient::call(), &request).await?.data)
}

/// A container whose message is at `/tmp/message`, in its own root.
async fn container(guest: &Guest, id: &str) -> Result<Container> {
    let annotate = |spec: &mut protocols::oci::Spec| {
        spec.Annotations.insert(PATH.into(), "/tmp/message".into());
    };
    guest.container(id).spec(annotate).run().await
}

#[tokio::test]
async fn a_message_is_the_containers_own_whatever_it_makes_of_it() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let secret = CopyFileRequest {
        path: format!("{SHARED}/secret"),
        file_size: 6,
        file_mode: 0o100_644,
        data: b"secret".to_vec(),
        ..Default::default()
    };
    guest.api().copy_file(AgentClient::call(), &secret).await?;
    let container = container(&guest, "c1").await?;
    container.sh("mkdir -p /tmp").await?;
    assert_eq!(message(&guest, "c1").await?, "");
    let up = "../".repeat(12);
    for target in [format!("{SHARED}/secret"), format!("{up}{SHARED}/secret"), "/proc/1/environ".to_owned()] {
        container.sh(&format!("ln -sfn {target} /tmp/message")).await?;
        assert_eq!(message(&guest, "c1").await?, "", "{target}");
    }
    // Its own links are its own affair.
    container.sh("echo mine >/tmp/real; ln -sfn /tmp/real /tmp/message").await?;
    assert_eq!(message(&guest, "c1").await?, "mine\n");
    // What would block, or is endless, is refused at once.
    for make in [
        "mkfifo /tmp/message",
        "mkdir /tmp/message",
        "mknod /tmp/message c 1 5",
        "ln -s message /tmp/message",
    ] {
        container.sh(&format!("rm -rf /tmp/message; {make}")).await?;
        let text = expect_code(message(&guest, "c1").await, Code::INTERNAL);
        assert!(text.contains("c1"), "{text}");
    }
    container.sh("rm -rf /tmp/message; head -c 9000000 /dev/zero | tr '\\0' x >/tmp/message; echo end >>/tmp/message").await?;
    let long = message(&guest, "c1").await?;
    assert!(long.len() == 16 * 1024 && long.ends_with("xend\n"), "{} bytes", long.len());
    // After the end it is still there, and with the container it goes.
    container.sh("echo goodbye >/tmp/message").await?;
    container.signal("", 9).await?;
    assert_eq!(container.wait().await?, 137);
    assert_eq!(message(&guest, "c1").await?, "goodbye\n");
    container.remove().await?;
    expect_code(message(&guest, "c1").await, Code::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn other_data_and_other_containers_are_refused() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    container(&guest, "c1").await?;
    let api = guest.api();
    let ask = |log_type: &str, container_id: &str| {
        let request = GetDiagnosticDataRequest {
            log_type: log_type.into(),
            container_id: container_id.into(),
            ..Default::default()
        };
        async move { api.get_diagnostic_data(AgentClient::call(), &request).await }
    };
    for kind in ["", "dmesg", "/etc/passwd", "TERMINATION_LOG"] {
        expect_code(ask(kind, "c1").await, Code::INVALID_ARGUMENT);
    }
    for id in ["c2", "../c1", ""] {
        expect_code(ask("termination_log", id).await, Code::NOT_FOUND);
    }
    Ok(())
}
