//! Containers that take what all of the guest share: the kernel's counts, its log, the ports of the vsock.

use anyhow::{Context as _, Result, ensure};
use tests::{Container, until_some};

use crate::scene::Scene;

/// Kinds of `probe --hoard`, and how many to take.
const KINDS: [(&str, u32); 4] = [("epoll", 20_000), ("inotify", 300), ("files", 20_000), ("mounts", 300)];

fn with_probe(scene: &Scene, id: &str) -> tests::ContainerBuilder {
    scene.guest.container(id).mount("/probe", "bind", "/probe", &["bind", "ro"])
}

pub(crate) async fn listens(scene: &Scene) -> Result<()> {
    let container = with_probe(scene, "listens").run().await?;
    let ports = ["1024", "1025", "1026", "1027"];
    let words = ports.iter().flat_map(|port| ["--listen", port]);
    let said = container.exec(["/probe"].into_iter().chain(words)).run().await?.success()?;
    for port in ports {
        // EADDRINUSE.
        ensure!(said.contains(&format!("\"listen {port}\":\"errno 98\"")), "port {port}: {said}");
    }
    Ok(container.remove().await?)
}

/// Takes all that it can get of each kind, at once, and holds it.
pub(crate) async fn hoards(scene: &Scene) -> Result<()> {
    let mut hoarders: Vec<Container> = Vec::new();
    for (kind, count) in KINDS {
        let hoarder = with_probe(scene, kind).args(["/probe", "--hoard", kind, &count.to_string(), "/taken"]);
        hoarders.push(hoarder.run().await?);
    }
    for (hoarder, (kind, count)) in hoarders.iter().zip(KINDS) {
        let taken = until_some(kind, async || {
            Ok(Some(hoarder.sh("cat /taken 2>/dev/null; true").await?).filter(|text| !text.is_empty()))
        });
        let taken = taken.await?;
        ensure!(taken == format!("{count} all"), "{kind}: {taken}");
    }
    scene.neighbour_lives().await.context("while all is taken")?;
    let new = scene.guest.container("new").run().await.context("while all is taken")?;
    ensure!(new.sh("echo new").await? == "new");
    new.remove().await?;
    for hoarder in hoarders {
        hoarder.remove().await?;
    }
    Ok(())
}

/// Only a privileged container has the device.
pub(crate) async fn log(scene: &Scene) -> Result<()> {
    let container = scene.guest.container("log").privileged().run().await?;
    let flood = "mknod /kmsg c 1 11; n=0; while [ $n -lt 5000 ]; do echo \"<6>flood $n reboot: Power down\" > /kmsg; \
        n=$((n+1)); done; echo $n";
    let said = container.sh(flood).await?;
    ensure!(said == "5000", "{said}");
    Ok(container.remove().await?)
}
