//! Containers that leave files.

use anyhow::{Context as _, Result, ensure};

use tests::{Container, until};

use crate::scene::Scene;

/// Makes 30,000 files in a directory that is empty.
const FILL: &str =
    "for d in $(seq 1 30); do mkdir $d; (cd $d; seq 1 1000 | xargs touch); done; find . -type f | wc -l";

/// A container with 60,000 files.
pub(crate) async fn many(scene: &Scene) -> Result<Container> {
    // Half of them in a tmpfs of its own, which the kernel empties, half in its writable layer, which we do.
    let container =
        scene.guest.container("files").mount("/v", "tmpfs", "tmpfs", &["size=300m"]).run().await?;
    for directory in ["/v", "/srv"] {
        let made = container.sh(&format!("mkdir -p {directory}; cd {directory}; {FILL}")).await?;
        ensure!(made == "30000", "{made} files in {directory}");
    }
    Ok(container)
}

pub(crate) async fn deep(scene: &Scene) -> Result<()> {
    let nest = ["/probe", "--nest", "20000:/srv"];
    let container = scene.guest.container("deep").mount("/probe", "bind", "/probe", &["bind", "ro"]);
    let container = container.script("mkdir -p /srv; sleep 1000").run().await?;
    let said = container.exec(nest).run().await?.success()?;
    ensure!(said.contains("\"nest 20000:/srv\":\"ok\""), "{said}");
    container.remove().await.context("remove it")?;
    // On a busy machine the removal does not wait for all of it (docs/architecture/bounds.md); it goes all the same.
    let look = "ls /guest/run/kata-containers";
    until("nothing is left of it", async || Ok(!scene.inspector.sh(look).await?.contains("deep"))).await
}
