//! What the kernel counts per user or in total: a container that takes more of it than there used to be leaves enough for
//! the agent and for all other containers.

use std::time::Duration;

use anyhow::{Result, bail};
use image_builder::vm::AgentClient;
use protocols::health::CheckRequest;
use tests::{Container, Guest};

/// Kinds of `probe --hoard`, and how many to take: each more than a kernel allows in a guest of this size by itself.
const KINDS: [(&str, usize); 4] = [("epoll", 60_000), ("inotify", 500), ("files", 30_000), ("mounts", 1_500)];

/// What the process says once it has taken all, or was refused.
async fn taken(container: &Container) -> Result<String> {
    for _ in 0..600 {
        let text = container.sh("cat /taken 2>/dev/null; true").await?;
        if !text.is_empty() {
            return Ok(text);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("the process has taken nothing in a minute")
}

#[tokio::test]
async fn what_one_container_takes_of_the_kernel_others_do_not_lack() -> Result<()> {
    let guest = Guest::builder().memory(192).program("/probe", "probe")?.boot().await?;
    guest.sandbox().await?;
    let other = guest.container("other").run().await?;
    for (kind, count) in KINDS {
        let count = count.to_string();
        let hoarder = guest.container(kind).args(["/probe", "--hoard", kind, &count, "/taken"]);
        let hoarder = hoarder.mount("/probe", "bind", "/probe", &["bind", "ro"]).run().await?;
        let text = taken(&hoarder).await?;
        // Each of these takes some of what was hoarded: descriptors, watches of epoll, namespaces.
        assert_eq!(other.sh("echo goes on").await?, "goes on", "{kind}");
        guest.vm().client().await?.health.check(AgentClient::call(), &CheckRequest::new()).await?;
        let new = guest.container(&format!("beside-{kind}")).run().await?;
        assert_eq!(new.sh("echo new").await?, "new", "{kind}");
        new.remove().await?;
        assert_eq!(text, format!("{count} all"), "{kind}");
        hoarder.remove().await?;
    }
    Ok(())
}
