//! The Python package, as it is installed: the wheel of `make wheel` in an environment of its own drives guests and pods. It
//! shares no code with the Rust side, and has nothing but Python's standard library.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use machine::vm::Endpoint;
use tempfile::TempDir;
use tests::{Guest, Pods, busybox_image, root};

/// A fresh environment with the wheel, and nothing else.
pub(crate) struct Python {
    environment: TempDir,
}

impl Python {
    /// Installs the wheel, without an index to take anything else from.
    pub(crate) fn new() -> Result<Self> {
        let environment = tempfile::tempdir()?;
        let python = Self { environment };
        let venv = ["-m", "venv", "--without-pip"];
        done(Command::new("python3").args(venv).arg(python.environment.path()), "make an environment")?;
        let install = [
            "--no-index",
            "--no-deps",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--quiet",
        ];
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "--python"]).arg(python.program()).arg("install").args(install).arg(wheel()?);
        done(&mut pip, "install the wheel (Debian: apt-get install python3-pip)")?;
        Ok(python)
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.environment.path().join("bin/python3")
    }

    /// Python with these arguments, to be started elsewhere than in the source tree.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program());
        command.args(arguments).current_dir(self.environment.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Runs a program of tests/python.
    fn script(&self, name: &str, arguments: &[&str]) -> Result<Output> {
        let script = root().join("tests/python").join(name).display().to_string();
        self.command(&[&[script.as_str()], arguments].concat()).output().context("run Python")
    }

    /// Runs `python3 -m pith`; its status and both outputs.
    fn pith(&self, arguments: &[&str]) -> Result<(Option<i32>, String, String)> {
        let output = self.command(&[&["-m", "pith"], arguments].concat()).output().context("run Python")?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok((output.status.code(), text(output.stdout), text(output.stderr)))
    }
}

/// The wheel that `make wheel` has built.
fn wheel() -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("out"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("pith-") && name.ends_with("-py3-none-any.whl") {
            found.push(path);
        }
    }
    ensure!(found.len() == 1, "out/ has {} wheels in place of one: run `make wheel`", found.len());
    found.pop().context("there is one")
}

