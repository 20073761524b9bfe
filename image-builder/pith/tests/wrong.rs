//! Wrong inputs, and what a user is told. Nothing here boots.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use machine::vm::Qemu;
use store::arch::Arch;
use store::digest::Digest;

/// A user's machine: a state directory, a cache, products that are only looked at, and some files.
struct Host(tempfile::TempDir);

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: ./root}]}\n";
const TWO: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: one}\nspec: {containers: [{name: a, image: ./root}]}\n---\n\
    apiVersion: v1\nkind: Pod\nmetadata: {name: two}\nspec: {containers: [{name: a, image: ./root}]}\n";

impl Host {
    fn new() -> Host {
        let host = Host(tempfile::tempdir().unwrap());
        fs::create_dir_all(host.path("root/bin")).unwrap();
        fs::create_dir_all(host.path("out")).unwrap();
        for (name, text) in [
            ("root/bin/tool", "x"),
            ("out/vmlinux", "x"),
            ("out/initrd.img", "x"),
            ("pod.yaml", POD),
            ("two.yaml", TWO),
            ("odd.yaml", "kind: ["),
            ("key.yaml", &POD.replace("image: ./root", "image: ./root, colour: red")),
            ("notes.txt", "hello, this is no image"),
        ] {
            fs::write(host.path(name), text).unwrap();
        }
        host
    }

    /// The pods in the state directory. The journal beside them may tell of a start that failed.
    fn begun(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("state")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with('.')).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, line: &str, out: &Path) -> Output {
        self.command(line, out).output().unwrap()
    }

    fn command(&self, line: &str, out: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pith"));
        command.args(line.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("PITH_CACHE", self.path("cache"));
        command.env("PITH_STATE", self.path("state")).env("PITH_OUT", out);
        command
    }

    /// What is said about a line that must fail, and the status.
    fn refused(&self, line: &str) -> (String, i32) {
        let output = self.run(line, &self.path("out"));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{line}: it succeeded");
        (text, output.status.code().unwrap())
    }
}

