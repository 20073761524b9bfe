//! A repository of a registry, by OCI's distribution spec: blobs and manifests over HTTP.
//!
//! Promises http only where it was allowed, and one answer to a 401: the login that docker or podman keeps. Must never send what authorises it to another origin than the registry's, but to the https realm that it names.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Request, Response};
use ureq::{Agent, Body, SendBody};

use store::digest::Digest;
use store::text;

use crate::challenge::Challenge;
use crate::error::RegistryError;
use crate::login::{self, Login};
use crate::reference::Reference;
use crate::watch::Watch;

/// A manifest larger than this is none; registries hold to the same.
const MAX_MANIFEST: u64 = 4 << 20;
/// Why a second 401 came.
const DENIED: &str = "the login is refused, or may not do this; log in again";
/// The same, without a login. Registries do not tell strangers which images there are.
const UNKNOWN: &str = "there is no such image, or it needs a login; check its name, or log in with `docker login` or `podman login`";
/// How much of the reason for a refusal is read.
const MAX_REASON: u64 = 4096;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One repository.
pub struct Repository {
    agent: Agent,
    /// `http://host` or `https://host`.
    origin: String,
    registry: String,
    name: String,
    authorization: Option<String>,
    watch: Watch,
}

/// What a request carries; a second try after a 401 begins it anew.
#[derive(Clone, Copy)]
enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    File(&'a Path),
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Repository {
    /// The repository of `reference`; nothing is asked yet.
    pub fn new(reference: &Reference, plain_http: bool, watch: Watch) -> Self {
        let plain = plain_http || reference.is_loopback();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!plain)
            // A redirect could lead from this host to another one, where http was not allowed.
            .max_redirects(if plain { 0 } else { 5 })
            .user_agent(concat!("pith/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(30)))
            .timeout_connect(Some(Duration::from_secs(30)))
            // A registry digests a large blob before it answers.
            .timeout_recv_response(Some(Duration::from_secs(300)));
        if reference.is_loopback() {
            config = config.proxy(None);
        }
        Self {
            agent: config.build().into(),
            origin: format!("{}://{}", if plain { "http" } else { "https" }, reference.host()),
            registry: reference.registry().to_string(),
            name: reference.name().to_string(),
            authorization: None,
            watch,
        }
    }

    /// The URL of a blob.
    pub fn blob_url(&self, digest: Digest) -> String {
        format!("{}/v2/{}/blobs/sha256:{digest}", self.origin, self.name)
    }

    /// The URL of a manifest by tag or digest.
    pub fn manifest_url(&self, version: &str) -> String {
        format!("{}/v2/{}/manifests/{version}", self.origin, self.name)
    }

    /// Whether the registry has the blob.
    pub fn has(&mut self, digest: Digest) -> Result<bool, RegistryError> {
        let url = self.blob_url(digest);
        let response = self.send("HEAD", &url, &[], Payload::None)?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refused("HEAD", &url, response)),
        }
    }

    /// Uploads `bytes` as a blob.
    pub fn upload_bytes(&mut self, bytes: &[u8]) -> Result<(), RegistryError> {
        self.upload(Digest::of(bytes), bytes.len() as u64, Payload::Bytes(bytes))
    }

    /// Uploads the file at `path` as the blob it is known to be; the registry verifies it.
    pub fn upload_file(&mut self, path: &Path, digest: Digest, size: u64) -> Result<(), RegistryError> {
        self.upload(digest, size, Payload::File(path))
    }

    fn upload(&mut self, digest: Digest, size: u64, payload: Payload<'_>) -> Result<(), RegistryError> {
        let url = format!("{}/v2/{}/blobs/uploads/", self.origin, self.name);
        let response = self.send("POST", &url, &[], Payload::Bytes(&[]))?;
        if response.status().as_u16() != 202 {
            return Err(self.refused("POST", &url, response));
        }
        let location = header(&response, "location").unwrap_or_default();
        let url = upload_url(&self.origin, &location, digest).ok_or_else(|| RegistryError::Status {
            operation: "POST",
            url,
            status: 202,
            hint: format!("it wants the upload at {location:?}, which is elsewhere; that is not done"),
        })?;
        let size = size.to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", size.as_str())];
        let response = self.send("PUT", &url, &headers, payload)?;
        match response.status().as_u16() {
            201 => Ok(()),
            _ => Err(self.refused("PUT", &url, response)),
        }
    }

    /// Stores the manifest under `tag`.
    pub fn put_manifest(&mut self, tag: &str, manifest: &[u8]) -> Result<(), RegistryError> {
        let url = self.manifest_url(tag);
        let response = self.send("PUT", &url, &[("content-type", MANIFEST)], Payload::Bytes(manifest))?;
        match response.status().as_u16() {
            201 => Ok(()),
            _ => Err(self.refused("PUT", &url, response)),
        }
    }

    /// The bytes of a manifest of one of the types in `accept`, unverified.
    ///
    /// # Errors
    /// When the registry cannot be reached or refuses, or when it is larger than any manifest.
    pub fn manifest(&mut self, version: &str, accept: &str) -> Result<Vec<u8>, RegistryError> {
        let url = self.manifest_url(version);
        let mut response = self.send("GET", &url, &[("accept", accept)], Payload::None)?;
        if response.status().as_u16() != 200 {
            return Err(self.refused("GET", &url, response));
        }
        self.document(&mut response, MAX_MANIFEST).map_err(|source| RegistryError::Http {
            operation: "GET",
            url,
            source: Box::new(source.into()),
        })
    }

    /// Writes the blob to `path`: at most one byte more than `size`, unverified. What `path` has already is the beginning
    /// of it, and only the rest is asked for.
    ///
    /// # Errors
    /// When the registry cannot be reached or refuses, or when the content stops on its way. What has come stays.
    pub fn download(&mut self, digest: Digest, size: u64, path: &Path) -> Result<(), RegistryError> {
        let url = self.blob_url(digest);
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(RegistryError::io("create", path))?;
        let has = file.seek(SeekFrom::End(0)).map_err(RegistryError::io("read", path))?;
        let range = format!("bytes={has}-");
        let headers: &[(&str, &str)] = if has > 0 && has < size { &[("range", &range)] } else { &[] };
        let response = self.send("GET", &url, headers, Payload::None)?;
        match response.status().as_u16() {
            206 if !headers.is_empty() => {}
            200 => file.set_len(0).and_then(|()| file.rewind()).map_err(RegistryError::io("write", path))?,
            _ => return Err(self.refused("GET", &url, response)),
        }
        let at = file.stream_position().map_err(RegistryError::io("write", path))?;
        let rest = size.saturating_sub(at).saturating_add(1);
        let mut content = self.watch.over(response.into_body().into_reader()).take(rest);
        io::copy(&mut content, &mut file)
            .and_then(|_| file.sync_all())
            .map_err(|source| RegistryError::Fetch { url, path: path.into(), source })
    }

    /// All of an answer, which must not be larger than `most` bytes.
    fn document(&self, response: &mut Response<Body>, most: u64) -> io::Result<Vec<u8>> {
        let mut document = Vec::new();
        let body = response.body_mut().with_config().limit(most).reader();
        self.watch.over(body).read_to_end(&mut document)?;
        Ok(document)
    }

    fn send(
        &mut self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<Response<Body>, RegistryError> {
        let response = self.send_once(method, url, headers, payload)?;
        if response.status().as_u16() != 401 {
            return Ok(response);
        }
        let challenge = header(&response, "www-authenticate").unwrap_or_default();
        // Helpers are asked only now that somebody wants to know.
        let login = login::find(&self.registry, &self.name, |name| std::env::var_os(name));
        let problem = if login.is_ok() { DENIED } else { UNKNOWN };
        self.authorization = Some(self.authorize(url, &challenge, login)?);
        let response = self.send_once(method, url, headers, payload)?;
        match response.status().as_u16() {
            401 => Err(RegistryError::Unauthorized { url: url.into(), problem: problem.into() }),
            _ => Ok(response),
        }
    }

    fn send_once(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        payload: Payload<'_>,
    ) -> Result<Response<Body>, RegistryError> {
        let body = match payload {
            Payload::None => SendBody::none(),
            Payload::Bytes(bytes) => return self.run(method, url, headers, bytes),
            Payload::File(path) => {
                let file = File::open(path).map_err(RegistryError::io("open", path))?;
                SendBody::from_owned_reader(self.watch.over(file))
            }
        };
        self.run(method, url, headers, body)
    }

    fn run(
        &self,
        method: &'static str,
        url: &str,
        headers: &[(&str, &str)],
        body: impl ureq::AsSendBody,
    ) -> Result<Response<Body>, RegistryError> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let failed =
            |source| RegistryError::Http { operation: method, url: url.into(), source: Box::new(source) };
        let request = request.body(body).map_err(|error| failed(error.into()))?;
        self.agent.run(request).map_err(failed)
    }

    /// The `Authorization` that `challenge` asks for.
    fn authorize(
        &self,
        url: &str,
        challenge: &str,
        login: Result<Login, String>,
    ) -> Result<String, RegistryError> {
        let unauthorized = |problem| RegistryError::Unauthorized { url: url.into(), problem };
        let (realm, service, scope) = match Challenge::parse(challenge) {
            Some(Challenge::Basic) => {
                return match login {
                    Ok(Login::Basic(auth)) => Ok(format!("Basic {auth}")),
                    Ok(Login::Identity(_)) => {
                        Err(unauthorized("the login is a token, and it wants a user and a password".into()))
                    }
                    Err(problem) => Err(unauthorized(problem)),
                };
            }
            Some(Challenge::Bearer { realm, service, scope }) => (realm, service, scope),
            None => {
                return Err(unauthorized(format!(
                    "it asks for {challenge:?}; only Basic and Bearer are known"
                )));
            }
        };
        if !realm.starts_with("https://") && !within(&self.origin, &realm) {
            return Err(unauthorized(format!("its tokens are at {realm:?}, which is not https")));
        }
        let failed =
            |source| RegistryError::Http { operation: "GET", url: realm.clone(), source: Box::new(source) };
        let (service, scope) = (service.unwrap_or_default(), scope.unwrap_or_default());
        let mut response = match &login {
            Ok(Login::Identity(token)) => self
                .agent
                .post(&realm)
                .send_form([
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", "pith"),
                    ("service", &service),
                    ("scope", &scope),
                ])
                .map_err(failed)?,
            _ => {
                let mut request = self.agent.get(&realm);
                for (name, value) in [("service", &service), ("scope", &scope)] {
                    if !value.is_empty() {
                        request = request.query(name, value);
                    }
                }
                if let Ok(Login::Basic(auth)) = &login {
                    request = request.header("authorization", format!("Basic {auth}"));
                }
                request.call().map_err(failed)?
            }
        };
        if response.status().as_u16() != 200 {
            return Err(unauthorized(login.err().unwrap_or_else(|| DENIED.into())));
        }
        let text = self.document(&mut response, 1 << 20).map_err(|error| failed(error.into()))?;
        let token: Token = serde_json::from_slice(&text).map_err(RegistryError::json(&realm))?;
        let token = token.token.or(token.access_token);
        token
            .map(|token| format!("Bearer {token}"))
            .ok_or_else(|| unauthorized(format!("{realm:?} gave no token")))
    }

    /// An answer that was not hoped for, with the beginning of what the registry says about it.
    fn refused(&self, operation: &'static str, url: &str, mut response: Response<Body>) -> RegistryError {
        let status = response.status().as_u16();
        let mut said = Vec::new();
        let read = self.watch.over(response.body_mut().as_reader()).take(MAX_REASON).read_to_end(&mut said);
        let said = if read.is_ok() { reason(&said) } else { String::new() };
        let advice = match status {
            404 => "there is no such image; check its name and its tag",
            300..=399 => "it redirects, which over http is not followed; name the other place",
            _ if said.is_empty() => "check the name and what the registry allows",
            _ => "",
        };
        let said = if said.is_empty() { said } else { format!("the registry says {said}") };
        let hint = [advice, &said].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ");
        RegistryError::Status { operation, url: url.into(), status, hint }
    }
}

