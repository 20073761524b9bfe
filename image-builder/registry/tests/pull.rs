//! Pulling images from a registry on loopback that behaves, breaks off, lies, or wants to know who asks.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{self, Mutex};
use std::time::Duration;

use registry::{Library, Limits, Pulled, Reference, RegistryError};
use serde_json::{Value, json};
use store::arch::Arch;
use store::cache::Cache;
use store::digest::Digest;

/// How the registry behaves.
#[derive(Default)]
struct Behaviour {
    /// Wants a token for this password, base64 of user and password.
    login: Option<String>,
    /// Ends the connection after this many bytes of a blob, once.
    breaks_after: Option<usize>,
    /// Sends a blob with its first byte changed.
    lies: bool,
    /// Knows no ranges.
    whole_only: bool,
    /// Refuses everything with this text.
    refuses: Option<Vec<u8>>,
}

/// A registry of one repository, `app`.
#[derive(Default)]
struct Registry {
    /// By path.
    files: BTreeMap<String, Vec<u8>>,
    behaviour: Behaviour,
    /// Requests, as `METHOD PATH RANGE`.
    asked: sync::Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// Adds a blob, and gives its descriptor.
    fn blob(&mut self, bytes: &[u8]) -> Value {
        let digest = format!("sha256:{}", Digest::of(bytes));
        self.files.insert(format!("/v2/app/blobs/{digest}"), bytes.to_vec());
        json!({"digest": digest, "size": bytes.len(), "mediaType": "application/vnd.oci.image.layer.v1.tar"})
    }

    /// Adds a manifest under a tag and its digest, and gives its descriptor.
    fn manifest(&mut self, tag: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        let digest = format!("sha256:{}", Digest::of(&bytes));
        self.files.insert(format!("/v2/app/manifests/{tag}"), bytes.clone());
        self.files.insert(format!("/v2/app/manifests/{digest}"), bytes.clone());
        json!({"digest": digest, "size": bytes.len(), "mediaType": document["mediaType"]})
    }

    /// Adds an image of these layers.
    fn image(&mut self, tag: &str, layers: &[&[u8]]) -> Value {
        self.image_for("amd64", tag, layers)
    }

    /// The same for an architecture.
    fn image_for(&mut self, architecture: &str, tag: &str, layers: &[&[u8]]) -> Value {
        let config = self.blob(json!({"architecture": architecture, "os": "linux"}).to_string().as_bytes());
        let layers: Vec<Value> = layers.iter().map(|layer| self.blob(layer)).collect();
        let document = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers});
        self.manifest(tag, &document)
    }

    /// Serves until the test ends; gives the address.
    fn serve(self) -> (String, sync::Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = sync::Arc::clone(&self.asked);
        let own = address.clone();
        std::thread::spawn(move || {
            let mut registry = self;
            for mut stream in listener.incoming().flatten() {
                // A client that hangs up is its own affair.
                drop(registry.answer(&own, &mut stream));
            }
        });
        (address, asked)
    }

    fn answer(&mut self, address: &str, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let header = |name: &str| {
            let line =
                head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}: ")))?;
            Some(line[name.len() + 2..].trim().to_owned())
        };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let range = header("range").unwrap_or_default();
        let method = head.split(' ').next().unwrap_or_default();
        self.asked.lock().unwrap().push(format!("{method} {path} {range}").trim_end().to_owned());
        let mut reply = |status: &str, headers: &str, body: &[u8]| {
            write!(
                stream,
                "HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n",
                body.len()
            )?;
            stream.write_all(body)
        };
        if let Some(text) = &self.behaviour.refuses {
            return reply("403 Forbidden", "", text);
        }
        let authorization = header("authorization").unwrap_or_default();
        if path.starts_with("/token") {
            let right =
                self.behaviour.login.as_ref().is_some_and(|login| authorization == format!("Basic {login}"));
            return match right && path.contains("service=r") && path.contains("scope=") {
                true => reply("200 OK", "", br#"{"token": "ticket"}"#),
                false => reply("401 Unauthorized", "", b""),
            };
        }
        if self.behaviour.login.is_some() && authorization != "Bearer ticket" {
            let challenge = format!(
                "www-authenticate: Bearer realm=\"http://{address}/token\",service=\"r\",scope=\"repository:app:pull\"\r\n"
            );
            return reply("401 Unauthorized", &challenge, b"");
        }
        let Some(file) = self.files.get(&path) else { return reply("404 Not Found", "", b"unknown") };
        let mut body = file.clone();
        let is_blob = path.contains("/blobs/");
        if self.behaviour.lies && is_blob {
            body[0] ^= 1;
        }
        let from = range.strip_prefix("bytes=").and_then(|range| range.trim_end_matches('-').parse().ok());
        if let (Some(from), false) = (from, self.behaviour.whole_only) {
            return reply("206 Partial Content", "", &body[from..]);
        }
        match self.behaviour.breaks_after.filter(|most| is_blob && body.len() > *most) {
            Some(most) => {
                self.behaviour.breaks_after = None;
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())?;
                stream.write_all(&body[..most])
            }
            None => reply("200 OK", "", &body),
        }
    }
}