/// What is typed, what the error must have in it, and the exit status.
const WRONG: [(&str, &[&str], i32); 86] = [
    ("run", &["<IMAGE>"], 2),
    ("run --rm -f pod.yaml ./root", &["cannot be used with", "--file"], 2),
    ("run -f missing.yaml", &["missing.yaml", "No such file"], 1),
    ("run -f odd.yaml", &["odd.yaml", "cannot be read"], 1),
    ("run -f key.yaml", &["key.yaml", "colour", "line 4"], 1),
    ("run -f two.yaml", &["two.yaml", "several Pods", "one (line 1)", "two (line 6)", "--pod NAME"], 1),
    (
        "run -f two.yaml --pod three",
        &["two.yaml", "no Pod \"three\"", "it has one (line 1), two (line 6)"],
        1,
    ),
    ("run -f pod.yaml --name other", &["--name", "run IMAGE", "manifest"], 1),
    ("run -f pod.yaml -e A=1", &["--env", "manifest"], 1),
    ("run -d -f -", &["--detach", "file"], 1),
    ("run ./nothing", &["./nothing", "no such file"], 1),
    ("run notes.txt", &["notes.txt", "neither a directory nor a tar archive", "docker save"], 1),
    ("run Nginx", &["Nginx", "lower-case"], 1),
    ("run https://ghcr.io/a/b", &["scheme"], 1),
    ("run --pull never nginx", &["nginx", "pith pull nginx"], 1),
    ("run --platform linux/386 nginx", &["linux/386", "there are linux/amd64, linux/arm64"], 2),
    ("run --platform windows/amd64 nginx", &["windows/amd64", "linux/amd64"], 2),
    ("pull --platform linux/arm64/v9 nginx", &["linux/arm64/v9", "linux/arm64"], 2),
    ("run --pull never --platform linux/arm64 nginx", &["pith pull --platform linux/arm64 nginx"], 1),
    ("run --pull sometimes nginx", &["sometimes", "always", "missing", "never"], 2),
    ("run --name Web_1 ./root", &["--name", "lower-case"], 1),
    ("run -v /etc ./root x", &["--volume", "HOSTPATH:PATH"], 1),
    ("run -v /no/such/dir:/x ./root x", &["/no/such/dir", "on this host"], 1),
    ("run -v ./root:x ./root x", &["\"x\" is not an absolute path"], 1),
    ("run -v ./root:/x:z ./root x", &["no option \"z\"", "ro and rw"], 1),
    ("run -v ./root:/proc ./root x", &["/proc", "mount it elsewhere"], 1),
    ("run -v ./root:/x -v data:/x/ ./root x", &["\"data:/x/\"", "mounted on /x already"], 1),
    ("run -v Data:/x ./root x", &["\"Data\"", "lower-case", "begins with / or ./"], 1),
    ("run -e =1 ./root x", &["--env", "NAME=VALUE"], 1),
    ("run --env-file nothing ./root x", &["--env-file", "nothing"], 1),
    ("run -w srv ./root x", &["--workdir", "absolute"], 1),
    ("run -u : ./root x", &["USER"], 2),
    ("run -m lots ./root x", &["lots", "64Mi"], 2),
    ("run -m 12 ./root x", &["12 MiB", "48 MiB"], 1),
    ("run --cpus 0 ./root x", &["'0'", "from 1 to 255"], 2),
    ("run --cpus 0.5 ./root x", &["'0.5'", "whole processors"], 2),
    ("run -p 80 ./root x", &["HOSTPORT:GUESTPORT"], 2),
    ("run -p 80 ./root x", &["for example 8080:80"], 2),
    ("run -p 80:99999 ./root x", &["99999", "65535"], 2),
    ("run -p localhost:8080:80 ./root x", &["localhost", "127.0.0.1"], 2),
    ("run -p 80:80/http ./root x", &["http", "tcp", "udp"], 2),
    ("run -p 8080:80 -p 8080:81 ./root x", &["8080->80", "8080->81", "the same port"], 1),
    ("run --naem web ./root x", &["--naem", "'--name'"], 2),
    ("run --network bridge ./root x", &["bridge", "netns=NAME"], 2),
    ("run --accel hvf ./root x", &["hvf", "auto, kvm, tcg"], 2),
    ("run --cap-add CAP_FOO ./root x", &["no capability \"FOO\""], 1),
    ("run --kernel nothing ./root x", &["there is no file nothing"], 1),
    (
        "run --sandbox-api 127.0.0.1:1 ./root x",
        &["initrd-sandbox.img", "flavours: minimal", "--flavour sandbox"],
        1,
    ),
    ("run nginx@sha256:abc x", &["nginx@sha256:abc", "64 hexadecimal digits"], 1),
    ("run -d -it", &["<IMAGE>"], 2),
    ("exec web", &["COMMAND"], 2),
    ("exec web ls", &["no pod \"web\""], 1),
    ("logs web", &["no pod \"web\""], 1),
    ("logs --since yesterday web", &["yesterday", "90s"], 2),
    ("stop", &["<POD>"], 2),
    ("logs --tail x web", &["'x'", "number of lines"], 2),
    ("rm web", &["no pod \"web\"", "no pods at all"], 1),
    ("inspect web", &["no pod \"web\""], 1),
    ("restart web", &["no pod \"web\""], 1),
    ("stats --no-stream web", &["no pod \"web\""], 1),
    ("attach web", &["no pod \"web\""], 1),
    ("rmi nginx", &["no image \"nginx\"", "pulled"], 1),
    ("pull", &["<IMAGE>"], 2),
    ("pull nginx:a:b", &["\"nginx:a:b\" is no reference", "more than one tag", "PATH[:TAG]"], 1),
    ("run --scratch 10 ./root x", &["10", "no unit", "10Gi"], 2),
    ("run --scratch 1Ki ./root x", &["16Mi to 8Ti"], 2),
    ("cp web:/etc/hosts", &["<DST>"], 2),
    ("cp web:/etc/hosts here", &["no pod \"web\""], 1),
    ("cp pod.yaml here", &["POD:PATH"], 1),
    ("cp web:/a web:/b", &["pith cp A:PATH - | pith cp - B:PATH"], 1),
    ("cp web/a/b:/x here", &["web/a/b:/x", "POD/CONTAINER:PATH"], 2),
    ("cp web: here", &["no path"], 2),
    ("cp --max-size lots web:/a here", &["lots"], 2),
    ("volume rm data", &["no volume \"data\"", "there is none"], 1),
    ("volume create Data", &["\"Data\"", "lower-case"], 1),
    ("volume inspect data", &["no volume \"data\""], 1),
    ("cp pod.yaml web", &["POD:PATH"], 1),
    ("image nothing", &["nothing", "no such file", "docker save"], 1),
    ("completions ksh", &["ksh", "bash, zsh, fish"], 2),
    ("man /proc/none", &["cannot write", "/proc/none"], 1),
    ("--out nothing run ./root x", &["nothing/vmlinux", "--out or PITH_OUT"], 1),
    ("vm --flavour odd", &["initrd-odd.img", "flavours: minimal", "--flavour odd"], 1),
    ("vm --vmm xen", &["xen", "firecracker"], 2),
    ("vm --profile kata", &["--profile", "Firecracker"], 1),
    ("frobnicate", &["unrecognized subcommand 'frobnicate'", "try '--help'"], 2),
    ("stopp web", &["unrecognized subcommand 'stopp'", "'stop'"], 2),
];

