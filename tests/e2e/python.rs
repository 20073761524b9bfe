//! A client that shares no code with ours drives the guest: tests/python/pith.py, on Python's standard library alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use machine::vm::Endpoint;
use tests::Guest;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Runs a script to its end, without holding up the machine.
async fn run(name: &'static str, arguments: Vec<String>) -> Result<(Option<i32>, String, String)> {
    let work = move || {
        let output = std::process::Command::new("python3").arg(script(name)).args(arguments).output();
        let output = output.context("run python3 (Debian: apt-get install python3)")?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        anyhow::Ok((output.status.code(), text(output.stdout), text(output.stderr)))
    };
    tokio::task::spawn_blocking(work).await?
}

fn at(guest: &Guest, order: &[&str]) -> Vec<String> {
    let place = match guest.vm().endpoint() {
        Endpoint::Hybrid { socket } => ["--socket".to_owned(), socket.display().to_string()],
        Endpoint::Vsock { cid } => ["--cid".to_owned(), cid.to_string()],
        Endpoint::Unix { socket } => unreachable!("no machine is reached at {}", socket.display()),
    };
    place.into_iter().chain(order.iter().map(|word| (*word).to_owned())).collect()
}

#[tokio::test]
async fn its_protobuf_is_googles() -> Result<()> {
    let (status, out, err) = run("codec_test.py", Vec::new()).await?;
    assert_eq!(status, Some(0), "{out}{err}");
    Ok(())
}

#[tokio::test]
async fn it_runs_a_pods_whole_life() -> Result<()> {
    let guest = Guest::boot().await?;
    let (status, out, err) = run("pith.py", at(&guest, &["life"])).await?;
    assert_eq!(status, Some(0), "{out}{err}");
    assert!(out.ends_with("done\n"), "{out}");
    assert!(guest.vm().wait_off(Duration::from_secs(60)).await, "the machine stays on");
    Ok(())
}

#[tokio::test]
async fn it_answers_people_with_json_and_exit_statuses() -> Result<()> {
    let guest = Guest::boot().await?;
    let (status, out, _) = run("pith.py", at(&guest, &["check"])).await?;
    assert_eq!(status, Some(0));
    assert!(out.starts_with("serving, agent "), "{out}");
    let (status, out, _) = run("pith.py", at(&guest, &["call", "ListInterfaces"])).await?;
    let answer: serde_json::Value = serde_json::from_str(&out)?;
    assert_eq!((status, answer["Interfaces"][0]["name"].as_str()), (Some(0), Some("lo")), "{out}");
    let unknown = [r"StatsContainer", r#"{"container_id": "nobody"}"#];
    let (status, _, err) = run("pith.py", at(&guest, &["call", unknown[0], unknown[1]])).await?;
    assert_eq!(status, Some(1));
    assert!(err.contains("NOT_FOUND"), "{err}");
    let (status, _, err) = run("pith.py", at(&guest, &["call", "NoSuchMethod"])).await?;
    assert_eq!(status, Some(2));
    assert!(err.contains("NoSuchMethod"), "{err}");
    for senseless in ["[]", "5", r#"{"container_id": 5}"#, r#"{"no_such_field": 1}"#, "{"] {
        let (status, _, err) = run("pith.py", at(&guest, &["call", "StatsContainer", senseless])).await?;
        assert_eq!(status, Some(2), "{senseless}: {err}");
        assert!(err.starts_with("pith.py: ") && !err.contains("Traceback"), "{err}");
    }
    // A field of the request, not a deadline of the client's.
    let removal = r#"{"container_id": "nobody", "timeout": 3}"#;
    let (status, _, err) = run("pith.py", at(&guest, &["call", "RemoveContainer", removal])).await?;
    assert_eq!(status, Some(1), "{err}");
    let (status, _, err) =
        run("pith.py", ["--socket", "/nowhere", "check"].map(str::to_owned).to_vec()).await?;
    assert_eq!(status, Some(2));
    assert!(err.contains("/nowhere"), "{err}");
    Ok(())
}
