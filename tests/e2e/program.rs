//! The program `pith` and its verbs, as a user types them. One pod serves many verbs: a boot takes long.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use machine::vm::find_tool;
use serde_json::Value;

use crate::pods::{Pods, busybox_image, root};

/// Names the program that stands in for the host's vsock.
const VSOCK_DEVICE: &str = "PITH_VHOST_DEVICE_VSOCK";

fn json(pods: &Pods, arguments: &[&str]) -> Result<Value> {
    let text = pods.success(&[&["--json"], arguments].concat())?;
    serde_json::from_str(&text).with_context(|| text)
}

/// Waits until `text` is in the output of a command.
fn until(pods: &Pods, arguments: &[&str], text: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        let said = pods.success(arguments)?;
        if said.contains(text) {
            return Ok(said);
        }
        ensure!(begun.elapsed() < Duration::from_secs(120), "{arguments:?}: {text:?} is not in {said:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_container_of_an_image_runs_as_if_it_ran_here() -> Result<()> {
    let pods = Pods::new()?;
    std::fs::write(pods.path().join("in"), b"from the host\n")?;
    let share = format!("{}:/host", pods.path().display());
    let script = "cat; cat /host/in; echo $A; echo $0 $1; pwd; id -u; printf '\\377' >&2; exit 7";
    let image = busybox_image();
    let arguments = ["run", "--rm", "-i", "-e", "A=a $(b)", "-v", &share, "-w", "/tmp", "-u", "1000:1000"];
    let arguments =
        [&arguments[..], &["--entrypoint", "sh", &image, "-c", script, "zero", "$(HOME)"]].concat();
    let mut run = pods
        .command(&arguments)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    run.stdin.take().context("no input")?.write_all(b"typed\n")?;
    let output = run.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    let expected = "typed\nfrom the host\na $(b)\nzero $(HOME)\n/tmp\n1000\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{stderr}");
    assert!(output.stderr.ends_with(b"\xff"), "{stderr}");
    assert_eq!(pods.success(&["ps", "-aq"])?, "", "--rm leaves nothing");
    pods.nothing_is_left()
}

/// What is wrong only where a pod `web` runs, and what must be said about it.
const WRONG: [(&str, &str); 13] = [
    ("exec web nothing", "the file nothing was not found"),
    ("exec -w /nothing web pwd", "/nothing"),
    ("exec -u nobodyy web id", "\"nobodyy\" is not in the container's etc/passwd"),
    ("exec web nothing -- ls", "no container \"nothing\"; it has web"),
    ("logs web nothing", "no container \"nothing\"; it has web"),
    ("logs wbe", "no pod \"wbe\"; pods: web"),
    ("cp web:/nothing .", "there is no /nothing in the container"),
    ("cp /nothing web:/tmp", "cannot read /nothing"),
    ("cp /etc/hostname web:/no/such/", "cannot find /no/such/ among the files of web"),
    ("attach web", "start it with `run -i`"),
    ("unpause web", "cannot unpause web: FAILED_PRECONDITION"),
    ("console web", "start the pod with --debug-console"),
    ("rm web", "`pith stop web`, or use --force"),
];

