//! `pith vm`: a guest in QEMU, and what other monitors are told, by stand-ins that look at their command lines.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::pods::{Pods, root};

const PATIENCE: Duration = Duration::from_secs(120);

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn end(mut pith: Child) -> Result<()> {
    Pods::signal(&pith, "TERM")?;
    assert_eq!(pith.wait()?.code(), Some(143));
    Ok(())
}

#[test]
fn a_guest_in_qemu_is_reached_and_goes_with_the_command() -> Result<()> {
    let pods = Pods::new()?;
    let mut pith =
        pods.command(&["--json", "vm", "--append", "agent.log=debug"])?.stdout(Stdio::piped()).spawn()?;
    let mut told = String::new();
    let mut stdout = BufReader::new(pith.stdout.take().context("no output")?);
    while !told.trim_end().ends_with('}') {
        ensure!(stdout.read_line(&mut told)? > 0, "{told}");
    }
    let told: Value = serde_json::from_str(&told)?;
    assert_eq!((&told["vmm"], &told["port"]), (&"qemu".into(), &1024.into()), "{told}");
    let socket = told["socket"].as_str().map(PathBuf::from);
    if let Some(socket) = &socket {
        let mut stream = UnixStream::connect(socket)?;
        stream.write_all(b"CONNECT 1024\n")?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"OK");
    }
    let monitor = format!("/proc/{}", told["pid"]);
    ensure!(Path::new(&monitor).exists(), "{told}");
    end(pith)?;
    ensure!(
        !Path::new(&monitor).exists() && socket.is_none_or(|socket| !socket.exists()),
        "something is left"
    );
    Ok(())
}

/// Puts a program into `place` that writes down its arguments, and then waits to be ended.
fn stand_in(place: &Path, name: &str) -> Result<PathBuf> {
    let (program, arguments) = (place.join(name), place.join(format!("{name}.arguments")));
    let script = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" > {0}.new\nmv {0}.new {0}\nexec sleep 1000\n",
        arguments.display()
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(arguments)
}

/// Runs `pith vm` with a stand-in, looks at its arguments, and answers at the socket that they name.
fn told(name: &str, more: &[&str], socket: impl Fn(&[String]) -> Result<PathBuf>) -> Result<Vec<String>> {
    let pods = Pods::new()?;
    let written = stand_in(pods.path(), name)?;
    let path = format!("{}:{}", pods.path().display(), std::env::var("PATH")?);
    let out = root().join("out");
    let arguments = [&["vm", "--vmm", name, "--memory", "200", "--append", "a.b=c"], more].concat();
    let mut command = pods.command(&arguments)?;
    let mut pith = command.env("PATH", path).env("PITH_OUT", out).stdout(Stdio::piped()).spawn()?;
    let text = until("the monitor is not started", || {
        let ended = pith.try_wait().ok().flatten().is_some();
        std::fs::read_to_string(&written).ok().or_else(|| ended.then(String::new))
    })?;
    ensure!(!text.is_empty(), "pith has ended: {:?}", pith.wait()?);
    let words: Vec<String> = text.lines().map(str::to_owned).collect();
    let socket = socket(&words)?;
    let listener = UnixListener::bind(&socket)?;
    let answers = std::thread::spawn(move || -> Result<String> {
        let (stream, _) = listener.accept()?;
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        (&stream).write_all(b"OK 1073741824\n")?;
        Ok(line)
    });
    let mut line = String::new();
    BufReader::new(pith.stdout.take().context("no output")?).read_line(&mut line)?;
    assert_eq!(line.trim(), socket.display().to_string());
    assert_eq!(answers.join().expect("the stand-in's socket")?, "CONNECT 1024\n");
    end(pith)?;
    ensure!(!socket.exists(), "the socket stays");
    pods.nothing_is_left()?;
    Ok(words)
}

#[test]
fn firecracker_is_given_a_configuration() -> Result<()> {
    let configuration = std::cell::RefCell::new(Value::Null);
    let words = told("firecracker", &[], |words| {
        ensure!(words.len() == 3 && words[..2] == ["--no-api", "--config-file"], "{words:?}");
        let value: Value = serde_json::from_str(&std::fs::read_to_string(&words[2])?)?;
        let socket = value["vsock"]["uds_path"].as_str().context("no socket")?.into();
        *configuration.borrow_mut() = value;
        Ok(socket)
    })?;
    let value = configuration.into_inner();
    assert_eq!(value["machine-config"]["mem_size_mib"], 200);
    ensure!(
        value["boot-source"]["boot_args"].as_str().is_some_and(|words| words.ends_with("a.b=c")),
        "{value}"
    );
    for key in ["kernel_image_path", "initrd_path"] {
        let path = value["boot-source"][key].as_str().unwrap_or_default();
        ensure!(Path::new(path).is_file(), "{key}: {path}");
    }
    ensure!(!Path::new(&words[2]).exists(), "the configuration stays");
    Ok(())
}

#[test]
fn cloud_hypervisor_is_given_a_command_line() -> Result<()> {
    let words = told("cloud-hypervisor", &["--profile", "kata"], |words| {
        let at = words.iter().position(|word| word == "--vsock").context("no --vsock")?;
        let socket = words[at + 1].split(',').find_map(|part| part.strip_prefix("socket="));
        Ok(socket.context("no socket")?.into())
    })?;
    let value = |option: &str| {
        let at = words.iter().position(|word| word == option);
        at.map(|at| words[at + 1].as_str()).unwrap_or_default()
    };
    ensure!(Path::new(value("--kernel")).is_file() && Path::new(value("--initramfs")).is_file(), "{words:?}");
    ensure!(value("--memory").starts_with("size=200M") && value("--cpus") == "boot=1", "{words:?}");
    ensure!(value("--cmdline").ends_with("a.b=c"), "{words:?}");
    Ok(())
}

#[test]
fn a_monitor_that_is_missing_or_fails_is_named() -> Result<()> {
    let pods = Pods::new()?;
    let refused = |program: Option<&str>, named: &str| -> Result<()> {
        let mut command = pods.command(&["vm", "--vmm", "firecracker"])?;
        command.env("PITH_OUT", root().join("out"));
        if let Some(program) = program {
            command.env("PITH_FIRECRACKER", program);
        }
        let output = command.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1) && stderr.contains(named), "{named:?} is not in {stderr:?}");
        Ok(())
    };
    if machine::vm::find_tool("firecracker", "PITH_FIRECRACKER").is_none() {
        refused(None, "firecracker is not installed")?;
    }
    let failing = pods.path().join("failing");
    std::fs::write(&failing, "#!/bin/sh\necho 'no such device: /dev/kvm'\nexit 3\n")?;
    std::fs::set_permissions(&failing, std::fs::Permissions::from_mode(0o755))?;
    refused(Some(&failing.display().to_string()), "no such device: /dev/kvm")
}
