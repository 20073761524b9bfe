//! Exit statuses and signals.

use anyhow::Result;
use tests::{Code, Guest, expect_code};

const TERM: u32 = 15;
const KILL: u32 = 9;

#[tokio::test]
async fn exit_statuses_are_the_processes_own_or_128_and_the_signal() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    assert_eq!(guest.container("zero").script("exit 0").run().await?.wait().await?, 0);
    assert_eq!(guest.container("seven").script("exit 7").run().await?.wait().await?, 7);
    let killed = guest.container("killed").run().await?;
    killed.signal("", KILL).await?;
    assert_eq!(killed.wait().await?, 137);
    let execs = guest.container("execs").run().await?;
    assert_eq!(execs.exec(["sh", "-c", "exit 9"]).run().await?.status, 9);
    assert_eq!(execs.exec(["sh", "-c", "kill -9 $$"]).run().await?.status, 137);
    assert_eq!(execs.exec(["sh", "-c", "kill -15 $$"]).run().await?.status, 143);
    Ok(())
}

#[tokio::test]
async fn sigterm_ends_an_init_that_does_not_handle_it_and_reaches_one_that_does() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let deaf = guest.container("deaf").run().await?;
    deaf.signal("", TERM).await?;
    assert_eq!(deaf.wait().await?, 137);
    // By its id it is the same process.
    let handles =
        guest.container("handles").script("trap 'exit 21' TERM; echo up; while :; do sleep 0.1; done");
    let handles = handles.run().await?;
    handles.init().read_until("up").await?;
    handles.signal("handles", TERM).await?;
    assert_eq!(handles.wait().await?, 21);
    let ignores = guest.container("ignores").script("trap '' TERM; echo up; while :; do sleep 0.1; done");
    let ignores = ignores.run().await?;
    ignores.init().read_until("up").await?;
    ignores.signal("", TERM).await?;
    assert_eq!(ignores.sh("echo still here").await?, "still here");
    Ok(())
}

#[tokio::test]
async fn kill_to_the_empty_id_ends_every_process() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("many").script("sleep 1000 & sleep 1000 & sleep 1000").run().await?;
    let exec = container.exec(["sleep", "1000"]).start().await?;
    container.signal("", KILL).await?;
    assert_eq!(container.wait().await?, 137);
    assert_eq!(exec.wait().await?, 137);
    // Once more is harmless, as is a signal to a process that has ended.
    container.signal("", KILL).await?;
    container.signal(exec.exec_id(), TERM).await?;
    Ok(())
}

#[tokio::test]
async fn any_number_of_waiters_get_the_same_status_before_and_after_the_exit() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("awaited").script("exit 5").create().await?;
    let early: Vec<_> = (0..5)
        .map(|_| {
            let init = container.init();
            tokio::spawn(async move { init.wait().await })
        })
        .collect();
    container.start().await?;
    for waiter in early {
        assert_eq!(waiter.await??, 5);
    }
    assert_eq!(container.wait().await?, 5);
    assert_eq!(container.wait().await?, 5);
    Ok(())
}

#[tokio::test]
async fn signals_that_are_none_and_processes_that_are_not_there_are_refused() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest.container("c1").run().await?;
    container.signal("", 0).await?;
    expect_code(container.signal("", 65).await, Code::INVALID_ARGUMENT);
    let text = expect_code(container.signal("nobody", TERM).await, Code::NOT_FOUND);
    assert!(text.contains("ESRCH: No such process"), "{text}");
    Ok(())
}

#[tokio::test]
async fn orphans_are_reaped() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let inspector = guest.inspector().await?;
    // With a pid namespace the container's own init takes orphans; those of an exec come to the agent when their
    // namespace ends.
    let container = guest.container("c1").run().await?;
    container.sh("(sleep 0.1 &) ; (sleep 0.1 &) ; true").await?;
    container.signal("", KILL).await?;
    container.wait().await?;
    container.remove().await?;
    let mut left = String::new();
    for _ in 0..50 {
        let look = "grep -l '^State:.*zombie' /guest/proc/[0-9]*/status 2>/dev/null; true";
        left = inspector.sh(look).await?;
        if left.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("zombies: {left}");
}

#[tokio::test]
async fn an_orphan_that_comes_to_the_agent_is_reaped_by_it() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    // In the guest's own pid namespace the agent is pid 1, so orphans become its children.
    let container = guest
        .container("c1")
        .linux(|linux| {
            linux.Namespaces.push(protocols::oci::LinuxNamespace {
                Type: "pid".into(),
                Path: "/proc/1/ns/pid".into(),
                ..Default::default()
            });
        })
        .run()
        .await?;
    let orphan = container.sh("sh -c 'sleep 1000 >/dev/null 2>&1 & echo $!'").await?;
    let parent = format!("sed -n 's/^PPid:[^0-9]*//p' /proc/{orphan}/status");
    assert_eq!(container.sh(&parent).await?, "1");
    container.sh(&format!("kill {orphan}")).await?;
    for _ in 0..100 {
        if container.sh(&format!("test -e /proc/{orphan} || echo gone")).await? == "gone" {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("{} is left: {}", orphan, container.sh(&format!("cat /proc/{orphan}/status")).await?);
}
