//! `pith cp`, `--scratch` and published ports, in pods that serve several tests each: a boot takes long.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Stdio;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::pods::{Pods, busybox_image};

fn refused(pods: &Pods, arguments: &[&str], named: &str) -> Result<()> {
    let output = pods.run(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        !output.status.success() && stderr.contains(named),
        "{arguments:?}: {named:?} is not in {stderr:?}"
    );
    Ok(())
}

#[test]
fn files_and_trees_are_copied_both_ways_and_nothing_leaves_the_destination() -> Result<()> {
    let pods = Pods::new()?;
    let at = |name: &str| pods.path().join(name).display().to_string();
    // The container's user owns what comes in. Its disk for what is written is small.
    let run = ["run", "-d", "--name", "web", "--scratch", "32Mi", "-v", "data:/data", "-u", "1000:1000"];
    pods.success(&[&run[..], &[&busybox_image(), "sleep", "1000"]].concat())?;
    let sh = |script: &str| pods.success(&["exec", "-u", "0:0", "web", "web", "--", "sh", "-c", script]);

    // A tree in, and out again.
    fs::create_dir_all(at("tree/a/b"))?;
    fs::write(at("tree/a/file"), vec![7; 300_000])?;
    fs::write(at("tree/a/b/tool"), "#!/bin/sh\n")?;
    fs::set_permissions(at("tree/a/b/tool"), fs::Permissions::from_mode(0o750))?;
    symlink("../nowhere", at("tree/a/link"))?;
    fs::File::open(at("tree/a/file"))?.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000))?;
    pods.success(&["cp", &at("tree"), "web:/srv"])?;
    let listed = sh("cd /srv && stat -c '%n %a %u:%g %Y %s' a/file a/b/tool && readlink a/link")?;
    ensure!(
        listed.starts_with("a/file 644 1000:1000 1000000000 300000\na/b/tool 750 1000:1000 "),
        "/srv was not there, so it is the tree: {listed}"
    );
    ensure!(listed.ends_with("10\n../nowhere\n"), "{listed}");
    pods.success(&["cp", "web/web:/srv", &at("back")])?;
    assert_eq!(fs::read(at("back/a/file"))?, vec![7; 300_000]);
    assert_eq!(fs::metadata(at("back/a/file"))?.mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(at("back/a/b/tool"))?.mode() & 0o7777, 0o750);
    assert_eq!(fs::read_link(at("back/a/link"))?.display().to_string(), "../nowhere");
    // To where there is a directory, in it; its content alone, beside what is there. Volumes are seen, too.
    fs::create_dir(at("content"))?;
    pods.success(&["cp", "web:/srv/a/.", &at("content")])?;
    ensure!(fs::exists(at("content/b/tool"))? && !fs::exists(at("content/a"))?, "only what is in it");
    pods.success(&["cp", &at("tree/a/file"), "web:/data"])?;
    assert_eq!(fs::read(at("data/pith/volumes/data/file"))?.len(), 300_000);
    pods.success(&["cp", "web:/data/file", &at("renamed")])?;
    assert_eq!(fs::read(at("renamed"))?.len(), 300_000);
    pods.success(&["cp", "web:etc/hosts", &at("")])?;
    ensure!(fs::read_to_string(at("hosts"))?.contains("localhost"));

    // As archives.
    let output = pods.run(&["cp", "web:/srv/a", "-"])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut tar =
        pods.command(&["cp", "-", "web:/tmp"])?.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    tar.stdin.take().context("no input")?.write_all(&output.stdout)?;
    let done = tar.wait_with_output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(sh("stat -c %s /tmp/a/file")?, "300000\n");

    // What a container prepares for the host: links that lead out, a program that runs as somebody else.
    let bad = "mkdir -p /bad/etc && cd /bad && ln -s /etc/passwd passwd && ln -s / out && cp /bin/busybox suid && \
               chmod 4755 suid && mkfifo fifo && ln -s /../../../../.. /up";
    sh(bad)?;
    pods.success(&["cp", "web:/bad", &at("bad")])?;
    ensure!(fs::symlink_metadata(at("bad/passwd"))?.is_symlink(), "links stay links");
    assert_eq!(fs::metadata(at("bad/suid"))?.mode() & 0o7000, 0, "no set-user-id bit");
    ensure!(!fs::exists(at("bad/fifo"))?);
    // A link in the path leads to the container's own file.
    pods.success(&["cp", "web:/up/etc/hosts", &at("theirs")])?;
    assert_eq!(fs::read_to_string(at("theirs"))?, fs::read_to_string(at("hosts"))?);
    // A link that is there is replaced, and not written through.
    symlink(at("hosts"), at("link"))?;
    pods.success(&["cp", "web:/srv/a/b/tool", &at("link")])?;
    ensure!(
        !fs::symlink_metadata(at("link"))?.is_symlink()
            && fs::read_to_string(at("hosts"))?.contains("localhost")
    );

    // What cannot be copied says so, and leaves nothing half.
    refused(&pods, &["cp", "web:/none", &at("x")], "there is no /none")?;
    refused(&pods, &["cp", &at("none"), "web:/tmp"], "cannot read")?;
    refused(&pods, &["cp", &at("hosts"), "web:/none/x"], "/none/x")?;
    refused(&pods, &["cp", "web:/etc/hosts", &at("none/x")], "mkdir -p")?;
    refused(&pods, &["cp", "web:/srv", &at("hosts")], "is a file")?;
    refused(&pods, &["cp", "web:/a", "web:/b"], "pith cp A:PATH -")?;
    refused(&pods, &["cp", "/etc/hosts", "/tmp"], "POD:PATH")?;
    refused(
        &pods,
        &["cp", "--max-size", "100k", "web:/srv", &at("small")],
        "more to copy than 100000 bytes",
    )?;
    ensure!(!fs::exists(at("small/a/file"))?);

    // The disk has a bound, the container is told, and what was half-written is gone; what is removed makes room.
    fs::write(at("large"), vec![1; 40 << 20])?;
    refused(&pods, &["cp", &at("large"), "web:/large"], "No space left on device")?;
    assert_eq!(sh("ls -a / | grep -c -e large -e .pith-copy || true")?, "0\n");
    let full = sh("dd if=/dev/zero of=/fill bs=1M count=50 2>&1 || true; rm /fill; df -m / | tail -1")?;
    ensure!(full.contains("No space left on device"), "{full}");
    sh("dd if=/dev/zero of=/fill bs=1M count=15 2>&1 && rm /fill")?;

    // A signal ends a copy; what was whole stays, and nothing else.
    sh("mkfifo /data/slow; dd if=/dev/zero of=/data/sparse bs=1 count=0 seek=20G 2>/dev/null")?;
    let mut copy = pods.command(&["cp", "web:/data/sparse", &at("sparse")])?.stderr(Stdio::null()).spawn()?;
    let begun = Instant::now();
    let half = || {
        fs::read_dir(pods.path())
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with(".pith-copy"))
    };
    while !half() {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the copy does not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    Pods::signal(&copy, "INT")?;
    assert_eq!(copy.wait()?.code(), Some(130));
    ensure!(!half() && !fs::exists(at("sparse"))?, "something half-written stays");

    // Volumes that a pod uses stay.
    refused(&pods, &["volume", "rm", "data"], "is running")?;
    pods.success(&["stop", "web"])?;
    refused(&pods, &["volume", "rm", "data"], "pith rm web")?;
    assert_eq!(pods.success(&["volume", "prune"])?, "");
    refused(&pods, &["cp", "web:/etc/hosts", &at("x")], "has ended")?;
    pods.success(&["rm", "web"])?;
    let inspected = pods.success(&["volume", "inspect", "data"])?;
    ensure!(inspected.contains("\"files\": 3"), "{inspected}");
    assert_eq!(pods.success(&["volume", "prune"])?, "data\n");
    assert_eq!(pods.success(&["volume", "ls", "-q"])?, "");
    pods.nothing_is_left()
}