struct Host {
    place: tempfile::TempDir,
    library: Library,
}

impl Host {
    fn new() -> Host {
        let place = tempfile::tempdir().unwrap();
        let library = Library::new(&Cache::new(place.path().join("cache")));
        Host { place, library }
    }

    async fn pull(&self, reference: &str) -> Result<Pulled, RegistryError> {
        self.pull_within(reference, Limits::default()).await
    }

    async fn pull_within(&self, reference: &str, limits: Limits) -> Result<Pulled, RegistryError> {
        let reference = Reference::of_image(reference).unwrap();
        registry::pull(&reference, &self.library, None, false, limits, |_| {}).await
    }

    /// Every blob that is there, and whether it is what it is called.
    fn blobs(&self) -> Vec<(String, bool)> {
        let entries = fs::read_dir(self.library.root().join("blobs/sha256")).into_iter().flatten().flatten();
        let look = |path: &Path| Digest::of_file(path).unwrap().0.to_string();
        entries
            .map(|entry| (entry.path(), entry.file_name().into_string().unwrap()))
            .map(|(path, name)| (name.clone(), look(&path) == name))
            .collect()
    }

    fn halfway(&self) -> usize {
        fs::read_dir(self.library.root().join("blobs/partial")).map_or(0, Iterator::count)
    }
}

#[tokio::test]
async fn an_image_is_pulled_and_only_what_is_new_is_fetched_again() {
    let mut registry = Registry::default();
    registry.image("1", &[b"shared layer", b"one"]);
    registry.image("2", &[b"shared layer", b"two"]);
    let (address, asked) = registry.serve();
    let host = Host::new();
    let first = host.pull(&format!("{address}/app:1")).await.unwrap();
    assert_eq!(first.fetched, first.bytes);
    let second = host.pull(&format!("{address}/app:2")).await.unwrap();
    assert_eq!(second.fetched, 3, "the layer that is new");
    let again = host.pull(&format!("{address}/app:1")).await.unwrap();
    assert_eq!((again.fetched, &again.digest), (0, &first.digest));
    assert!(host.blobs().iter().all(|(_, right)| *right));
    let kept = host.library.list().unwrap();
    assert_eq!(kept.len(), 2);
    assert_eq!(kept[0].reference, format!("{address}/app:1"));
    assert_eq!(asked.lock().unwrap().iter().filter(|line| line.contains("/blobs/")).count(), 4);
    // By digest it is the same image.
    let by_digest = host.pull(&format!("{address}/app@{}", first.digest)).await.unwrap();
    assert_eq!(by_digest.digest, first.digest);
    let error = host.pull(&format!("{address}/app:3")).await.unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("app/manifests/3"), "{error}");
}

