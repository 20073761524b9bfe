//! `pith run` and the verbs around it, as a user types them.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};

use crate::pods::Pods;

#[test]
fn a_pod_runs_in_the_foreground_and_gives_its_containers_status() -> Result<()> {
    let pods = Pods::new()?;
    let manifest = pods.manifest("front", &[("one", "echo to stdout; exit 7"), ("two", "echo other")])?;
    let output = pods.run(&["run", "-f", &manifest.display().to_string()])?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert!(stdout.contains("one | to stdout") && stdout.contains("two | other"), "{stdout}\n{stderr}");
    pods.nothing_is_left()
}

#[test]
fn a_pod_in_the_background_is_listed_entered_read_and_stopped() -> Result<()> {
    let pods = Pods::new()?;
    let manifest = pods.manifest("back", &[("one", "echo hello from one; sleep 1000")])?;
    pods.success(&["run", "--detach", "-f", &manifest.display().to_string()])?;
    assert!(pods.success(&["ps"])?.contains("back"));
    let listed: serde_json::Value = serde_json::from_str(&pods.success(&["--json", "ps"])?)?;
    assert!(listed.to_string().contains("\"back\""), "{listed}");
    assert_eq!(pods.success(&["exec", "back", "one", "--", "echo", "in it"])?, "in it\n");
    let failed = pods.run(&["exec", "back", "one", "--", "sh", "-c", "echo err >&2; exit 9"])?;
    assert_eq!((failed.status.code(), String::from_utf8_lossy(&failed.stderr).as_ref()), (Some(9), "err\n"));
    assert!(pods.success(&["logs", "back", "one"])?.contains("hello from one"));
    let again = pods.run(&["run", "--detach", "-f", &manifest.display().to_string()])?;
    assert!(!again.status.success(), "two pods of one name");
    let mut cat = pods
        .command(&["exec", "-i", "back", "one", "--", "cat"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = cat.stdin.take().context("no stdin")?;
    let feeder = std::thread::spawn(move || {
        use std::io::Write as _;
        input.write_all(&vec![b'x'; 300_000])
    });
    let output = cat.wait_with_output()?;
    assert!(feeder.join().is_ok_and(|result| result.is_ok()));
    assert_eq!(output.stdout.len(), 300_000);
    pods.success(&["stop", "back"])?;
    assert!(!pods.success(&["ps"])?.contains("back"));
    pods.nothing_is_left()
}

#[test]
fn an_interrupt_ends_the_pod_and_leaves_nothing() -> Result<()> {
    use std::io::{BufRead as _, BufReader};
    let pods = Pods::new()?;
    let manifest = pods.manifest("ctrlc", &[("one", "echo up; sleep 1000")])?;
    let mut run = pods.command(&["run", "-f", &manifest.display().to_string()])?;
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut lines = BufReader::new(run.stdout.take().context("no stdout")?).lines();
    let up = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("one | up")));
    ensure!(up.is_some(), "the container did not come up");
    Pods::signal(&run, "INT")?;
    let status = run.wait()?;
    ensure!(!status.success(), "an interrupted pod ended with 0");
    pods.nothing_is_left()
}

#[test]
fn a_reader_that_stalls_holds_up_neither_a_start_nor_a_stop() -> Result<()> {
    let pods = Pods::new()?;
    let flood = "while :; do echo a line of a flood that nobody reads; done";
    let manifest = pods.manifest("stalled", &[("one", flood), ("two", flood), ("three", "sleep 1000")])?;
    let mut run = pods.command(&["run", "-f", &manifest.display().to_string()])?;
    // The pipe is there, and nobody reads it.
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stalled = run.stdout.take().context("no stdout")?;
    let phase = || -> Result<String> {
        let listed: serde_json::Value = serde_json::from_str(&pods.success(&["--json", "ps"])?)?;
        Ok(listed[0]["phase"].as_str().unwrap_or_default().to_owned())
    };
    while phase()? != "running" {
        ensure!(run.try_wait()?.is_none(), "the pod has ended");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(pods.success(&["exec", "stalled", "three", "--", "echo", "answers"])?, "answers\n");
    pods.success(&["stop", "stalled"])?;
    ensure!(!run.wait()?.success(), "containers that were killed ended with 0");
    drop(stalled);
    pods.nothing_is_left()
}

#[test]
fn what_is_wrong_with_a_pod_is_said_before_anything_boots() -> Result<()> {
    let pods = Pods::new()?;
    let refused = |text: &str, named: &str| -> Result<()> {
        let path = pods.path().join("bad.yaml");
        std::fs::write(&path, text)?;
        let output = pods.run(&["run", "-f", &path.display().to_string()])?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && stderr.contains(named), "{named:?} is not in {stderr:?}");
        Ok(())
    };
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: /none, colour: red}]}\n",
        "colour",
    )?;
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: /none, command: [a]}]}\n",
        "/none",
    )?;
    refused("kind: [", "bad.yaml")?;
    pods.nothing_is_left()
}

/// Bytes of all files below a directory.
fn size(directory: &std::path::Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // A file may go while this looks: the oldest segment of a log does.
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

#[test]
fn a_container_that_never_stops_writing_fills_no_more_than_the_bound_of_its_log() -> Result<()> {
    use std::io::Read as _;
    // 8 segments of 1 MiB, their times, and the records.
    const BOUND: u64 = 10 << 20;
    let pods = Pods::new()?;
    let image = crate::pods::busybox_image();
    let mut run = pods.command(&["run", "--rm", "--name", "flood", &image, "yes"])?;
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut output = run.stdout.take().context("no output")?;
    let (mut read, mut most) = (0, 0);
    let mut piece = vec![0; 1 << 20];
    while read < 3 * BOUND {
        let count = output.read(&mut piece)?;
        ensure!(count > 0, "it has ended after {read} bytes");
        ensure!(piece[..count].iter().all(|byte| b"y\n".contains(byte)), "something else is in the output");
        read += count as u64;
        most = most.max(size(&pods.path().join("pods"))?);
    }
    ensure!(most > 4 << 20, "the log was not written: {most} bytes");
    ensure!(most < BOUND, "{most} bytes are in the state directory, and {read} were written");
    Pods::signal(&run, "INT")?;
    // Whoever reads goes on reading until the end.
    while output.read(&mut piece)? > 0 {}
    ensure!(!run.wait()?.success(), "a container that was killed ended with 0");
    pods.nothing_is_left()
}
