//! The examples of README.md, run as they stand: every line of every shell block, one section after the other.
//!
//! [`ROWS`] says how a line is run, or why it cannot be run here; the reason is printed. A line without a row fails, and so does
//! a row without a line. Each section is a script of its own, in a home that has nothing. Images by name are in its cache
//! already, made of the sample images, so no line needs a registry: `alpine` is the sample busybox.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{Pods, root};

/// How a line is run.
enum How {
    /// To its end, with status 0.
    Run,
    /// To its end, with this text in what it prints.
    Prints(&'static str),
    /// As `Prints`, tried again for a minute: what it wants may come up only now.
    Soon(&'static str),
    /// On a terminal at which this is typed, with this text in what is shown.
    Types(&'static str, &'static str),
    /// In the background, from when this command succeeds: it ends when a later line ends the pod.
    Beside(&'static str),
    /// On a host that has nothing but Kata's files, with this text in what it prints: a directory stands for `/`, and scripts
    /// ([`STAND_INS`]) for `sudo`, `systemctl` and `kubectl`. They check what they are given.
    Staged(&'static str),
    /// A target of make that `make test` has made before this test. It is looked up only.
    Made,
    /// Not here.
    Not(&'static str),
}

use How::{Beside, Made, Not, Prints, Run, Soon, Staged, Types};

/// The section, the line without its comment, and how it is run.
const ROWS: [(&str, &str, How); 35] = [
    ("Pith", "git clone <this repository> pith && cd pith", Not("this is the clone")),
    ("Pith", "make run", Made),
    ("Pith", "make test", Made),
    ("I want to try it", "make build setup-run", Made),
    ("I want to try it", r#"export PATH="$PWD/target/debug:$PATH""#, Run),
    ("I want to try it", "pith doctor", Run),
    ("I want to try it", "pith run --rm -it alpine sh", Types("echo I have $(id -u); exit", "I have 0")),
    ("I want to try it", "pith run -d --name web -p 8080:80 nginx", Prints("web")),
    ("I want to try it", "curl http://127.0.0.1:8080/", Soon("Welcome to nginx")),
    ("I want to try it", "pith rm -f web", Run),
    ("I run Kata", "make build", Made),
    (
        "I run Kata",
        "sudo target/debug/image-builder install --kata",
        Staged(
            "/opt/kata/share/defaults/kata-containers/configuration-qemu.toml (the Go shim, version 3.30)",
        ),
    ),
    (
        "I run Kata",
        "sudo tee -a /etc/containerd/config.toml < /etc/kata-containers/pith/containerd.toml && sudo systemctl restart containerd",
        Staged("containerd has the handler kata-pith"),
    ),
    (
        "I run Kata",
        "kubectl apply -f /etc/kata-containers/pith/runtimeclass.yaml",
        Staged("runtimeclass kata-pith created"),
    ),
    (
        "I run Kata",
        r#"kubectl run hello --image=busybox --overrides='{"apiVersion": "v1", "spec": {"runtimeClassName": "kata-pith"}}' -- sleep 600"#,
        Staged("pod/hello created"),
    ),
    (
        "I run Kata",
        "kubectl wait pod/hello --for=condition=Ready && kubectl exec hello -- uname -r",
        Not("needs containerd and Kubernetes with Kata Containers on this host"),
    ),
    ("I build sandboxes", "make flavours", Made),
    (
        "I build sandboxes",
        "target/debug/pith run -d --name box --sandbox-api 127.0.0.1:49983 debian sleep infinity",
        Prints("box"),
    ),
    ("I build sandboxes", "python3 -m venv out/venv && out/venv/bin/pip install e2b", Run),
    (
        "I build sandboxes",
        "out/venv/bin/python -c 'from e2b import Sandbox; box = Sandbox.create(debug=True, sandbox_url=\"http://127.0.0.1:49983\")\n\
         print(box.commands.run(\"uname -a\").stdout)'",
        Prints("Linux"),
    ),
    ("I build sandboxes", "target/debug/pith rm -f box", Run),
    ("Run your own pods", "pith run -f pod.yaml", Beside("pith exec web true")),
    ("Run your own pods", "pith ps -a", Prints("running")),
    ("Run your own pods", "pith exec -it web sh", Types("ls /srv; echo $MODE; exit", "test")),
    ("Run your own pods", "pith logs -f web", Beside("true")),
    ("Run your own pods", "pith stop web", Run),
    ("Run your own pods", "pith rm web", Run),
    ("Use the agent from a program", "make wheel", Made),
    ("Use the agent from a program", "python3 -m venv venv && venv/bin/pip install out/pith-*.whl", Run),
    ("Use the agent from a program", "pith run -d -f pod.yaml", Prints("web")),
    ("Use the agent from a program", "pith ps web", Prints("web-server")),
    ("Use the agent from a program", "venv/bin/python -m pith --pod web check", Prints("serving, agent")),
    (
        "Use the agent from a program",
        r#"venv/bin/python -m pith --pod web call StatsContainer '{"container_id": "web-server"}'"#,
        Prints("cgroup_stats"),
    ),
    (
        "Use the agent from a program",
        "venv/bin/python -m pith methods",
        Prints("grpc.AgentService StatsContainer"),
    ),
    ("Use the agent from a program", "pith rm -f web", Run),
];

/// What stands in for the programs of a host with containerd and Kubernetes. `$HOST` stands for `/`.
const STAND_INS: [(&str, &str); 3] = [
    ("sudo", include_str!("stand-ins/sudo")),
    ("systemctl", include_str!("stand-ins/systemctl")),
    ("kubectl", include_str!("stand-ins/kubectl")),
];

/// Blocks that are no shell, by section and language, and what they are for.
const OTHERS: [(&str, &str, &str); 2] = [
    ("What `make run` shows", "text", "what was printed once"),
    ("Run your own pods", "yaml", "the pod.yaml of the lines that follow it"),
];

/// A fenced block.
struct Block {
    section: String,
    language: String,
    text: String,
}

fn blocks() -> Result<Vec<Block>> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let (mut section, mut blocks, mut open) = (String::new(), Vec::new(), None::<Block>);
    for line in readme.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text += &format!("{line}\n"),
            (None, Some(language)) => {
                let (section, language) = (section.clone(), language.to_owned());
                open = Some(Block { section, language, text: String::new() });
            }
            (None, None) if line.starts_with('#') => section = line.trim_start_matches('#').trim().to_owned(),
            (None, None) => {}
        }
    }
    ensure!(open.is_none(), "a block of README.md has no end");
    Ok(blocks)
}

/// A line of a shell without its comment, the comment, and whether a quote is open at its end.
fn parts(line: &str) -> (&str, &str, bool) {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '#' && before.is_whitespace() => return (line[..at].trim(), &line[at..], false),
            None => {}
        }
        before = c;
    }
    (line.trim(), "", quote.is_some())
}

/// The commands of a block. A line whose quote is open goes on in the next one. A comment may have one more command, in
/// backquotes behind `try`.
fn commands(text: &str) -> Vec<String> {
    let (mut all, mut lines) = (Vec::new(), String::new());
    for line in text.lines() {
        lines += line;
        let (command, comment, is_open) = parts(&lines);
        if is_open {
            lines.push('\n');
            continue;
        }
        if !command.is_empty() {
            all.push(command.to_owned());
        }
        if let Some((_, rest)) = comment.split_once("try `") {
            all.extend(rest.split_once('`').map(|(more, _)| more.to_owned()));
        }
        lines.clear();
    }
    all
}

/// A home with nothing in it but a cache, in which the images of README.md are known by their names.
struct Home {
    directory: TempDir,
    pods: Pods,
}

impl Home {
    fn new() -> Result<Self> {
        let home = Self { directory: tempfile::tempdir()?, pods: Pods::new()? };
        let cache = home.cache();
        std::fs::create_dir_all(&cache)?;
        // What is expensive to make is the real cache's; images are not.
        let real = std::env::var_os("PITH_CACHE").map(PathBuf::from);
        let real = real.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/pith")));
        for entry in std::fs::read_dir(real.context("no home")?)? {
            let entry = entry?;
            if !["pulled", "work"].iter().any(|name| entry.file_name() == *name) {
                symlink(entry.path(), cache.join(entry.file_name()))?;
            }
        }
        home.images(&[("alpine", "busybox"), ("nginx", "nginx"), ("debian", "debian")])?;
        Ok(home)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn cache(&self) -> PathBuf {
        self.path().join(".cache/pith")
    }

    /// Sample images under names of a registry, as if they had been pulled.
    fn images(&self, names: &[(&str, &str)]) -> Result<()> {
        let library = self.cache().join("pulled");
        let blobs = library.join("blobs/sha256");
        std::fs::create_dir_all(&blobs)?;
        let mut entries = Vec::new();
        for (name, sample) in names {
            let layout = root().join("out/images").join(sample);
            let index = std::fs::read(layout.join("index.json"))
                .with_context(|| format!("out/images/{sample} is missing: run `make samples`"))?;
            let index: Value = serde_json::from_slice(&index)?;
            let mut entry = index["manifests"][0].clone();
            entry["annotations"] =
                json!({"org.opencontainers.image.ref.name": format!("docker.io/library/{name}:latest")});
            entries.push(entry);
            for blob in std::fs::read_dir(layout.join("blobs/sha256"))? {
                let blob = blob?;
                std::fs::copy(blob.path(), blobs.join(blob.file_name()))?;
            }
        }
        std::fs::write(library.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        std::fs::write(
            library.join("index.json"),
            json!({"schemaVersion": 2, "manifests": entries}).to_string(),
        )?;
        Ok(())
    }

    /// What [`Staged`] lines find: Kata Containers 3.30 as its release leaves it, and containerd's configuration.
    fn stage(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let base = "[hypervisor.qemu]\npath = \"/opt/kata/bin/qemu-system-x86_64\"\n[runtime]\n";
        let files = [
            ("host/opt/kata/share/defaults/kata-containers/configuration-qemu.toml", base),
            ("host/opt/kata/bin/containerd-shim-kata-v2", "#!/bin/sh\n"),
            ("host/opt/kata/VERSION", "3.30.0\n"),
            ("host/etc/containerd/config.toml", "version = 2\n"),
        ]
        .map(|(name, text)| (name.to_owned(), text));
        let programs = STAND_INS.map(|(name, text)| (format!("bin/{name}"), text));
        for (name, text) in files.into_iter().chain(programs) {
            let path = self.path().join(name);
            std::fs::create_dir_all(path.parent().context("no directory")?)?;
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }

    /// Runs a script of bash there with these variables, and gives what it printed.
    fn run(&self, script: &str, directory: &Path, variables: &[(&str, &str)]) -> Result<String> {
        let path = std::env::var("PATH")?;
        let programs = root().join("target/debug");
        let output = Command::new("bash")
            .args(["-c", script])
            .current_dir(directory)
            .env("HOME", self.path())
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("PITH_STATE", self.pods.path().join("pods"))
            .env_remove("PITH_CACHE")
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_DATA_HOME")
            .env("PITH_OUT", root().join("out"))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .output()
            .context("run bash")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}\n{text}{errors}", output.status);
        Ok(text)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // After a failure a pod may still be there, and it has the ports that the next try wants.
        drop(self.pods.run(&["stop", "--all", "--timeout", "1"]));
    }
}

/// In quotes for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Runs the lines of a section as its rows say, in `directory`.
fn section(name: &str, home: &Home, directory: &Path) -> Result<()> {
    section_with(name, home, directory, &[])
}

/// As [`section`], with these variables.
fn section_with(name: &str, home: &Home, directory: &Path, variables: &[(&str, &str)]) -> Result<()> {
    let found: Vec<String> = blocks()?
        .iter()
        .filter(|b| b.section == name && b.language == "sh")
        .flat_map(|b| commands(&b.text))
        .collect();
    ensure!(!found.is_empty(), "README.md has no section {name:?} with commands");
    if ROWS.iter().any(|(section, _, how)| *section == name && matches!(how, Staged(_))) {
        home.stage()?;
    }
    // What is expected of the output is in it between two marks.
    let mut script = String::from("set -eu -o pipefail\nexport SHELL=/bin/bash\n");
    let mut expected = Vec::new();
    for command in &found {
        let row = ROWS.iter().find(|(section, line, _)| section == &name && line == command);
        let (.., how) = row.with_context(|| format!("{name}: {command}: has no row in ROWS"))?;
        println!("$ {command}");
        let at = expected.len();
        writeln!(script, "echo '<<{at}'")?;
        match how {
            Run | Prints(_) => writeln!(script, "{command}")?,
            Soon(_) => writeln!(
                script,
                "for _ in $(seq 60); do said=$({command}) && break; sleep 1; done\nprintf '%s\\n' \"$said\""
            )?,
            // What is typed before the prompt would be lost when the terminal changes its mode.
            Types(input, _) => writeln!(
                script,
                "shown=$(mktemp -p $HOME)\n\
                 {{ for _ in $(seq 900); do grep -q '[#$] ' $shown && break; sleep 0.2; done; printf '%s\\n' {}; }} \\\n  \
                 | script -qefc {} $shown",
                quoted(input),
                quoted(command)
            )?,
            Beside(ready) => {
                writeln!(
                    script,
                    "{command} &\nfor _ in $(seq 300); do {ready} >/dev/null 2>&1 && break; sleep 1; done"
                )?;
                writeln!(script, "{ready}")?;
            }
            // A path of the host is one below the directory that stands for it.
            Staged(_) => {
                let line = command.replace(" /etc/", " $HOST/etc/");
                writeln!(script, "(export HOST=$HOME/host PATH=$HOME/bin:$PATH; {line})")?;
            }
            Made => writeln!(
                script,
                "make --silent -n -C {} {} >/dev/null",
                quoted(&root().display().to_string()),
                command.trim_start_matches("make ")
            )?,
            Not(reason) => println!("  not run here: {reason}"),
        }
        writeln!(script, "echo '>>{at}'")?;
        expected.push((command, how));
    }
    // What runs in the background ends by itself.
    script += "wait\n";
    let text = home.run(&script, directory, variables)?;
    for (at, (command, how)) in expected.into_iter().enumerate() {
        let (Prints(words) | Soon(words) | Staged(words) | Types(_, words)) = how else { continue };
        let part =
            text.split_once(&format!("<<{at}\n")).and_then(|(_, rest)| rest.split_once(&format!(">>{at}\n")));
        let (said, _) = part.with_context(|| format!("{command}: was not reached:\n{text}"))?;
        ensure!(said.contains(words), "{command}: {words:?} is not in {said:?}");
    }
    home.pods.nothing_is_left()
}

/// A directory with all that the section on pods speaks of.
fn pods_directory(home: &Home) -> Result<PathBuf> {
    let directory = home.path().join("work");
    std::fs::create_dir_all(directory.join("site"))?;
    std::fs::write(directory.join("site/index.html"), "hello\n")?;
    let yaml =
        blocks()?.into_iter().find(|block| block.language == "yaml").context("no pod.yaml in README.md")?;
    std::fs::write(directory.join("pod.yaml"), yaml.text)?;
    symlink(root().join("out"), directory.join("out"))?;
    let tar = Command::new("tar")
        .arg("-cf")
        .arg(directory.join("nginx.tar"))
        .arg("-C")
        .arg(root().join("out/images/nginx"))
        .arg(".")
        .status()?;
    ensure!(tar.success(), "tar: {tar}");
    Ok(directory)
}

#[test]
fn every_block_is_known() -> Result<()> {
    let mut seen = BTreeSet::new();
    for block in blocks()? {
        if block.language != "sh" {
            let known = OTHERS
                .iter()
                .any(|(section, language, _)| *section == block.section && *language == block.language);
            ensure!(known, "{}: a block of {:?} without a line in OTHERS", block.section, block.language);
            continue;
        }
        for command in commands(&block.text) {
            let row =
                ROWS.iter().position(|(section, line, _)| *section == block.section && *line == command);
            let Some(row) = row else {
                bail!("{}: {command:?} has no row in ROWS: say how it is run, or why not", block.section)
            };
            seen.insert(row);
        }
    }
    for (row, (section, line, _)) in ROWS.iter().enumerate() {
        ensure!(seen.contains(&row), "{section}: README.md has no {line:?} any more: remove its row");
    }
    Ok(())
}

#[test]
fn what_is_said_first() -> Result<()> {
    let home = Home::new()?;
    section("Pith", &home, &root())?;
    section("I run Kata", &home, &root())
}

#[test]
fn i_want_to_try_it() -> Result<()> {
    section("I want to try it", &Home::new()?, &root())
}

#[test]
fn i_build_sandboxes() -> Result<()> {
    let venv = root().join("out/venv");
    // pip installs what tests/sandbox/requirements.txt names by content, and asks no registry.
    let wheels = Command::new(root().join("tests/sandbox/sdk.sh")).arg("wheels").output()?;
    ensure!(wheels.status.success(), "sdk.sh wheels: {}", String::from_utf8_lossy(&wheels.stderr));
    let wheels = String::from_utf8(wheels.stdout)?;
    let pinned = [("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", wheels.trim_end())];
    let result = section_with("I build sandboxes", &Home::new()?, &root(), &pinned);
    if venv.exists() {
        std::fs::remove_dir_all(&venv)?;
    }
    result
}

#[test]
fn run_your_own_pods_and_use_the_agent() -> Result<()> {
    let home = Home::new()?;
    let directory = pods_directory(&home)?;
    section("Run your own pods", &home, &directory)?;
    section("Use the agent from a program", &home, &directory)
}

#[test]
fn commands_are_found_whole() {
    let text = "make x # it's one; try `curl y`\n\n# nothing\na 'b # \"\nc'   # two\nd#e \"f'\"\n";
    assert_eq!(commands(text), ["make x", "curl y", "a 'b # \"\nc'", "d#e \"f'\""]);
    assert_eq!(quoted("a'b"), r"'a'\''b'");
}