#[tokio::test]
async fn of_an_index_the_image_for_this_machine_is_taken() {
    let mut registry = Registry::default();
    let ours = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut entries = Vec::new();
    for (os, architecture) in [("linux", "s390x"), ("windows", ours), ("linux", ours), ("unknown", "unknown")]
    {
        let mut entry =
            registry.image(&format!("{os}-{architecture}"), &[format!("{os} {architecture}").as_bytes()]);
        entry["platform"] = json!({"os": os, "architecture": architecture});
        entries.push(entry);
    }
    let digest = entries[2]["digest"].as_str().unwrap().to_owned();
    let index = |entries: &[Value]| json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    let all = registry.manifest("all", &index(&entries));
    registry.manifest("foreign", &index(&entries[..2]));
    let (address, _) = registry.serve();
    let host = Host::new();
    assert_eq!(host.pull(&format!("{address}/app:all")).await.unwrap().digest, digest);
    let by_index = format!("{address}/app@{}", all["digest"].as_str().unwrap());
    assert_eq!(host.pull(&by_index).await.unwrap().digest, digest);
    let error = host.pull(&format!("{address}/app:foreign")).await.unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains(ours), "{error}");
}

#[tokio::test]
async fn an_image_for_another_architecture_is_kept_beside_the_hosts() {
    let mut registry = Registry::default();
    let mut entries = Vec::new();
    for arch in Arch::ALL.map(Arch::debian) {
        let mut entry = registry.image_for(arch, arch, &[arch.as_bytes()]);
        entry["platform"] = json!({"os": "linux", "architecture": arch});
        entries.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries});
    registry.manifest("both", &index);
    let (address, asked) = registry.serve();
    let host = Host::new();
    let name = format!("{address}/app:both");
    let reference = Reference::of_image(&name).unwrap();
    let pull = async |reference: &Reference, arch| {
        registry::pull(reference, &host.library, arch, false, Limits::default(), |_| {}).await
    };
    for arch in Arch::ALL {
        let pulled = pull(&reference, Some(arch)).await.unwrap();
        let kept = host.library.find_for(&name, Some(arch)).unwrap().unwrap();
        assert_eq!((kept.arch, kept.digest), (Some(arch), pulled.digest));
    }
    assert_eq!(host.library.list().unwrap().len(), 2);
    assert_eq!(host.library.find(&name).unwrap().unwrap().arch, Some(Arch::host()));
    // One alone is taken for what it says, and refused before its layers are fetched where another one is asked for.
    let other = Arch::ALL.into_iter().find(|arch| *arch != Arch::host());
    let alone = Reference::of_image(&format!("{address}/app:{}", other.unwrap().debian())).unwrap();
    pull(&alone, None).await.unwrap();
    asked.lock().unwrap().clear();
    let error = pull(&alone, Some(Arch::host())).await.unwrap_err().to_string();
    assert!(error.contains(&format!("it is for linux/{}", other.unwrap().debian())), "{error}");
    assert!(asked.lock().unwrap().iter().all(|line| !line.contains("/blobs/")), "all of it is there");
}

#[tokio::test]
async fn what_broke_off_is_continued() {
    let layer: Vec<u8> = (0..100_000_u32).map(|number| (number % 251) as u8).collect();
    for whole_only in [false, true] {
        let mut registry = Registry {
            behaviour: Behaviour { breaks_after: Some(40_000), whole_only, ..Behaviour::default() },
            ..Registry::default()
        };
        registry.image("1", &[&layer]);
        let (address, asked) = registry.serve();
        let host = Host::new();
        host.pull(&format!("{address}/app:1")).await.unwrap();
        assert!(host.blobs().iter().all(|(_, right)| *right));
        assert_eq!(host.halfway(), 0);
        let asked = asked.lock().unwrap().join("\n");
        assert!(asked.contains("bytes=40000-"), "{asked}");
    }
}

