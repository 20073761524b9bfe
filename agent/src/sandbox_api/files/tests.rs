//! Files in and out of a temporary directory, without a connection.

use super::*;
use crate::sandbox_api::rooted::Stop;
use futures_util::StreamExt as _;
use sandbox_api::http::Payload;
use std::io::Write as _;
use std::path::PathBuf;

struct Case {
    dir: tempfile::TempDir,
    storage: Storage,
}

impl Case {
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap(), storage: Storage::default() }
    }

    fn root(&self) -> Root {
        Root::new(Arc::new(std::fs::File::open(self.dir.path()).unwrap().into()))
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    /// An upload of bytes, of which nothing has come yet.
    fn begin(&self, path: &str, content_encoding: &str) -> Upload {
        let to = Destination {
            root: self.root(),
            owner: own(),
            path: Some(path.into()),
            metadata: Default::default(),
        };
        Upload::new(to, Encoding { content_type: BYTES.0, content_encoding }).unwrap()
    }

    async fn upload(
        &self,
        path: Option<&str>,
        (kind, encoding): (&str, &str),
        body: impl Into<bytes::Bytes>,
    ) -> Result<Vec<serde_json::Value>, Failure> {
        let metadata = Default::default();
        let to = Destination { root: self.root(), owner: own(), path: path.map(str::to_owned), metadata };
        let mut body = Body::of(body.into());
        let written = receive(&self.storage, to, kind.into(), encoding.into(), &mut body).await?;
        Ok(written.iter().map(Written::to_json).collect())
    }

    async fn get(&self, path: &str, fields: &[(&str, &str)]) -> (Response, Vec<u8>) {
        let mut headers = Headers::default();
        fields.iter().for_each(|(name, value)| headers.push(name, value));
        let place = self.storage.download();
        let opened = Download::open(&self.root(), path, place.piece).unwrap();
        let mut response = opened.answer(&headers, &self.storage.workers, place);
        let payload = std::mem::replace(&mut response.payload, Payload::Full(Default::default()));
        let (length, mut chunks) = match payload {
            Payload::Full(bytes) => return (response, bytes.to_vec()),
            Payload::Sized(length, chunks) => (Some(length), chunks),
            Payload::Stream(chunks) => (None, chunks),
            Payload::Takeover(_) => unreachable!("a file takes no connection over"),
        };
        let mut all = Vec::new();
        while let Some(chunk) = chunks.next().await {
            all.extend(chunk.unwrap());
        }
        assert!(length.is_none_or(|length| length == all.len() as u64));
        (response, all)
    }
}

fn own() -> Owner {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Owner { uid, gid, home: "/home".into(), workdir: None }
}

const BYTES: (&str, &str) = ("application/octet-stream", "");
const FORM: (&str, &str) = ("multipart/form-data; boundary=XX", "");

