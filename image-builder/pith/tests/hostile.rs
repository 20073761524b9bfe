//! The program against what somebody else put in its way: images, directories, pods that do not end.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use store::digest::Digest;

/// Anything here takes far less; what hangs takes more.
const PATIENCE: Duration = Duration::from_secs(60);

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pith"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env("PITH_CACHE", self.path("cache")).env("PITH_STATE", self.path("state"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What a command that fails says. One that hangs is a failure of another kind.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = ended(self.command(arguments).spawn().unwrap());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        text
    }
}

fn ended(mut child: Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

/// An OCI layout of one layer in `dir`; gives the path of the layer's blob.
fn layout(dir: &Path, layer: &[u8], tag: &str) -> PathBuf {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.to_string()), bytes).unwrap();
        serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": format!("sha256:{digest}"),
            "size": bytes.len()})
    };
    let stored = put(layer);
    let mut config = put(serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", Digest::of(layer))]},
    })
    .to_string()
    .as_bytes());
    config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
    let mut manifest = put(serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": [stored],
    })
    .to_string()
    .as_bytes());
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json".into();
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": tag});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    blobs.join(Digest::of(layer).to_string())
}

/// A tar archive of one entry, with a header of one's own.
fn tar(change: impl FnOnce(&mut tar::Header), body: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path("file").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(body.len() as u64);
    change(&mut header);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}

#[test]
fn only_regular_files_are_read_as_images_and_blobs() {
    let place = Scratch::new();
    fifo(&place.path("fifo"));
    assert!(place.refused(&["image", "fifo"]).contains("not a regular file"));
    assert!(place.refused(&["image", "/dev/zero"]).contains("not a regular file"));
    let blob = layout(&place.path("layout"), &tar(|_| {}, b"x"), "a");
    for put in [|blob: &Path| fifo(blob), |blob: &Path| symlink("/dev/zero", blob).unwrap()] {
        fs::remove_file(&blob).unwrap();
        put(&blob);
        assert!(place.refused(&["image", "layout"]).contains("not a regular file"));
    }
    fs::remove_file(place.path("layout/index.json")).unwrap();
    fs::write(place.path("layout/index.json"), " ".repeat(9 << 20)).unwrap();
    assert!(place.refused(&["image", "layout"]).contains("too large"));
}

