//! rustjail's own tests of control groups, which need root and a cgroup2 mount: run by an init of their own in a guest
//! that has nothing but busybox, the test binary and the libraries that it wants.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fs_image::{Tree, cpio};
use machine::vm::{Vm, VmConfig};
use products::place::Place;

/// Boots as far as the tests need, says the line the harness waits for, and ends the machine.
const INIT: &str = "#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
echo 'agent ready: 0 ms since kernel start (init at 0 ms), version 0'
PITH_CGROUP_ROOT=/sys/fs/cgroup RUST_BACKTRACE=0 /tests --ignored --test-threads=1 cgroup::live
echo \"the tests ended with $?\"
reboot -f
";

/// Where rustjail's unit tests are. Whoever has run them has built them: with the same words, so nothing is compiled.
fn test_binary(root: &Path) -> Result<PathBuf> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--no-run", "--locked", "--workspace", "--lib", "--message-format", "json"])
        .current_dir(root)
        .output()
        .context("run cargo")?;
    ensure!(output.status.success(), "cargo: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "rustjail")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo names no test binary")
}

#[tokio::test]
async fn the_control_group_tests_pass_on_a_real_hierarchy() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let binary = test_binary(&root)?;
    let directory = tempfile::tempdir()?;
    let files = directory.path().join("root");
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        std::fs::create_dir_all(files.join(name))?;
    }
    std::fs::copy("/bin/busybox", files.join("bin/busybox"))
        .context("busybox-static is needed: run `make setup`")?;
    let applets = Command::new("/bin/busybox").arg("--list").output()?;
    for applet in String::from_utf8(applets.stdout)?.lines().filter(|applet| *applet != "busybox") {
        std::os::unix::fs::symlink("busybox", files.join("bin").join(applet))?;
    }
    std::fs::write(files.join("init"), INIT)?;
    for program in ["init", "bin/busybox"] {
        std::fs::set_permissions(files.join(program), std::fs::Permissions::from_mode(0o755))?;
    }
    let mut tree = Tree::default();
    tree.overlay(&files)?;
    let binary = binary.display().to_string();
    for (path, node) in Place::machine().closure("libc6", slice::from_ref(&binary))? {
        tree.insert(if path == binary { "/tests" } else { &path }, node)?;
    }
    let initrd = directory.path().join("initrd");
    std::fs::write(&initrd, cpio::archive(&tree)?)?;
    let kernel = root.join("out/vmlinux");
    ensure!(kernel.exists(), "{} is missing: run `make build`", kernel.display());
    let mut config = VmConfig::new(kernel, initrd, directory.path().join("vm"));
    config.cpus = 2;
    let vm = Vm::boot(config).await.context("boot a guest")?;
    let ended = vm.wait_off(Duration::from_secs(300)).await;
    let console = vm.console_log();
    ensure!(ended, "the guest hangs:\n{console}");
    let summary = console.lines().find(|line| line.contains("test result:")).unwrap_or("no summary");
    println!("{summary}");
    ensure!(summary.contains("test result: ok. 17 passed; 0 failed"), "{summary}:\n{console}");
    Ok(())
}
