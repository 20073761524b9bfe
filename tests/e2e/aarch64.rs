//! Guests for 64-bit Arm on a host of another architecture: emulated, and otherwise the same. `make test-aarch64` runs the other
//! rungs in such guests, too.

use anyhow::{Context as _, Result, ensure};
use protocols::agent::Device;
use protocols::oci::LinuxDevice;
use serde_json::{Value, json};
use tests::{Arch, Guest, Port, sample, until};

use crate::pods::{Pods, root};

const ARM: Arch = Arch::Aarch64;
/// What is said once about a guest of another architecture.
const EMULATED: &str = "the guest is emulated, which is slow";

/// The line of `pith run` that says so, where it is said.
fn note(stderr: &[u8]) -> Option<String> {
    String::from_utf8_lossy(stderr).lines().find(|line| line.contains(EMULATED)).map(str::to_owned)
}

#[test]
fn the_sample_pod_with_images_of_arm_runs() -> Result<()> {
    let pods = Pods::new()?;
    let text = std::fs::read_to_string(root().join("tests/samples/pod.yaml"))?;
    let nginx = sample(ARM, "nginx")?;
    let images = nginx.strip_suffix("nginx").context("the sample's name")?;
    let manifest = pods.path().join("pod.yaml");
    std::fs::write(&manifest, text.replace("../../out/images/", images))?;
    let output = pods.run(&["run", "--detach", "--keep", "--file", &manifest.display().to_string()])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{stderr}");
    let told = note(&output.stderr);
    let expected = format!("pith: sample is for aarch64: {EMULATED}");
    assert_eq!(told.as_deref(), (Arch::host() != ARM).then_some(expected.as_str()), "{stderr}");
    let page = pods.success(&["logs", "--follow", "sample", "curl"])?;
    ensure!(page.contains("<h1>Welcome to nginx!</h1>"), "{page}");
    assert_eq!(pods.success(&["exec", "sample", "nginx", "--", "uname", "-m"])?.trim(), "aarch64");
    println!("{}", pods.success(&["timings", "sample"])?);
    pods.success(&["stop", "sample"])?;
    pods.nothing_is_left()
}

/// An index of the busybox images for both architectures, as registries have them.
fn both(pods: &Pods) -> Result<String> {
    let directory = pods.path().join("both");
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let mut manifests = Vec::new();
    for arch in Arch::ALL {
        let image = sample(arch, "busybox")?;
        let index: Value = serde_json::from_slice(&std::fs::read(format!("{image}/index.json"))?)?;
        let mut manifest = index["manifests"][0].clone();
        manifest["platform"] = json!({"os": "linux", "architecture": arch.debian()});
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        manifests.push(manifest);
        for blob in std::fs::read_dir(format!("{image}/blobs/sha256"))? {
            let blob = blob?;
            std::fs::copy(blob.path(), blobs.join(blob.file_name()))?;
        }
    }
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    std::fs::write(directory.join("index.json"), index.to_string())?;
    Ok(directory.display().to_string())
}

#[test]
fn of_an_index_the_platform_that_is_asked_for_runs() -> Result<()> {
    let pods = Pods::new()?;
    let image = both(&pods)?;
    for (options, machine) in
        [(&[][..], Arch::host().to_string()), (&["--platform", "linux/arm64"][..], ARM.to_string())]
    {
        let words = [&["run", "--rm"][..], options, &[&image, "uname", "-m"]].concat();
        let output = pods.run(&words)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{options:?}: {stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), machine, "{options:?}");
        assert_eq!(note(&output.stderr).is_some(), machine != Arch::host().to_string(), "{stderr}");
    }
    pods.nothing_is_left()
}

#[test]
fn images_for_two_architectures_are_no_pod() -> Result<()> {
    let pods = Pods::new()?;
    let images = Arch::ALL.map(|arch| sample(arch, "busybox"));
    let [first, second] = images;
    let (first, second) = (first?, second?);
    let manifest = pods.path().join("mixed.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: mixed}}\nspec:\n  containers:\n    - {{name: a, image: {first}}}\n    - \
         {{name: b, image: {second}}}\n"
    );
    std::fs::write(&manifest, text)?;
    let manifest = manifest.display().to_string();
    let output = pods.run(&["run", "-f", &manifest])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "two architectures in one guest");
    let expected = format!("{first} is an image for x86_64, and {second} is one for aarch64");
    ensure!(stderr.contains(&expected), "{stderr}");
    let output = pods.run(&["run", "-f", &manifest, "--platform", "linux/arm64"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(stderr.contains("an image for linux/amd64, and not for linux/arm64"), "{stderr}");
    pods.nothing_is_left()
}

#[tokio::test]
async fn an_arm_guest_has_its_devices_and_powers_off() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let disk = directory.path().join("disk");
    std::fs::write(&disk, vec![b'x'; 1 << 20])?;
    let builder = Guest::builder().arch(ARM).cpus(2).network().cmdline(&["agent.hotplug_timeout=30"]);
    let guest = builder.qemu(Port::ROOT.arguments).boot().await?;
    let took = guest.vm().boot_timing();
    println!(
        "power-on to /init {} ms, to the agent {} ms, {}",
        took.power_on_to_init().as_millis(),
        took.power_on_to_ready.as_millis(),
        guest.vm().accel()
    );
    guest.sandbox().await?;
    let one = guest.container("one").run().await?;
    assert_eq!(one.sh("uname -m").await?, "aarch64");
    assert_eq!(one.sh("grep -c ^processor /proc/cpuinfo").await?, "2");
    // A disk that is plugged in while it runs, named as a shim does.
    guest.plug_disk(&Port::ROOT, "late", &disk, true).await?;
    let builder = guest.container("two").request(|request| {
        let late = Device {
            type_: "blk".into(),
            id: Port::ROOT.path.into(),
            container_path: "/dev/late".into(),
            ..Device::default()
        };
        request.devices.push(late);
    });
    let node =
        LinuxDevice { Path: "/dev/late".into(), Type: "b".into(), FileMode: 0o660, ..LinuxDevice::default() };
    let two = builder.linux(|linux| linux.Devices.push(node)).run().await?;
    assert_eq!(two.sh("head -c 3 /dev/late").await?, "xxx");
    two.remove().await?;
    guest.unplug_disk("late").await?;
    until("the disk is gone", async || Ok(!one.sh("ls /sys/block").await?.contains("vdb"))).await?;
    // PSCI switches it off.
    guest.destroy().await
}