#[test]
fn an_image_that_would_fill_the_disk_is_refused_at_once() {
    let place = Scratch::new();
    // It says so in its header, in base 256.
    let huge = tar(|header| header.set_size(1 << 62), b"x");
    layout(&place.path("header"), &huge, "a");
    assert!(place.refused(&["image", "header"]).contains("--max-unpacked"));
    // Or it just is: 200 kB of zeroes in 300 bytes.
    let zeroes = zstd::encode_all(&tar(|_| {}, &vec![0; 200_000])[..], 3).unwrap();
    fs::write(place.path("archive"), zeroes).unwrap();
    let text = place.refused(&["image", "--max-unpacked", "100k", "archive"]);
    assert!(text.contains("more than 100000 bytes") && text.contains("--max-unpacked"), "{text}");
    assert_eq!(fs::read_dir(place.path("cache/work")).unwrap().count(), 0, "nothing is left");
    layout(&place.path("large"), &tar(|_| {}, &vec![0; 200_000]), "a");
    assert!(place.refused(&["image", "--max-unpacked", "100k", "large"]).contains("100000"));
    let output = ended(place.command(&["image", "--max-unpacked", "1M", "large"]).spawn().unwrap());
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_tree_deeper_than_a_stack_and_its_whiteout_are_no_crash() {
    let place = Scratch::new();
    let path = "d/".repeat(250_000);
    let record = format!(" path={path}\n");
    let length = (record.len()..).find(|length| format!("{length}{record}").len() == *length).unwrap();
    let record = format!("{length}{record}");
    let mut layer = tar(|header| header.set_entry_type(tar::EntryType::XHeader), record.as_bytes());
    layer.truncate(layer.len() - 1024);
    layer.extend(tar(|header| header.set_entry_type(tar::EntryType::Directory), b""));
    layer.truncate(layer.len() - 1024);
    layer.extend(tar(|header| header.set_path(".wh.d").unwrap(), b""));
    layout(&place.path("deep"), &layer, "a");
    let output = ended(place.command(&["image", "deep"]).spawn().unwrap());
    assert_eq!(output.status.signal(), None, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_images_call_themselves_does_not_reach_the_terminal_raw() {
    let place = Scratch::new();
    let raw = |text: &str| {
        text.chars().any(|c| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)))
    };
    layout(&place.path("tags"), &tar(|_| {}, b"x"), "\u{1b}[2J\npith: forged\u{9b}\u{202e}");
    let text = place.refused(&["image", "tags:other"]);
    assert!(text.contains(r"\u{1b}[2J") && !raw(&text), "{text:?}");
    assert!(!text.contains("\npith: forged"), "{text:?}");
    let name = tar(
        |header| {
            header.as_old_mut().name[..9].copy_from_slice(b"\x1b]0;x\x07\nab");
            header.set_entry_type(tar::EntryType::new(b'Z'));
        },
        b"",
    );
    layout(&place.path("header"), &name, "a");
    let text = place.refused(&["image", "header"]);
    assert!(text.contains("'Z'") && !raw(&text) && text.lines().count() == 1, "{text:?}");
}

#[test]
fn what_a_registry_answers_does_not_reach_the_terminal_raw() {
    let place = Scratch::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let body = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\npith: forged\u{9b}\u{202e}";
    let json = serde_json::json!({"errors": [{"code": "DENIED", "message": body}]}).to_string();
    let served = std::thread::spawn(move || {
        for (body, stream) in [body.to_owned(), json].into_iter().zip(listener.incoming().flatten()) {
            answer(&stream, "500 Internal Server Error", &body);
        }
    });
    for expected in ["the registry says", "DENIED: "] {
        let text = place.refused(&["pull", &format!("{address}/app:1")]);
        let is_raw = text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'));
        assert!(text.contains(expected) && text.contains(r"\u{1b}[2J") && !is_raw, "{text:?}");
        assert!(!text.contains("\npith: forged"), "{text:?}");
    }
    served.join().unwrap();
}

/// Answers the one request that comes on this connection.
fn answer(mut stream: &std::net::TcpStream, status: &str, body: &str) {
    let mut line = String::new();
    let mut lines = BufReader::new(stream);
    while lines.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    std::io::Write::write_all(&mut stream, (head + body).as_bytes()).unwrap();
}

#[test]
fn an_image_that_no_registry_has_is_told_by_its_name() {
    let place = Scratch::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let unknown =
        r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"1"}}]}"#;
    let served = std::thread::spawn(move || {
        for (body, stream) in ["", unknown].into_iter().zip(listener.incoming().flatten()) {
            answer(&stream, "404 Not Found", body);
        }
    });
    for expected in
        ["check its name and its tag\n", "; the registry says MANIFEST_UNKNOWN: manifest unknown\n"]
    {
        let text = place.refused(&["pull", &format!("{address}/apline:1")]);
        assert!(text.contains("apline") && text.contains("there is no such image"), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    served.join().unwrap();
}

#[test]
fn a_state_directory_that_another_user_owns_is_refused() {
    let place = Scratch::new();
    // Root gives one away; anybody else is offered root's.
    let is_root = nix::unistd::geteuid().is_root();
    let dir = if is_root { place.path("state") } else { PathBuf::from("/") };
    if is_root {
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(&dir, Some(12_345), None).unwrap();
    }
    for verb in ["ps", "events"] {
        let output = ended(place.command(&[verb]).env("PITH_STATE", &dir).spawn().unwrap());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{verb}: {text}");
        assert!(text.contains("set PITH_STATE to a directory of your own"), "{verb}: {text}");
    }
}

#[test]
fn a_state_directory_of_somebody_elses_is_refused_and_no_lock_is_waited_for() {
    let place = Scratch::new();
    fs::create_dir_all(place.path("state/web")).unwrap();
    let mode = |mode| fs::set_permissions(place.path("state"), fs::Permissions::from_mode(mode)).unwrap();
    fifo(&place.path("state/web/lock"));
    mode(0o777);
    for verb in [&["ps"][..], &["stop", "web"], &["logs", "web"]] {
        assert!(place.refused(verb).contains("PITH_STATE"), "{verb:?}");
    }
    mode(0o700);
    let output = ended(place.command(&["ps"]).spawn().unwrap());
    assert!(output.status.success(), "{output:?}");
    assert!(place.refused(&["stop", "web"]).contains("no pod"));
}

/// A process that is ended with the test, however that ends.
struct Ward(Child);

impl Drop for Ward {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A process that holds a pod's lock, and does not end when it is asked to.
fn stubborn_pod(place: &Scratch, name: &str) -> Ward {
    let dir = place.path("state").join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let script = "trap '' TERM; exec 9>>\"$0/lock\"; flock 9; echo holds; exec sleep 1000";
    let mut pod = Command::new("sh");
    pod.args(["-c", script]).arg(&dir).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut pod = Ward(pod.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(pod.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "holds\n");
    let container = serde_json::json!({"name": "a", "id": "a", "image": "a", "phase": "running", "exit_code": null,
        "process": {"env": [], "cwd": "/", "uid": 0, "gid": 0, "groups": [], "no_new_privileges": false}});
    let record = serde_json::json!({
        "name": name, "pid": pod.0.id(), "phase": "running", "stop_within": 0, "started": 0, "accel": null,
        "endpoint": {"kind": "hybrid", "socket": dir.join("vsock.sock")}, "containers": [container],
        "timings": pods::run::timing::Timings::default(),
    });
    fs::write(dir.join("pod.json"), record.to_string()).unwrap();
    pod
}

#[test]
fn logs_say_what_is_gone() {
    let place = Scratch::new();
    let _pod = stubborn_pod(&place, "web");
    // As they are after five million bytes of which the last hundred are kept.
    fs::write(place.path("state/web/a.log.4999900"), "x".repeat(50)).unwrap();
    fs::write(place.path("state/web/a.log.4999950"), "y".repeat(50)).unwrap();
    let output = ended(place.command(&["logs", "web"]).spawn().unwrap());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, ("x".repeat(50) + &"y".repeat(50)).into_bytes());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("4999900 bytes of the log of a are gone"), "{told}");
}

#[test]
fn stop_ends_a_pod_that_does_not_end_by_itself() {
    let place = Scratch::new();
    let mut pod = stubborn_pod(&place, "web");
    let stop = place.command(&["stop", "web"]).spawn().unwrap();
    // As a shell would, so that the process is gone and not a zombie.
    let status = pod.0.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    let output = ended(stop);
    assert!(output.status.success(), "{output:?}");
    assert!(!place.path("state/web").exists());
}

#[test]
fn a_signal_ends_a_client_whose_guest_does_not_answer() {
    let place = Scratch::new();
    let _pod = stubborn_pod(&place, "web");
    // A guest's socket that takes connections, and says nothing after the handshake.
    let listener = std::os::unix::net::UnixListener::bind(place.path("state/web/vsock.sock")).unwrap();
    let guest = std::thread::spawn(move || {
        let mut taken = Vec::new();
        for mut stream in listener.incoming().take(2).flatten() {
            let mut request = [0; "CONNECT 1024\n".len()];
            stream.read_exact(&mut request).unwrap();
            std::io::Write::write_all(&mut stream, b"OK 1\n").unwrap();
            taken.push(stream);
        }
        taken
    });
    for (signal, code) in [(nix::sys::signal::SIGTERM, 143), (nix::sys::signal::SIGINT, 130)] {
        let client = place.command(&["exec", "web", "a", "--", "true"]).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(client.id().cast_signed());
        // The program listens for signals once it is at work; before, they end it at once.
        std::thread::sleep(Duration::from_millis(500));
        nix::sys::signal::kill(pid, signal).unwrap();
        let begun = Instant::now();
        let output = ended(client);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(begun.elapsed() < Duration::from_secs(40));
    }
    drop(guest.join().unwrap());
}

#[test]
fn an_error_does_not_wait_for_its_reader() {
    let place = Scratch::new();
    let (_reader, mut writer) = std::io::pipe().unwrap();
    // Full: nobody reads.
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    let mut command = place.command(&["image", "/nonexistent"]);
    command.stderr(writer);
    assert_eq!(ended(command.spawn().unwrap()).status.code(), Some(1));
}
