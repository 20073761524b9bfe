//! The Rust client, as a program of somebody else would use it: it finds a pod that `pith` runs, and works in it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use protocols::agent::{ExecProcessRequest, StatsContainerRequest};
use protocols::client::{AgentClient, CallError, Code, DialError, Endpoint, Process};
use protocols::{health, oci};
use tests::Pods;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn exec(container: &str, exec: &str, args: &[&str]) -> ExecProcessRequest {
    let process = oci::Process {
        Args: args.iter().map(|word| (*word).to_owned()).collect(),
        Env: vec!["PATH=/usr/bin:/bin".into()],
        Cwd: "/".into(),
        User: Some(oci::User::default()).into(),
        ..oci::Process::default()
    };
    ExecProcessRequest {
        container_id: container.into(),
        exec_id: exec.into(),
        process: Some(process).into(),
        ..ExecProcessRequest::default()
    }
}

#[tokio::test]
async fn it_works_in_a_pod_that_pith_runs() -> Result<()> {
    let pods = Pods::new()?;
    let manifest = pods.manifest("web", &[("server", "sleep 1000")])?;
    pods.success(&["run", "-d", "-f", &manifest.display().to_string()])?;
    let told: serde_json::Value = serde_json::from_str(&pods.success(&["inspect", "web"])?)?;
    let endpoint: Endpoint = serde_json::from_value(told[0]["endpoint"].clone())?;
    let id = told[0]["containers"][0]["id"].as_str().context("an id")?;

    let client = AgentClient::connect(&endpoint).await?;
    let version = client.health.version(AgentClient::call(), &health::CheckRequest::new()).await?;
    assert_eq!(version.agent_version, env!("CARGO_PKG_VERSION"));

    // More than fits into any pipe on the way, in both directions at once.
    let cat = Process::exec(&client, &exec(id, "cat", &["cat"])).await.map_err(CallError::from)?;
    let data: Vec<u8> = (0..600_000_u32).map(|number| (number % 251) as u8).collect();
    let (mut stdin, mut stdout, mut back) = (cat.stdin(), cat.stdout(), Vec::new());
    let feed = async {
        stdin.write_all(&data).await?;
        stdin.shutdown().await
    };
    tokio::try_join!(feed, stdout.read_to_end(&mut back))?;
    assert!(back == data, "{} bytes came back of {}", back.len(), data.len());
    assert_eq!(cat.wait().await?, 0);

    let failing = Process::exec(&client, &exec(id, "fail", &["sh", "-c", "echo oops >&2; exit 3"])).await?;
    let mut errors = String::new();
    failing.stderr().read_to_string(&mut errors).await?;
    assert_eq!((failing.wait().await?, errors.as_str()), (3, "oops\n"));

    let request = StatsContainerRequest { container_id: id.into(), ..StatsContainerRequest::default() };
    let stats = client.agent.stats_container(AgentClient::within(Duration::from_secs(30)), &request).await?;
    assert!(stats.cgroup_stats.memory_stats.usage.usage > 0, "{stats:?}");

    let nobody = Process::of(&client, id, "nobody").wait().await.map_err(CallError::from);
    assert!(matches!(nobody, Err(CallError::Refused { code: Code::NOT_FOUND, .. })), "{nobody:?}");
    let closed = endpoint.dial(4321).await.map(drop);
    assert!(matches!(closed, Err(DialError::Refused { port: 4321 })), "{closed:?}");

    let waiting = Process::of(&client, id, "");
    let end = tokio::task::spawn_blocking(move || {
        let stopped = pods.success(&["stop", "web"]);
        stopped.and_then(|_| pods.nothing_is_left())
    });
    // Its first process is killed, or the connection ends with the machine.
    let status = waiting.wait().await.map_err(CallError::from);
    assert!(matches!(status, Ok(143 | 137) | Err(CallError::Lost(_) | CallError::Other(_))), "{status:?}");
    end.await?
}