#[test]
fn a_published_port_opens_when_the_pod_answers() -> Result<()> {
    let pods = Pods::new()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    // Nobody listens until the file is there.
    let script = "while ! [ -e /go ]; do sleep 0.1; done; \
                  while :; do echo hello | nc -l -p 80; done";
    let rule = format!("{port}:80");
    let run = ["run", "-d", "--name", "web", "-p", &rule, &busybox_image(), "sh", "-c", script];
    pods.success(&run)?;
    let connect = || TcpStream::connect(("127.0.0.1", port));
    ensure!(connect().is_err(), "the port is open, and nobody in the pod answers");
    ensure!(TcpListener::bind(("127.0.0.1", port)).is_err(), "the port is free for others");
    assert!(pods.success(&["port", "web"])?.contains(&format!("127.0.0.1:{port}->80/tcp")));
    pods.success(&["exec", "web", "touch", "/go"])?;
    let begun = Instant::now();
    let mut said = String::new();
    while said != "hello\n" {
        ensure!(begun.elapsed() < Duration::from_secs(60), "the port stays closed: {said:?}");
        if let Ok(mut stream) = connect() {
            said.clear();
            std::io::Read::read_to_string(&mut stream, &mut said).ok();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    pods.success(&["rm", "-f", "web"])?;
    ensure!(connect().is_err(), "the port is open without the pod");
    pods.nothing_is_left()
}