/// Why a registry refuses, in a line: the code and the message of the first error, or the beginning of what is no JSON.
fn reason(said: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        errors: Vec<Reason>,
    }
    #[derive(Deserialize)]
    struct Reason {
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Refusal>(said).ok().and_then(|said| said.errors.into_iter().next());
    let words = match first {
        Some(Reason { code, message }) if message.is_empty() => code,
        Some(Reason { code, message }) => format!("{code}: {message}"),
        None => String::from_utf8_lossy(said).into_owned(),
    };
    text::printable(words.trim().chars().take(300).collect::<String>().as_str()).into_owned()
}

fn header(response: &Response<Body>, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string)
}

/// Whether `url` is below `origin`.
fn within(origin: &str, url: &str) -> bool {
    url.strip_prefix(origin).is_some_and(|rest| rest.starts_with('/'))
}

/// Where the content of an upload goes, if that is at the registry.
fn upload_url(origin: &str, location: &str, digest: Digest) -> Option<String> {
    let url = match location.starts_with('/') && !location.starts_with("//") {
        true => format!("{origin}{location}"),
        false => location.to_string(),
    };
    let separator = if url.contains('?') { '&' } else { '?' };
    within(origin, &url).then(|| format!("{url}{separator}digest=sha256:{digest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_go_to_the_registry_and_nowhere_else() {
        let digest = Digest::of(b"");
        let at = |location| upload_url("https://r.io", location, digest);
        assert_eq!(at("/v2/u?a=b"), Some(format!("https://r.io/v2/u?a=b&digest=sha256:{digest}")));
        assert_eq!(at("https://r.io/u"), Some(format!("https://r.io/u?digest=sha256:{digest}")));
        for elsewhere in ["http://r.io/u", "https://r.io.evil/u", "//evil/u", "https://r.io@evil/u", ""] {
            assert_eq!(at(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn http_is_for_this_host_or_on_demand() {
        let origin =
            |text: &str, plain| Repository::new(&text.parse().unwrap(), plain, Watch::default()).origin;
        assert_eq!(origin("localhost:1/a:1", false), "http://localhost:1");
        assert_eq!(origin("r.io/a:1", false), "https://r.io");
        assert_eq!(origin("r.io/a:1", true), "http://r.io");
    }
}
