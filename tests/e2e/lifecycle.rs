//! Containers come, run and go; ids are unique; what comes in the wrong order is refused.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::{CreateSandboxRequest, StatsContainerRequest};
use tests::{Code, Guest, expect_code};

#[tokio::test]
async fn nothing_is_created_without_a_sandbox_and_a_sandbox_is_made_once() -> Result<()> {
    let guest = Guest::boot().await?;
    expect_code(guest.container("c1").try_create().await, Code::FAILED_PRECONDITION);
    guest.sandbox().await?;
    let again = guest.api().create_sandbox(AgentClient::call(), &CreateSandboxRequest::new()).await;
    expect_code(again, Code::ALREADY_EXISTS);
    guest.container("c1").create().await?;
    Ok(())
}

#[tokio::test]
async fn ids_are_checked_and_unique_and_free_after_a_removal() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    for bad in ["", "x", "../x", "a/b", "-ab"] {
        expect_code(guest.container(bad).try_create().await, Code::INVALID_ARGUMENT);
    }
    let container = guest.container("one").run().await?;
    expect_code(guest.container("one").try_create().await, Code::ALREADY_EXISTS);
    assert_eq!(container.sh("echo alive").await?, "alive");
    container.remove().await?;
    expect_code(container.remove().await, Code::NOT_FOUND);
    assert_eq!(guest.container("one").script("exit 4").run().await?.wait().await?, 4);
    Ok(())
}

#[tokio::test]
async fn of_two_creates_with_one_id_one_wins() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let builder = guest.container("twin");
    let (first, second) = tokio::join!(builder.try_create(), builder.try_create());
    let (winner, loser) = if first.is_ok() { (first, second) } else { (second, first) };
    expect_code(loser, Code::ALREADY_EXISTS);
    let winner = winner?;
    winner.start().await?;
    assert_eq!(winner.sh("echo alive").await?, "alive");
    Ok(())
}

#[tokio::test]
async fn calls_in_the_wrong_order_are_refused() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").script("exit 0").create().await?;
    container.start().await?;
    expect_code(container.start().await, Code::FAILED_PRECONDITION);
    container.wait().await?;
    expect_code(container.exec(["true"]).start().await, Code::FAILED_PRECONDITION);
    let unknown = StatsContainerRequest { container_id: "nobody".into(), ..Default::default() };
    expect_code(guest.api().stats_container(AgentClient::call(), &unknown).await, Code::NOT_FOUND);
    Ok(())
}

#[tokio::test]
async fn exec_ids_are_unique_and_differ_from_the_containers() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let first = container.exec(["sleep", "1000"]).id("e1").start().await?;
    expect_code(container.exec(["true"]).id("e1").start().await, Code::ALREADY_EXISTS);
    expect_code(container.exec(["true"]).id("c1").start().await, Code::ALREADY_EXISTS);
    expect_code(container.exec(["true"]).id("").start().await, Code::INVALID_ARGUMENT);
    container.signal("e1", 9).await?;
    assert_eq!(first.wait().await?, 137);
    Ok(())
}

#[tokio::test]
async fn removing_a_running_container_answers_its_waiters_and_readers() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    let (waiting, reading) = (container.init(), container.init());
    let wait = tokio::spawn(async move { waiting.wait().await });
    let read = tokio::spawn(async move { reading.read(100).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    container.remove().await?;
    assert_eq!(wait.await??, 137);
    assert!(read.await??.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_created_container_that_never_starts_is_removed() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").create().await?;
    container.remove().await?;
    guest.container("c1").create().await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_healthy_agent_and_processes_others_can_wait_for() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    for number in 0..5 {
        let other = guest.vm().client().await?;
        let exec = container.exec(["sleep", "0.2"]).id(&format!("gone-{number}")).start().await?.over(&other);
        let waiter = tokio::spawn(async move { exec.wait().await });
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        waiter.abort();
        drop(other);
    }
    // All of them can still be waited for.
    for number in 0..5 {
        let request = protocols::agent::WaitProcessRequest {
            container_id: "c1".into(),
            exec_id: format!("gone-{number}"),
            ..Default::default()
        };
        assert_eq!(guest.api().wait_process(AgentClient::call(), &request).await?.status, 0);
    }
    assert_eq!(container.sh("echo alive").await?, "alive");
    Ok(())
}

#[tokio::test]
async fn a_create_whose_client_goes_away_is_finished_all_the_same() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    for number in 0..5 {
        let id = format!("left-{number}");
        let other = guest.vm().client().await?;
        let builder = guest.container(&id).over(&other);
        let create = tokio::spawn(async move { builder.try_create().await.map(drop) });
        // The agent says that it is at work on it; only then is the connection cut.
        let mut rounds = 0;
        while !guest.vm().console_log().contains(&id) {
            rounds += 1;
            assert!(rounds < 3000, "the agent never began to create {id}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        create.abort();
        drop(create.await);
        drop(other);
        expect_code(guest.container(&id).try_create().await, Code::ALREADY_EXISTS);
        // The start queues behind the create.
        let container = guest.container(&id).made();
        container.start().await?;
        assert_eq!(container.sh("echo alive").await?, "alive");
        container.remove().await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_sandbox_shares_its_hostname_and_its_pid_namespace_when_asked() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let first = guest.container("first").run().await?;
    assert_eq!(first.sh("hostname").await?, "pod");
    let shared = guest.container("shared").request(|request| request.sandbox_pidns = true).run().await?;
    let own = guest.container("own").run().await?;
    let pid = "readlink /proc/self/ns/pid";
    let (a, b, c) = (first.sh(pid).await?, shared.sh(pid).await?, own.sh(pid).await?);
    assert_eq!(a, b);
    assert_ne!(a, c);
    let uts = "readlink /proc/self/ns/uts";
    assert_eq!(first.sh(uts).await?, own.sh(uts).await?);
    Ok(())
}

#[tokio::test]
async fn dns_lines_reach_a_container_that_binds_them() -> Result<()> {
    let guest = Guest::boot().await?;
    let request = CreateSandboxRequest {
        sandbox_id: "pod".into(),
        dns: vec!["nameserver 10.9.8.7".into(), "search example.org".into()],
        ..Default::default()
    };
    guest.api().create_sandbox(AgentClient::call(), &request).await?;
    let source = "/run/kata-containers/sandbox/resolv.conf";
    let container =
        guest.container("c1").mount("/etc/resolv.conf", "bind", source, &["rbind", "ro"]).run().await?;
    assert_eq!(container.sh("cat /etc/resolv.conf").await?, "nameserver 10.9.8.7\nsearch example.org");
    Ok(())
}