#[tokio::test]
async fn what_is_not_what_it_is_called_is_not_kept() {
    let mut registry =
        Registry { behaviour: Behaviour { lies: true, ..Behaviour::default() }, ..Registry::default() };
    registry.image("1", &[b"layer"]);
    let (address, _) = registry.serve();
    let host = Host::new();
    let error = host.pull(&format!("{address}/app:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error}");
    assert!(host.blobs().is_empty() && host.halfway() == 0 && host.library.list().unwrap().is_empty());
    let wrong = format!("{address}/app@sha256:{}", "0".repeat(64));
    assert!(host.pull(&wrong).await.is_err());
}

#[tokio::test]
async fn images_beyond_the_limits_and_other_things_are_refused_before_they_are_fetched() {
    let mut registry = Registry::default();
    registry.image("large", &[&[0; 5000]]);
    let config = registry.blob(b"{}");
    let many: Vec<Value> = (0..600).map(|_| config.clone()).collect();
    registry.manifest("many", &json!({"schemaVersion": 2, "config": config, "layers": many}));
    registry.manifest("odd", &json!({"config": {"digest": "md5:1", "size": 1}, "layers": []}));
    registry.manifest("none", &json!({"schemaVersion": 2, "mediaType": "application/x-other"}));
    registry.files.insert("/v2/app/manifests/text".into(), b"no JSON".to_vec());
    registry.files.insert("/v2/app/manifests/endless".into(), vec![b' '; 5 << 20]);
    let (address, asked) = registry.serve();
    let host = Host::new();
    let limits = Limits { bytes: 1000, patience: Duration::from_secs(20) };
    for (tag, named) in [
        ("large", "--max-size"),
        ("many", "600 layers"),
        ("odd", "md5"),
        ("none", "application/x-other"),
        ("text", "no OCI document"),
        ("endless", "cannot GET"),
    ] {
        let error = host.pull_within(&format!("{address}/app:{tag}"), limits).await.unwrap_err().to_string();
        assert!(error.contains(named), "{tag}: {error}");
    }
    assert!(asked.lock().unwrap().iter().all(|line| !line.contains("/blobs/")));
    assert!(host.blobs().is_empty());
}

/// Changes the environment, so all that needs it is one test.
#[test]
fn a_registry_that_wants_a_login_gets_it_as_a_token() {
    let mut registry = Registry {
        behaviour: Behaviour { login: Some("dTpw".into()), ..Behaviour::default() },
        ..Registry::default()
    };
    registry.image("1", &[b"layer"]);
    let (address, asked) = registry.serve();
    let host = Host::new();
    let file = host.place.path().join("auth.json");
    let child = |login: &str| {
        fs::write(&file, json!({"auths": {&address: {"auth": login}}}).to_string()).unwrap();
        let mut program = std::process::Command::new(std::env::current_exe().unwrap());
        program.args(["pulls_for_its_parent", "--ignored", "--exact", "--nocapture"]);
        program.env("REGISTRY_AUTH_FILE", &file).env("PITH_TEST_IMAGE", format!("{address}/app:1"));
        let output = program.env("PITH_CACHE", host.place.path().join("cache")).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let text = child("d3Jvbmc=");
    assert!(text.contains("Unauthorized") && !text.contains("d3Jvbmc="), "{text}");
    let text = child("dTpw");
    assert!(text.contains("pulled sha256:"), "{text}");
    let asked = asked.lock().unwrap().clone();
    assert!(asked.iter().any(|line| line.contains("/token") && line.contains("pull")), "{asked:?}");
}

#[tokio::test]
#[ignore = "run by the test of logins, with another environment"]
async fn pulls_for_its_parent() {
    let image = std::env::var("PITH_TEST_IMAGE").unwrap();
    let library = Library::new(&Cache::locate(|name| std::env::var_os(name)).unwrap());
    let reference = Reference::of_image(&image).unwrap();
    let pulled = registry::pull(&reference, &library, None, false, Limits::default(), |_| {}).await.unwrap();
    println!("pulled {}", pulled.digest);
}

#[tokio::test]
async fn what_a_registry_says_does_nothing_to_a_terminal() {
    let said = b"\x1b[2J\x1b]0;owned\x07no\r\nsuch \xc2\x9bimage \xe2\x80\xaetxt.exe\x08\xff".to_vec();
    let behaviour = Behaviour { refuses: Some(said), ..Behaviour::default() };
    let (address, _) = Registry { behaviour, ..Registry::default() }.serve();
    let error = Host::new().pull(&format!("{address}/app:1")).await.unwrap_err().to_string();
    assert!(error.contains("the registry says \\u{1b}[2J\\u{1b}]0;owned\\u{7}no"), "{error}");
    let is_safe = |character: char| !character.is_control() && character != '\u{202e}';
    assert!(error.chars().all(is_safe), "{error:?}");
}
