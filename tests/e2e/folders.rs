//! `hostPath` volumes of `pith run`.

use anyhow::{Result, ensure};

use crate::pods::{Pods, root};

#[test]
fn a_directory_of_the_host_is_seen_as_it_is() -> Result<()> {
    let pods = Pods::new()?;
    let site = pods.path().join("the site");
    std::fs::create_dir(&site)?;
    std::fs::write(site.join("page"), "first")?;
    let manifest = pods.path().join("shared.yaml");
    let image = root().join("out/images/busybox");
    std::fs::write(
        &manifest,
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: shared}}\nspec:\n  volumes:\n    - {{name: site, hostPath: {{path: ./the site}}}}\n    \
             - {{name: new, hostPath: {{path: ./new, type: DirectoryOrCreate}}}}\n  containers:\n    - name: one\n      \
             image: {}\n      command: [sleep, '1000']\n      volumeMounts:\n        - {{name: site, mountPath: /site, readOnly: true}}\n        \
             - {{name: new, mountPath: /new}}\n",
            image.display()
        ),
    )?;
    pods.success(&["run", "--detach", "-f", &manifest.display().to_string()])?;
    let sh = |script: &str| pods.success(&["exec", "shared", "one", "--", "sh", "-c", script]);
    assert_eq!(sh("cat /site/page")?, "first");
    // Edited in place, and replaced as editors do.
    std::fs::write(site.join("page"), "second")?;
    let becomes = |text: &str| {
        sh(&format!(
            "for i in $(seq 100); do test \"$(cat /site/page)\" = {text} && exit; sleep 0.1; done; cat /site/page; exit 1"
        ))
    };
    becomes("second")?;
    std::fs::write(site.join(".page.swp"), "third")?;
    std::fs::rename(site.join(".page.swp"), site.join("page"))?;
    becomes("third")?;
    sh("echo from the guest > /new/file && sync")?;
    assert_eq!(std::fs::read_to_string(pods.path().join("new/file"))?, "from the guest\n");
    let refused = pods.run(&["exec", "shared", "one", "--", "touch", "/site/x"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    pods.success(&["stop", "shared"])?;
    pods.nothing_is_left()?;

    let missing = std::fs::read_to_string(&manifest)?.replace("./the site", "./nowhere");
    std::fs::write(&manifest, missing)?;
    let output = pods.run(&["run", "-f", &manifest.display().to_string()])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && stderr.contains("nowhere (volume site)"), "{stderr}");
    pods.nothing_is_left()
}