fn done(command: &mut Command, what: &str) -> Result<()> {
    let output = command.output().with_context(|| what.to_owned())?;
    ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Shows what a script printed, and checks that it has come to its end.
fn passed(output: &Output) -> Result<String> {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{out}{err}", output.status);
    Ok(out.into_owned())
}

fn at(guest: &Guest) -> [String; 2] {
    match guest.vm().endpoint() {
        Endpoint::Hybrid { socket } => ["--socket".to_owned(), socket.display().to_string()],
        Endpoint::Vsock { cid } => ["--cid".to_owned(), cid.to_string()],
        Endpoint::Unix { socket } => ["--unix".to_owned(), socket.display().to_string()],
    }
}

/// Without a guest: its messages against Google's, archives of a hostile container, and an agent that says what none should.
#[test]
fn it_reads_what_others_wrote() -> Result<()> {
    let python = Python::new()?;
    passed(&python.script("codec_test.py", &[])?)?;
    passed(&python.script("copy_test.py", &[])?)?;
    passed(&python.script("wire_test.py", &[])?)?;
    Ok(())
}

#[tokio::test]
async fn it_runs_a_pods_whole_life() -> Result<()> {
    let guest = Guest::boot().await?;
    let [option, place] = at(&guest);
    let work = move || passed(&Python::new()?.script("life.py", &[&option, &place])?);
    let out = tokio::task::spawn_blocking(work).await??;
    assert!(out.ends_with("done\n"), "{out}");
    assert!(guest.vm().wait_off(Duration::from_secs(60)).await, "the machine stays on");
    Ok(())
}

#[tokio::test]
async fn it_answers_people_with_json_and_exit_statuses() -> Result<()> {
    let guest = Guest::boot().await?;
    let [option, place] = at(&guest);
    tokio::task::spawn_blocking(move || people(&option, &place)).await?
}

fn people(option: &str, place: &str) -> Result<()> {
    let python = Python::new()?;
    let ask = |order: &[&str]| python.pith(&[&[option, place], order].concat());
    let (status, out, _) = ask(&["check"])?;
    assert_eq!(status, Some(0));
    assert!(out.starts_with("serving, agent "), "{out}");
    let (status, out, _) = ask(&["call", "ListInterfaces"])?;
    let answer: serde_json::Value = serde_json::from_str(&out)?;
    assert_eq!((status, answer["Interfaces"][0]["name"].as_str()), (Some(0), Some("lo")), "{out}");
    let (status, _, err) = ask(&["call", "StatsContainer", r#"{"container_id": "nobody"}"#])?;
    assert_eq!(status, Some(1));
    assert!(err.contains("NOT_FOUND"), "{err}");
    let (status, _, err) = ask(&["call", "NoSuchMethod"])?;
    assert_eq!(status, Some(2));
    assert!(err.contains("NoSuchMethod"), "{err}");
    for senseless in ["[]", "5", r#"{"container_id": 5}"#, r#"{"no_such_field": 1}"#, "{"] {
        let (status, _, err) = ask(&["call", "StatsContainer", senseless])?;
        assert_eq!(status, Some(2), "{senseless}: {err}");
        assert!(err.starts_with("pith: ") && !err.contains("Traceback"), "{err}");
    }
    // A field of the request, not a deadline of the client's.
    let removal = r#"{"container_id": "nobody", "timeout": 3}"#;
    let (status, _, err) = ask(&["call", "RemoveContainer", removal])?;
    assert_eq!(status, Some(1), "{err}");
    let (status, out, _) = python.pith(&["methods"])?;
    assert!(
        status == Some(0) && out.contains("grpc.AgentService StatsContainer(container_id string)"),
        "{out}"
    );
    let (status, _, err) = python.pith(&["--socket", "/nowhere", "check"])?;
    assert_eq!(status, Some(2));
    assert!(err.contains("/nowhere"), "{err}");
    let (status, _, err) = python.pith(&["check"])?;
    assert!(status == Some(2) && err.contains("--socket"), "{err}");
    Ok(())
}

/// Python's environment for pods that no other test sees.
fn with_pods(command: &mut Command, pods: &Pods) {
    command
        .env("PITH_PROGRAM", root().join("target/debug/pith"))
        .env("PITH_STATE", pods.path().join("pods"))
        .env("XDG_DATA_HOME", pods.path().join("data"));
}

#[test]
fn it_drives_pods_of_an_image() -> Result<()> {
    let (python, pods) = (Python::new()?, Pods::new()?);
    let script = root().join("tests/python/pod_test.py").display().to_string();
    let image = busybox_image();
    let files = pods.path().join("files");
    std::fs::create_dir(&files)?;
    let mut command = python.command(&[&script, &image, &files.display().to_string()]);
    with_pods(&mut command, &pods);
    let out = passed(&command.output()?)?;
    assert!(out.ends_with("done\n"), "{out}");
    pods.nothing_is_left()
}

/// The Python programs of docs/python.md, each run as it stands. What a line prints stands behind `# prints`.
#[test]
fn its_documents_programs_print_what_they_say() -> Result<()> {
    let (python, pods) = (Python::new()?, Pods::new()?);
    let text = std::fs::read_to_string(root().join("docs/python.md"))?;
    let programs: Vec<&str> =
        text.split("```python\n").skip(1).filter_map(|rest| Some(rest.split_once("```")?.0)).collect();
    ensure!(programs.len() >= 5, "docs/python.md has {} programs", programs.len());
    // The image's name is a name of a registry in the document; here it is the sample image.
    std::os::unix::fs::symlink(root().join("out/images/busybox"), pods.path().join("alpine"))?;
    let manifest = pods.manifest("web", &[("server", "sleep 1000")])?;
    ensure!(manifest.ends_with("web.yaml"), "{}", manifest.display());
    for program in programs {
        let expected: Vec<&str> =
            program.lines().filter_map(|line| line.split_once("# prints ")).map(|pair| pair.1).collect();
        ensure!(!expected.is_empty(), "it says of no line what it prints:\n{program}");
        let mut command = python.command(&["-c", program]);
        with_pods(&mut command, &pods);
        let out = passed(&command.current_dir(pods.path()).output()?).with_context(|| program.to_owned())?;
        ensure!(out.lines().collect::<Vec<_>>() == expected, "{out:?} in place of {expected:?}:\n{program}");
    }
    pods.nothing_is_left()
}

/// One version, and one description of the messages.
#[test]
fn it_is_of_this_version_and_of_this_api() -> Result<()> {
    let check = root().join("image-builder/python/generate.py");
    done(Command::new("python3").arg(&check).arg("--check"), "compare the messages")?;
    let manifest: toml::Table = toml::from_str(&std::fs::read_to_string(root().join("Cargo.toml"))?)?;
    let version = manifest["workspace"]["package"]["version"].as_str().context("a version")?;
    let name = wheel()?.file_name().unwrap_or_default().to_string_lossy().into_owned();
    ensure!(
        name == format!("pith-{version}-py3-none-any.whl"),
        "{name}, and the programs have the version {version}: change __version__, and run `make wheel`"
    );
    Ok(())
}

/// The library is typed: who uses it has its types.
#[test]
fn it_says_that_it_is_typed() -> Result<()> {
    let python = Python::new()?;
    let ask = "import pith, pathlib; print(pathlib.Path(pith.__file__).with_name('py.typed').exists())";
    assert_eq!(passed(&python.command(&["-c", ask]).output()?)?, "True\n");
    ensure!(Path::new(&python.program()).exists(), "the environment is there");
    Ok(())
}