#[test]
fn a_pod_in_the_background_answers_every_verb() -> Result<()> {
    let pods = Pods::new()?;
    let image = busybox_image();
    let script = "echo one; sleep 2; echo two; echo three >&2; trap 'exit 3' TERM; while :; do sleep 1; done";
    let run =
        ["run", "-d", "--name", "web", "-v", "data:/data", "--memory", "320m", &image, "sh", "-c", script];
    assert_eq!(pods.success(&run)?, "web\n");
    assert!(!pods.run(&run)?.status.success(), "the name is taken");

    // Ids are those of the API.
    let listed = json(&pods, &["ps", "web"])?;
    let id = listed["containers"][0]["id"].as_str().context("no id")?.to_owned();
    assert_eq!(id, "web-web");
    assert_eq!(pods.success(&["exec", &id, "echo", "by id"])?, "by id\n");
    assert_eq!(pods.success(&["exec", "-u", "nobody", "web", "whoami"])?, "nobody\n");
    for (line, named) in WRONG {
        let output = pods.run(&line.split(' ').collect::<Vec<_>>())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && said.contains(named), "{line}: {}: {said}", output.status);
        ensure!(!said.contains("Status {") && !said.contains("panicked"), "{line}: {said}");
    }
    pods.success(&["exec", "web", "web", "--", "sh", "-c", "echo kept > /data/file"])?;
    assert_eq!(std::fs::read_to_string(pods.path().join("data/pith/volumes/data/file"))?, "kept\n");

    until(&pods, &["logs", "web"], "three")?;
    assert_eq!(pods.success(&["logs", "--tail", "1", "web"])?, "three\n");
    let stamped = pods.success(&["logs", "-t", "web"])?;
    let times: Vec<&str> = stamped.lines().filter_map(|line| line.split(' ').next()).collect();
    ensure!(times.len() == 3 && times[0] < times[1], "two seconds lie between: {stamped}");
    assert_eq!(pods.success(&["logs", "--since", times[1], "web"])?.lines().next(), Some("two"));

    assert!(pods.success(&["top", "web"])?.contains("sleep"));
    let timings = pods.success(&["timings", "--bench-exec", "2", "web"])?;
    ensure!(timings.contains("exec"), "{timings}");
    assert_eq!(pods.success(&["port", "web"])?, "", "nothing is published");
    let stats = json(&pods, &["stats", "--no-stream", "web"]);
    // With `--json` it is a stream all the same unless one look is asked for.
    let stats = stats?;
    ensure!(
        stats[0]["memory_bytes"].as_u64() > Some(0) && stats[0]["processes"].as_u64() > Some(0),
        "{stats}"
    );

    pods.success(&["pause", "web"])?;
    let frozen = || -> Result<u64> {
        json(&pods, &["stats", "--no-stream", "web"])?[0]["cpu_ns"].as_u64().context("no time")
    };
    assert_eq!(frozen()?, frozen()?, "what is paused uses no processor");
    pods.success(&["unpause", "web"])?;

    let inspected = json(&pods, &["inspect", "web"])?;
    ensure!(Path::new(inspected[0]["socket"].as_str().unwrap_or_default()).exists(), "{inspected}");

    let mut wait = pods.command(&["wait", "web"])?.stdout(Stdio::piped()).spawn()?;
    assert!(!pods.run(&["rm", "web"])?.status.success(), "it runs");
    pods.success(&["stop", "web"])?;
    ensure!(wait.wait()?.success(), "wait failed");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut wait.stdout.take().context("no output")?, &mut said)?;
    assert_eq!(said, "3\n");

    // What is left of it.
    assert_eq!(pods.success(&["ps", "-q"])?, "");
    assert!(pods.success(&["ps", "-a"])?.contains("ended (3)"));
    assert_eq!(pods.success(&["logs", "web"])?.lines().count(), 3);
    assert_eq!(json(&pods, &["inspect", "web"])?[0]["exit_code"], 3);
    let events = pods.success(&["events", "--no-stream", "web"])?;
    for event in ["starting", "booted", "started", "running", "exited", "ended (3)"] {
        ensure!(events.contains(event), "{event} is not in {events}");
    }
    let exec = pods.run(&["exec", "web", "true"])?;
    assert!(String::from_utf8_lossy(&exec.stderr).contains("has ended"));

    // It can be started again, and what its volume has is still there.
    assert_eq!(pods.success(&["restart", "web"])?, "web\n");
    assert_eq!(pods.success(&["exec", "web", "cat", "/data/file"])?, "kept\n");
    pods.success(&["rm", "--force", "web"])?;
    assert_eq!(pods.success(&["ps", "-aq"])?, "");
    pods.nothing_is_left()
}

/// A registry on loopback that has the sample image under the tag `1` of any repository but `none`. Gives its address.
fn registry() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let layout = root().join("out/images/busybox");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that hangs up is its own affair.
            drop(answer(stream, &layout));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream, layout: &Path) -> Result<()> {
    let mut line = String::new();
    let mut lines = BufReader::new(stream.try_clone()?);
    lines.read_line(&mut line)?;
    // The request's head is read to its end, or the answer to it would be lost.
    let mut rest = String::new();
    while lines.read_line(&mut rest)? > 2 {
        rest.clear();
    }
    let path = line.split(' ').nth(1).unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let digest = if last == "1" {
        let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json"))?)?;
        index["manifests"][0]["digest"].as_str().unwrap_or_default().to_owned()
    } else {
        last.to_owned()
    };
    let blob = std::fs::read(layout.join("blobs").join(digest.replace(':', "/")));
    match blob {
        Ok(bytes) if !path.contains("/none/") => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                bytes.len()
            )?;
            stream.write_all(&bytes)?;
        }
        _ => write!(stream, "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?,
    }
    Ok(())
}

/// A directory with no more than the guest, as `image-builder pull` fills it.
fn pulled_guest(pods: &Pods) -> Result<()> {
    let guest = pods.path().join("guest");
    std::fs::create_dir(&guest)?;
    for name in ["vmlinux", "initrd.img", "manifest.json"] {
        std::fs::copy(root().join("out").join(name), guest.join(name))?;
    }
    Ok(())
}

