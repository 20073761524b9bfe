//! Resource limits hold, and statistics tell.

use anyhow::Result;
use machine::vm::AgentClient;
use protocols::agent::GetOOMEventRequest;
use tests::Guest;

#[tokio::test]
async fn a_memory_limit_kills_and_is_reported() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let limit: i64 = 16 << 20;
    let hungry = guest
        .container("hungry")
        .resources(|resources| resources.Memory.mut_or_insert_default().Limit = limit)
        .mount("/big", "tmpfs", "tmpfs", &["size=64m"])
        .script("dd if=/dev/zero of=/big/file bs=1M count=48; echo dd ended with $?")
        .run()
        .await?;
    // The killer takes one process: dd, or the shell that is the container's first. Either way dd does not end well.
    let finished = hungry.output().await?;
    let text = String::from_utf8_lossy(&finished.stdout).into_owned();
    assert!(finished.status == 137 || text.contains("dd ended with 137"), "{finished:?}");
    let stats = hungry.stats().await?.cgroup_stats.unwrap();
    let memory = stats.memory_stats.unwrap();
    let usage = memory.usage.unwrap();
    assert_eq!(usage.limit, limit as u64);
    assert!(usage.failcnt > 0, "{usage:?}");
    assert!(usage.max_usage >= limit as u64 / 2, "{usage:?}");
    Ok(())
}

#[tokio::test]
async fn an_init_over_its_memory_limit_ends_with_137() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let hungry = guest
        .container("hungry")
        .resources(|resources| resources.Memory.mut_or_insert_default().Limit = 8 << 20)
        .script("x=0123456789abcdef; while :; do x=$x$x; done")
        .run()
        .await?;
    assert_eq!(hungry.wait().await?, 137);
    Ok(())
}

#[tokio::test]
async fn a_pids_limit_holds_and_cpu_time_is_counted() -> Result<()> {
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let container = guest
        .container("c1")
        .resources(|resources| resources.Pids.mut_or_insert_default().Limit = 5)
        .run()
        .await?;
    let many = "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; wait";
    let refused = container.exec(["sh", "-c", many]).start().await?;
    let mut stderr = Vec::new();
    while !String::from_utf8_lossy(&stderr).contains("fork") {
        let part = refused.read_stderr(4096).await?;
        assert!(!part.is_empty(), "{:?}", String::from_utf8_lossy(&stderr));
        stderr.extend(part);
    }
    let stats = container.stats().await?.cgroup_stats.unwrap();
    assert_eq!(stats.pids_stats.limit, 5);
    assert!(stats.pids_stats.current <= 5);
    assert!(stats.cpu_stats.cpu_usage.total_usage > 0);
    Ok(())
}

#[tokio::test]
async fn every_kill_for_lack_of_memory_is_an_event_that_names_its_container() -> Result<()> {
    const EAT: &str = "x=0123456789abcdef; while :; do x=$x$x; done";
    let guest = Guest::boot().await?;
    guest.sandbox().await?;
    let limited = |id: &str| {
        guest.container(id).resources(|resources| resources.Memory.mut_or_insert_default().Limit = 8 << 20)
    };
    // Asked for before there is anything to tell.
    let early = guest.client().agent.clone();
    let early =
        tokio::spawn(
            async move { early.get_oom_event(AgentClient::forever(), &GetOOMEventRequest::new()).await },
        );
    let survivor = limited("survivor").run().await?;
    for _ in 0..3 {
        assert_eq!(survivor.exec(["sh", "-c", EAT]).run().await?.status, 137);
    }
    let ended = limited("ended").script(EAT).run().await?;
    assert_eq!(ended.wait().await?, 137);
    ended.remove().await?;
    let mut names = vec![early.await??.container_id];
    for _ in 0..3 {
        let event = guest.api().get_oom_event(AgentClient::call(), &GetOOMEventRequest::new()).await?;
        names.push(event.container_id);
    }
    names.sort();
    assert_eq!(names, ["ended", "survivor", "survivor", "survivor"]);
    Ok(())
}