#[test]
fn wrong_inputs_are_answered_with_what_would_be_right() {
    let host = Host::new();
    let mut wrong = Vec::new();
    for (line, named, status) in WRONG {
        let (text, code) = host.refused(line);
        let missing: Vec<_> = named.iter().filter(|part| !text.contains(**part)).collect();
        if !missing.is_empty() || code != status || text.contains("panicked") {
            wrong.push(format!("pith {line}\n  status {code}, wanted {status}; lacks {missing:?}\n  {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(host.begun(), [""; 0]);
}

/// An image without layers for an architecture.
fn image(host: &Host, name: &str, architecture: &str) {
    let blobs = host.path(name).join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |document: &serde_json::Value| {
        let bytes = document.to_string();
        let digest = Digest::of(bytes.as_bytes());
        fs::write(blobs.join(digest.to_string()), bytes).unwrap();
        serde_json::json!({"digest": format!("sha256:{digest}")})
    };
    let config = put(&serde_json::json!({"os": "linux", "architecture": architecture}));
    let manifest = put(&serde_json::json!({"schemaVersion": 2, "config": config, "layers": []}));
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(host.path(name).join("index.json"), index.to_string()).unwrap();
    fs::write(host.path(name).join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn what_is_missing_for_another_architecture_is_named_with_the_command() {
    let host = Host::new();
    let own = Arch::host();
    let other = Arch::ALL.into_iter().find(|arch| *arch != own).unwrap();
    image(&host, "own", own.debian());
    image(&host, "other", other.debian());
    image(&host, "none", "s390x");
    let pod = |name: &str| POD.replace("image: ./root", &format!("image: ./{name}"));
    let mixed = POD.replace("image: ./root", "image: ./own}, {name: b, image: ./other");
    fs::write(host.path("other.yaml"), pod("other")).unwrap();
    fs::write(host.path("mixed.yaml"), mixed).unwrap();
    // A QEMU that is there: none is started here.
    let qemu = Qemu::of(other);
    let run = |line: &str, path: &str, variable: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pith"));
        command.args(line.split_whitespace()).current_dir(host.0.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", path).env(qemu.variable, variable);
        command.env("HOME", host.path("home")).env("PITH_CACHE", host.path("cache"));
        let output =
            command.env("PITH_STATE", host.path("state")).env("PITH_OUT", host.path("out")).output().unwrap();
        assert!(!output.status.success(), "{line}: it succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for line in ["run ./other x", "run -f other.yaml", "run -d --platform OTHER ./root x"] {
        let line = line.replace("OTHER", &other.platform());
        let text = run(&line, "/no/such/path", "");
        let named =
            [format!("the guest is for {other}"), format!("{} is not installed", qemu.name), qemu.fix.into()];
        for part in named {
            assert!(text.contains(&part), "{line}: {part} is not in {text}");
        }
        let text = run(&line, "/no/such/path", "/bin/sh");
        let named = [format!("the guest is for {other}"), format!("`image-builder build --arch {other}`")];
        for part in named {
            assert!(text.contains(&part), "{line}: {part} is not in {text}");
        }
    }
    let refused = |line: &str| run(line, "/no/such/path", "/bin/sh");
    let text = refused("run --accel kvm ./other x");
    assert!(text.contains("KVM cannot run here"), "{text}");
    let machine = if other == Arch::Aarch64 { "q35" } else { "virt" };
    let text = refused(&format!("run --machine {machine} ./other x"));
    assert!(text.contains(&format!("--machine is for {own}")), "{text}");
    let text = refused("run -f mixed.yaml");
    assert!(text.contains(&format!("./own is an image for {own}, and ./other is one for {other}")), "{text}");
    let text = refused(&format!("run -f mixed.yaml --platform linux/{}", own.debian()));
    let named = format!("an image for linux/{}, and not for linux/{}", other.debian(), own.debian());
    assert!(text.contains(&named), "{text}");
    let text = refused("run ./none x");
    assert!(text.contains("linux/s390x, which no guest can run"), "{text}");
    assert_eq!(host.begun(), [""; 0]);
}

#[test]
fn wrong_variables_are_named() {
    let host = Host::new();
    for (variable, value, line, named) in [
        ("PITH_CACHE_LIMIT", "lots", "prune", "PITH_CACHE_LIMIT: \"lots\""),
        ("PITH_PATIENCE", "x", "run ./root x", "PITH_PATIENCE=x"),
        ("PITH_QEMU", "/no/qemu", "run --accel tcg ./root x", "PITH_QEMU names /no/qemu, which is no file"),
        ("PITH_STATE", "/proc", "run ./root x", "set PITH_STATE to a directory of your own"),
        ("PITH_CACHE", "/proc/none", "image ./root", "/proc/none"),
    ] {
        let mut command = host.command(line, &host.path("out"));
        let output = command.env(variable, value).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variable}={value}: {text}");
        assert!(text.contains(named), "{variable}={value}: {text}");
    }
}

#[test]
fn errors_are_json_when_results_are() {
    let host = Host::new();
    for line in ["--json logs web", "run --json ./nothing", "--json frobnicate", "--json run -p 80 ./root"] {
        let (text, _) = host.refused(line);
        let error: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{line}: {text}"));
        assert!(error["error"].as_str().is_some_and(|text| !text.is_empty()), "{line}: {text}");
    }
}

#[test]
fn products_that_are_missing_are_told_with_every_place() {
    let host = Host::new();
    let output = host.run("run ./root x", &host.path("nowhere"));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("nowhere") && text.contains("--out"), "{text}");
    let output = host.run("doctor --json", &host.path("nowhere"));
    assert_eq!(output.status.code(), Some(1));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["able"], false);
    assert!(value["product_places"][0].as_str().unwrap().ends_with("nowhere"), "{value}");
}

#[test]
fn what_is_not_there_is_listed_as_nothing() {
    let host = Host::new();
    for (line, expected) in [("ps -aq", ""), ("images -q", ""), ("--json ps -a", "[]\n"), ("port", "")] {
        let output = host.run(line, &host.path("out"));
        assert!(output.status.success(), "{line}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{line}");
    }
}