/// What the program writes, and its status, outside of the source tree, with a guest and a cache of the test's own: what
/// others have pulled does not count.
fn alone(pods: &Pods, arguments: &[&str]) -> Result<(String, String, Option<i32>)> {
    let mut command = pods.command(arguments)?;
    command.env("PITH_CACHE", pods.path().join("cache")).env_remove("DOCKER_CONFIG");
    command.env("PITH_OUT", pods.path().join("guest")).current_dir(pods.path());
    // It may be in the cache that is not used here.
    if let Some(device) = find_tool("vhost-device-vsock", VSOCK_DEVICE) {
        command.env(VSOCK_DEVICE, device);
    }
    let output = command.output()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((text(output.stdout), text(output.stderr), output.status.code()))
}

#[test]
fn an_image_in_a_registry_is_pulled_run_listed_and_removed() -> Result<()> {
    let address = registry()?;
    let pods = Pods::new()?;
    pulled_guest(&pods)?;
    let name = format!("{address}/samples/busybox:1");
    let (_, said, code) = alone(&pods, &["run", "--rm", "--pull", "never", &name, "true"])?;
    ensure!(code == Some(1) && said.contains("pith pull"), "{said}");
    let (out, said, code) = alone(&pods, &["run", "--rm", &name, "echo", "hello from a registry"])?;
    ensure!(code == Some(0) && out == "hello from a registry\n", "{out}{said}");
    let (out, said, _) = alone(&pods, &["--json", "pull", &name])?;
    let pulled: Value = serde_json::from_str(&out).with_context(|| said)?;
    assert_eq!(pulled[0]["fetched"], 0, "it is there already");
    let (out, ..) = alone(&pods, &["images"])?;
    ensure!(out.contains(&name) && out.contains(" of 20.00 GB in "), "{out}");
    let digest = pulled[0]["digest"].as_str().context("no digest")?;
    let (out, said, code) = alone(&pods, &["rmi", &digest[7..20]])?;
    ensure!(code == Some(0) && out.contains(&name), "{out}{said}");
    let (out, ..) = alone(&pods, &["images", "-q"])?;
    assert_eq!(out, "");
    let (_, said, code) = alone(&pods, &["run", "--rm", &format!("{address}/none/busybox:1"), "true"])?;
    ensure!(code == Some(1) && said.contains("there is no such image"), "{said}");

    // A disk is made ahead, and goes when nobody uses it.
    let (out, said, code) = alone(&pods, &["image", &busybox_image()])?;
    // Behind the path stands the size.
    let disk = out.split(" (").next().unwrap_or_default().to_owned();
    ensure!(code == Some(0) && Path::new(&disk).is_file(), "{out}{said}");
    let (out, said, code) = alone(&pods, &["prune", "--all"])?;
    ensure!(code == Some(0) && !Path::new(&disk).exists(), "{out}{said}");

    // A manifest says when it is pulled.
    let manifest = |policy: &str| -> Result<String> {
        let path = pods.path().join(format!("{policy}.yaml"));
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: policy}}\nspec:\n  restartPolicy: Never\n  containers:\n    \
             - {{name: a, image: \"{name}\", imagePullPolicy: {policy}, command: [\"true\"]}}\n"
        );
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let (_, said, code) = alone(&pods, &["run", "--rm", "-f", &manifest("Never")?])?;
    ensure!(code == Some(1) && said.contains("pith pull"), "{said}");
    let (_, said, code) = alone(&pods, &["run", "--rm", "-f", &manifest("Always")?])?;
    ensure!(code == Some(0) && said.contains(" fetched"), "{said}");
    let (_, said, code) = alone(&pods, &["run", "--rm", "-f", &manifest("Never")?])?;
    ensure!(code == Some(0) && !said.contains(" fetched"), "{said}");
    let (_, said, code) = alone(&pods, &["run", "--rm", "-f", &manifest("Always")?])?;
    ensure!(code == Some(0) && said.contains(" fetched"), "{said}");
    pods.nothing_is_left()
}

#[test]
fn the_console_of_a_guest_is_reached() -> Result<()> {
    let pods = Pods::new()?;
    let initrd = root().join("out/initrd-debug.img").display().to_string();
    let image = busybox_image();
    pods.success(&[
        "run",
        "-d",
        "--name",
        "web",
        "--debug-console",
        "--initrd",
        &initrd,
        &image,
        "sleep",
        "1000",
    ])?;
    let mut console =
        pods.command(&["console", "web"])?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    console.stdin.take().context("no input")?.write_all(b"echo $((40 + 2))\nexit\n")?;
    let output = console.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.contains("42"), "{said}");
    pods.success(&["rm", "-f", "web"])?;
    pods.nothing_is_left()
}