fn form(parts: &[(&str, &str, &str)]) -> Vec<u8> {
    let parts = parts.iter().map(|(name, filename, data)| {
        let field = format!("form-data; name=\"{name}\"; filename=\"{filename}\"");
        format!("--XX\r\nContent-Disposition: {field}\r\n\r\n{data}\r\n")
    });
    format!("{}--XX--\r\n", parts.collect::<String>()).into_bytes()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn status<T: std::fmt::Debug>(result: Result<T, Failure>) -> (u16, String) {
    let failure = result.unwrap_err();
    (failure.answer().status, failure.to_string())
}

#[tokio::test]
async fn bytes_and_forms_become_files() {
    let case = Case::new();
    let written = case.upload(Some("/a/b"), BYTES, "text").await.unwrap();
    assert_eq!(written, [serde_json::json!({ "name": "b", "path": "/a/b", "type": "file" })]);
    assert_eq!(case.text("a/b"), "text");
    case.upload(Some("/a/b"), BYTES, "").await.unwrap();
    assert_eq!(case.text("a/b"), "");
    let many = form(&[("file", "/x/1", "one"), ("other", "/x/2", "skipped"), ("file", "rel/q%22", "")]);
    let written = case.upload(None, FORM, many).await.unwrap();
    let paths: Vec<_> = written.iter().map(|written| written["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/x/1", "/home/rel/q\""]);
    assert_eq!(case.text("x/1"), "one");
    assert!(!case.path("x/2").exists());
    // The path of the query goes before the name of the part.
    case.upload(Some("/y"), FORM, form(&[("file", "/z", "here")])).await.unwrap();
    assert_eq!(case.text("y"), "here");
    assert_eq!(case.upload(None, FORM, form(&[])).await.unwrap().len(), 0);
}

#[tokio::test]
async fn uploads_that_cannot_be_are_told() {
    let case = Case::new();
    std::fs::create_dir(case.path("d")).unwrap();
    let upload = |path, kind, body: Vec<u8>| case.upload(path, kind, body);
    let expected = |text: &str| (400, text.to_owned());
    assert_eq!(status(upload(Some("/d"), BYTES, vec![]).await), expected("path is a directory: /d"));
    let twice = form(&[("file", "/a", "1"), ("file", "/a", "2")]);
    let text = "you cannot upload multiple files to the same path '/a'";
    assert_eq!(status(upload(None, FORM, twice).await), expected(text));
    for (path, kind, body) in [
        (None, BYTES, b"x".to_vec()),
        (Some("/f"), ("text/plain", ""), b"x".to_vec()),
        (Some("/f"), ("", ""), b"x".to_vec()),
        (Some("/f"), ("multipart/form-data", ""), b"x".to_vec()),
        (Some("/f"), ("application/octet-stream", "br"), b"x".to_vec()),
        (Some("/f"), ("application/octet-stream", "gzip"), b"no gzip".to_vec()),
        (None, FORM, form(&[("file", "", "1")])),
        (None, FORM, form(&[("file", "~other/x", "1")])),
        (None, FORM, form(&[("file", "/f", "1")])[..60].to_vec()),
    ] {
        assert_eq!(status(upload(path, kind, body.clone()).await).0, 400, "{kind:?} {body:?}");
    }
    // A cut stream is not taken for a whole one.
    let cut = gzip(&[7; 1000]);
    let cut = cut[..cut.len() - 9].to_vec();
    assert_eq!(status(upload(Some("/f"), ("application/octet-stream", "gzip"), cut).await).0, 400);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_leaves_the_file_as_it_was() {
    let case = Case::new();
    std::fs::write(case.path("kept"), "text").unwrap();
    let whole = gzip(&[7; 1000]);
    let mut damaged = whole.clone();
    // Behind the head of 10 bytes: a block of a type that there is not.
    damaged[10] |= 0b110;
    let (gzip, none) = (("application/octet-stream", "gzip"), Vec::new());
    for (kind, body) in [
        (("application/octet-stream", "br"), none.clone()),
        (("text/plain", ""), b"text".to_vec()),
        (("multipart/form-data; boundary=XX", ""), b"no form".to_vec()),
        (gzip, b"x".to_vec()),
        (gzip, b"a text that is longer than a head of gzip".to_vec()),
        (gzip, whole[..9].to_vec()),
        (gzip, whole[..10].to_vec()),
        (gzip, damaged),
        (gzip, none),
    ] {
        assert_eq!(status(case.upload(Some("/kept"), kind, body.clone()).await).0, 400, "{kind:?} {body:?}");
        assert_eq!(case.text("kept"), "text", "{kind:?} {body:?}");
    }
    // An empty file is no failure, packed or not.
    for (kind, body) in [(gzip, self::gzip(b"")), (BYTES, Vec::new())] {
        std::fs::write(case.path("kept"), "text").unwrap();
        case.upload(Some("/kept"), kind, body).await.unwrap();
        assert_eq!(case.text("kept"), "");
    }
}

/// A client that is gone before anything was unpacked: the decoder may not write what it has when it is dropped.
#[test]
fn an_upload_that_is_given_up_writes_nothing_more() {
    let case = Case::new();
    std::fs::write(case.path("kept"), "text").unwrap();
    for encoding in ["gzip", ""] {
        let mut upload = case.begin("/kept", encoding);
        if encoding == "gzip" {
            let body = gzip(b"some words");
            upload.feed(&body[..body.len() - 1], &Stop::default()).unwrap();
        }
        drop(upload);
        assert_eq!(case.text("kept"), "text", "{encoding}");
    }
}

/// As the protocol has it: what refers to the file stays with it, and an upload that breaks off leaves what has come.
#[test]
fn a_file_is_written_in_place() {
    use std::os::unix::fs::PermissionsExt as _;
    let case = Case::new();
    std::fs::write(case.path("f"), "longer than that").unwrap();
    std::fs::set_permissions(case.path("f"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::hard_link(case.path("f"), case.path("other")).unwrap();
    let mut upload = case.begin("/f", "");
    upload.feed(b"be", &Stop::default()).unwrap();
    assert_eq!(case.text("other"), "be");
    upload.feed(b"gin", &Stop::default()).unwrap();
    drop(upload);
    assert_eq!(case.text("other"), "begin");
    assert_eq!(case.path("f").metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(case.dir.path()).unwrap().count(), 2, "nothing lies beside it");
}

#[tokio::test]
async fn gzip_is_unpacked_in_either_kind_of_body() {
    let case = Case::new();
    let data: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    case.upload(Some("/bytes"), ("application/octet-stream", "gzip"), gzip(&data)).await.unwrap();
    assert_eq!(std::fs::read(case.path("bytes")).unwrap(), data);
    let body = gzip(&form(&[("file", "/in-form", "text")]));
    case.upload(None, (FORM.0, "gzip"), body).await.unwrap();
    assert_eq!(case.text("in-form"), "text");
    let members = [gzip(b"one "), gzip(b"two")].concat();
    case.upload(Some("/members"), ("application/octet-stream", "GZIP"), members).await.unwrap();
    assert_eq!(case.text("members"), "one two");
}

#[test]
fn a_bomb_stops_when_nobody_waits() {
    let case = Case::new();
    let bomb = gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < 64 << 10, "one piece of a body");
    let mut upload = case.begin("/bomb", "gzip");
    let stop = Stop::default();
    drop(stop.on_drop());
    assert!(matches!(upload.feed(&bomb, &stop), Err(FileError::Abandoned)));
    drop(upload);
    assert!(!case.path("bomb").exists());
}

#[tokio::test]
async fn paths_of_one_request_have_a_bound() {
    let case = Case::new();
    let directory = "d".repeat(200);
    let path = |number: usize| format!("/{}/{number}", vec![directory.as_str(); 15].join("/"));
    let paths: Vec<String> = (0..upload::MOST_PATHS / 3000).map(path).collect();
    let parts: Vec<_> = paths.iter().map(|path| ("file", path.as_str(), "")).collect();
    assert_eq!(status(case.upload(None, FORM, form(&parts)).await).0, 429);
}

#[tokio::test]
async fn files_leave_whole_or_in_parts() {
    let case = Case::new();
    let data: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(case.path("f.txt"), &data).unwrap();
    let (response, body) = case.get("/f.txt", &[]).await;
    assert_eq!((response.status, body == data), (200, true));
    let field = |name: &str| {
        response.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone())
    };
    assert_eq!(field("content-disposition").unwrap(), "inline; filename=f.txt");
    assert_eq!(field("content-type").unwrap(), "text/plain; charset=utf-8");
    assert_eq!(field("vary").unwrap(), "Accept-Encoding");
    assert_eq!(field("accept-ranges").unwrap(), "bytes");
    let modified = field("last-modified").unwrap();
    let (response, body) = case.get("/f.txt", &[("Range", "bytes=10-19")]).await;
    assert_eq!((response.status, body.as_slice()), (206, &data[10..20]));
    assert!(response.headers.contains(&("content-range", "bytes 10-19/400000".into())));
    let (response, _) = case.get("/f.txt", &[("If-Modified-Since", &modified)]).await;
    assert_eq!(response.status, 304);
    let (response, _) = case.get("/f.txt", &[("Range", "bytes=400000-")]).await;
    assert_eq!(response.status, 416);
    assert!(response.headers.contains(&("content-range", "bytes */400000".into())));
    let (response, body) = case.get("/f.txt", &[("Range", "bytes=0-1,-2")]).await;
    let kind = &response.headers.iter().find(|(name, _)| *name == "content-type").unwrap().1;
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let text = |range: &str, data: &[u8]| {
        let head = format!(
            "--{boundary}\r\nContent-Range: bytes {range}/400000\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
        );
        [head.as_bytes(), data, b"\r\n"].concat()
    };
    let end = format!("--{boundary}--\r\n");
    assert_eq!(body, [text("0-1", &data[..2]), text("399998-399999", &data[399_998..]), end.into()].concat());
}

#[tokio::test]
async fn files_without_a_size_are_read_to_their_end() {
    let root = Root::new(Arc::new(std::fs::File::open("/").unwrap().into()));
    let storage = Storage::default();
    let read = async |path: &str| {
        let place = storage.download();
        let opened = Download::open(&root, path, place.piece).unwrap();
        let response = opened.answer(&Headers::default(), &storage.workers, place);
        let (Payload::Sized(_, chunks) | Payload::Stream(chunks)) = response.payload else {
            panic!("the place is not kept until all is sent")
        };
        let pieces: Vec<_> = chunks.map(|piece| piece.unwrap()).collect().await;
        (pieces.concat(), pieces.len())
    };
    for path in ["/proc/version", "/proc/filesystems"] {
        assert_eq!(read(path).await, (std::fs::read(path).unwrap(), 1), "{path}");
    }
    // Where many are under way, each holds little.
    let places: Vec<_> =
        (0..crate::sandbox_api::storage::MOST_LARGE_DOWNLOADS).map(|_| storage.download()).collect();
    let (large, pieces) = read("/proc/self/smaps").await;
    assert!(pieces > 1 && pieces >= large.len() / crate::sandbox_api::storage::SMALL_PIECE, "{pieces}");
    drop(places);
    let case = Case::new();
    std::fs::write(case.path("empty"), "").unwrap();
    let (response, _) = case.get("/empty", &[("Range", "bytes=0-9")]).await;
    assert_eq!(response.status, 200);
    let date = response.headers.iter().find(|(name, _)| *name == "last-modified").unwrap().1.clone();
    let (response, _) = case.get("/empty", &[("If-Modified-Since", &date)]).await;
    assert_eq!(response.status, 304);
    assert!(matches!(Download::open(&root, "/dev/zero", 1), Err(FileError::Special(_))));
}

#[tokio::test]
async fn a_file_that_becomes_shorter_breaks_the_answer() {
    let case = Case::new();
    std::fs::write(case.path("f"), vec![1; 400_000]).unwrap();
    let place = case.storage.download();
    let opened = Download::open(&case.root(), "/f", place.piece).unwrap();
    std::fs::write(case.path("f"), vec![1; 200_000]).unwrap();
    let Payload::Sized(400_000, chunks) =
        opened.answer(&Headers::default(), &case.storage.workers, place).payload
    else {
        panic!("the size is another one")
    };
    let pieces: Vec<_> = chunks.collect().await;
    assert!(pieces.last().unwrap().is_err());
    let read: usize = pieces.iter().flatten().map(|piece| piece.len()).sum();
    assert_eq!(read, 200_000);
}

fn composition(sources: &[&str], destination: &str) -> Composition {
    let text = serde_json::json!({ "source_paths": sources, "destination": destination, "username": null });
    Composition::parse(text.to_string().as_bytes()).unwrap()
}

#[test]
fn files_are_joined_in_order_and_the_sources_go() {
    let case = Case::new();
    for (name, text) in [("1", "one "), ("2", "two "), ("3", "three")] {
        std::fs::write(case.path(name), text).unwrap();
    }
    let join =
        |sources: &[&str], to: &str| composition(sources, to).compose(&case.root(), &own(), &Stop::default());
    let written = join(&["/1", "/2", "/1"], "/n/all").unwrap().to_json();
    assert_eq!(written, serde_json::json!({ "name": "all", "path": "/n/all", "type": "file" }));
    assert_eq!(case.text("n/all"), "one two one ");
    assert!(!case.path("1").exists() && !case.path("2").exists());
    // What is joined may be the destination itself.
    join(&["/n/all", "/3"], "/n/all").unwrap();
    assert_eq!(case.text("n/all"), "one two one three");
    assert_eq!(std::fs::read_dir(case.path("n")).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_joined_changes_nothing() {
    let case = Case::new();
    std::fs::write(case.path("1"), "one").unwrap();
    std::fs::create_dir(case.path("d")).unwrap();
    let join = |sources: &[&str], to: &str| {
        let composed = composition(sources, to).compose(&case.root(), &own(), &Stop::default());
        composed.map_err(|error| (error.status(), error.to_string())).unwrap_err()
    };
    assert_eq!(join(&["/1", "/none"], "/n/all"), (404, "source file not found: /none".into()));
    assert_eq!(join(&["/1", "/d"], "/n/all").0, 400);
    assert_eq!(join(&["/1"], "/d").0, 400);
    assert_eq!(join(&[], "/all").0, 400);
    assert_eq!(join(&["/1"], "").0, 400);
    assert_eq!(join(&vec!["/1"; compose::MOST_SOURCES + 1], "/all").0, 400);
    assert!(case.path("1").exists() && !case.path("n").exists());
    let stop = Stop::default();
    drop(stop.on_drop());
    let stopped = composition(&["/1"], "/all").compose(&case.root(), &own(), &stop);
    assert!(matches!(stopped, Err(FileError::Abandoned)));
    assert_eq!(std::fs::read_dir(case.dir.path()).unwrap().count(), 2, "nothing unfinished stays");
    assert!(Composition::parse(b"{").is_err());
}

#[test]
fn encodings_that_a_client_takes() {
    let accepts = |value: &str| {
        let mut headers = Headers::default();
        headers.push("Accept-Encoding", value);
        accepts_identity(&headers)
    };
    assert!(accepts_identity(&Headers::default()));
    for value in ["", "gzip, deflate", "*", "identity;q=0.1", "gzip, *;q=0, identity", "gzip;q=0"] {
        assert!(accepts(value), "{value}");
    }
    for value in ["identity;q=0", "gzip, identity; q=0", "*;q=0", "gzip, *;q=0.0"] {
        assert!(!accepts(value), "{value}");
    }
}
