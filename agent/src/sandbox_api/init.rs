//! `/init` and `/envs`: what a machine needs once it goes on from a snapshot, in one call.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_api::connect::{Error, Message};
use sandbox_api::http::{Request, Response};
use sandbox_api::time::Timestamp;

use super::rooted::{self, Root, texts_to_json};
use super::sandbox::Sandbox;
use super::trust::{self, trust};
use super::{freeze, target, task};
use crate::container::ContainerHandle;
use crate::error::chain;
use crate::guest::random;

/// The version of envd that this is like.
pub(super) const VERSION: &str = "0.6.13";
/// Most bytes of a request.
const BODY: usize = 1 << 20;
/// Most variables.
const ENVS: usize = 4096;
/// The guest's clock is set when it is more than so many nanoseconds behind, or ahead. What is ahead a little may have been set
/// by somebody who knows better.
const BEHIND: i128 = 50_000_000;
const AHEAD: i128 = 5_000_000_000;
/// Where programs of a container read how often the machine was made anew.
const GENERATION: &str = "/run/pith/generation";

/// The variables of every command.
pub(super) fn envs(sandbox: &Arc<Sandbox>) -> Response {
    let envs = sandbox.global();
    Response::json(200, &texts_to_json(&mut envs.iter().map(|(name, value)| (name, value))))
}

/// Sets what a restored machine needs. `is_host` says whether only the host could have sent it: a token comes from nobody else.
pub(super) async fn init(sandbox: &Arc<Sandbox>, mut request: Request, is_host: bool) -> Response {
    let body = match request.body.collect(BODY).await {
        Ok(body) => body,
        Err(error) => return Response::failure(error.status(), &error.to_string()),
    };
    let asked = match Asked::parse(&body) {
        Ok(asked) => asked,
        Err(error) => return Response::failure(400, &error.message),
    };
    let has_header = sandbox.auth.is_right(request.head.headers.get("x-access-token"));
    let has_body = sandbox.auth.is_right(asked.token.as_deref());
    if sandbox.auth.is_set() && !has_header && !has_body {
        let text = match asked.token {
            Some(_) => "access token validation failed",
            None => "access token reset not authorized",
        };
        return Response::text(401, text);
    }
    if !is_host && !has_body {
        return Response::text(401, "access token reset not authorized");
    }
    match apply(sandbox, asked, &body).await {
        Ok(()) => Response::empty(204).with("x-envd-version", VERSION),
        Err(text) => Response::failure(500, &text),
    }
}

/// What is asked for.
#[derive(Debug, Default)]
struct Asked {
    envs: Option<Vec<(String, String)>>,
    token: Option<String>,
    /// Nanoseconds since 1970.
    timestamp: Option<i128>,
    user: Option<String>,
    workdir: Option<String>,
    /// Certificates in PEM that containers are to trust.
    bundle: Option<String>,
}

impl Asked {
    fn parse(body: &[u8]) -> Result<Asked, Error> {
        let message = Message::parse(body)?;
        let text = |name: &str| {
            Ok::<_, Error>(message.optional_string(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
        };
        let envs = message.has("envVars").then(|| message.string_map("envVars")).transpose()?;
        if let Some(envs) = &envs {
            if envs.len() > ENVS {
                return Err(Error::invalid(format!("envVars has more than {ENVS} variables")));
            }
            if let Some((name, _)) = envs
                .iter()
                .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
            {
                return Err(Error::invalid(format!("envVars: {name:?} is no variable")));
            }
        }
        let timestamp = text("timestamp")?.map(|stamp| {
            Timestamp::from_rfc3339(&stamp)
                .map(Timestamp::as_nanos)
                .ok_or_else(|| Error::invalid(format!("timestamp: {stamp:?} is not a time of RFC 3339")))
        });
        let workdir = text("defaultWorkdir")?;
        // What would have no effect is refused by name: nobody should count on it.
        if message.has("volumeMounts") && !message.is_empty_field("volumeMounts") {
            let instead = "the guest mounts no NFS; volumes are given to the pod when it is made";
            return Err(Error::invalid(format!("volumeMounts is not supported: {instead}")));
        }
        let bundle = text("caBundle")?;
        if bundle.as_ref().is_some_and(|bundle| !bundle.contains(trust::BEGIN)) {
            return Err(Error::invalid(format!(
                "caBundle: no certificate in PEM: no line {:?}",
                trust::BEGIN
            )));
        }
        Ok(Asked {
            envs,
            token: text("accessToken")?,
            timestamp: timestamp.transpose()?,
            user: text("defaultUser")?,
            workdir,
            bundle,
        })
    }
}

async fn apply(sandbox: &Arc<Sandbox>, asked: Asked, body: &[u8]) -> Result<(), String> {
    let (generation, bundle, mut result) = {
        let mut settings = sandbox.settings();
        settings.generation += 1;
        // One that was overtaken by a later one says nothing any more.
        let is_late = asked.timestamp.is_some_and(|stamp| settings.stamp.is_some_and(|last| stamp < last));
        let (mut bundle, mut result) = (None, Ok(()));
        if !is_late {
            settings.stamp = asked.timestamp.or(settings.stamp);
            if let Some(envs) = asked.envs {
                settings.envs = envs;
            }
            settings.user = asked.user.or(settings.user.take());
            settings.workdir = asked.workdir.or(settings.workdir.take());
            bundle = asked.bundle;
            result = sandbox.auth.set(asked.token);
            if let Some(stamp) = asked.timestamp {
                result = result.and(set_clock(sandbox, stamp));
            }
        }
        (settings.generation, bundle, result)
    };
    let (containers, seed) = (target::workloads(&sandbox.parts.pod), body.to_vec());
    let work = move || {
        // The copies of a snapshot differ by what they are told.
        if let Err(error) = random::stir(&[&seed[..], &now().to_ne_bytes()].concat()) {
            tracing::warn!(error = %chain(&error), "the random generator is not stirred");
        }
        let mut trusted = Ok(());
        for container in &containers {
            if let Err(error) = tell(container, generation) {
                tracing::debug!(container_id = %container.id(), %error, "a container is not told its generation");
            }
            if let Some(bundle) = &bundle
                && let Err(error) = trust(container, bundle)
            {
                trusted = trusted.and(Err(format!("caBundle: container {}: {error}", container.id())));
            }
        }
        trusted
    };
    let trusted = task::blocking(work).await;
    result = result.and(trusted.unwrap_or_else(|_| Err("setting up the sandbox panicked".to_owned())));
    // Whatever went wrong, nobody is left frozen.
    freeze::thaw(sandbox).await;
    result
}

/// Nanoseconds since 1970.
fn now() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i128::try_from(since.as_nanos()).unwrap_or(i128::MAX)
}

/// Whether a clock is so wrong that it is to be set; `ahead` is how far it is, in nanoseconds.
fn is_wrong(ahead: i128) -> bool {
    !(-BEHIND..=AHEAD).contains(&ahead)
}

fn set_clock(sandbox: &Sandbox, stamp: i128) -> Result<(), String> {
    if !is_wrong(now() - stamp) {
        return Ok(());
    }
    let microseconds = stamp / 1000;
    let whole = i64::try_from(microseconds.div_euclid(1_000_000)).unwrap_or(i64::MAX);
    let rest = microseconds.rem_euclid(1_000_000) as i64;
    sandbox.parts.clock.set(whole, rest).map_err(|error| chain(&error))
}

/// Writes the generation into a file of the container's, in place of the one before.
fn tell(container: &ContainerHandle, generation: u64) -> std::io::Result<()> {
    let root = Root::new(Arc::new(container.root()?));
    rooted::replace(&root, GENERATION, &format!("{generation}\n")).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::rooted::{FileError, Owner};
    use super::*;

    #[test]
    fn what_is_asked_is_read_and_what_cannot_be_is_named() {
        let asked = Asked::parse(br#"{"envVars":{"A":"1"},"accessToken":"t","timestamp":"2026-01-01T00:00:00Z",
            "defaultUser":"web","defaultWorkdir":null,"hyperloopIP":"1.2.3.4","lifecycleID":"x","volumeMounts":[]}"#)
        .unwrap();
        assert_eq!(asked.envs, Some(vec![("A".into(), "1".into())]));
        assert_eq!(
            (asked.token.as_deref(), asked.user.as_deref(), asked.workdir),
            (Some("t"), Some("web"), None)
        );
        assert_eq!(asked.timestamp, Some(1_767_225_600_000_000_000));
        let empty = Asked::parse(b"").unwrap();
        assert!(empty.envs.is_none() && empty.token.is_none());
        for wrong in [
            "{",
            "[]",
            r#"{"timestamp":"today"}"#,
            r#"{"envVars":{"A":1}}"#,
            r#"{"envVars":{"A=B":""}}"#,
            r#"{"caBundle":"x"}"#,
            r#"{"volumeMounts":[{"path":"/x"}]}"#,
        ] {
            assert!(Asked::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..=ENVS).map(|n| format!("\"V{n}\":\"\"")).collect();
        assert!(Asked::parse(format!("{{\"envVars\":{{{}}}}}", many.join(",")).as_bytes()).is_err());
    }

    #[test]
    fn a_clock_is_set_when_it_is_behind_or_far_ahead() {
        assert!(!is_wrong(0) && !is_wrong(-BEHIND) && !is_wrong(AHEAD));
        assert!(is_wrong(-BEHIND - 1) && is_wrong(AHEAD + 1));
    }

    #[test]
    fn directories_are_made_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/real")).unwrap();
        std::os::unix::fs::symlink("/real", dir.path().join("root/run")).unwrap();
        let root = || OwnedFd::from(std::fs::File::open(dir.path().join("root")).unwrap());
        let make = |root, path| -> Result<OwnedFd, FileError> {
            Root::new(Arc::new(root)).make(path, &Owner::agent())
        };
        make(root(), "/run/pith").unwrap();
        assert!(dir.path().join("root/real/pith").is_dir());
        std::os::unix::fs::symlink("../../..", dir.path().join("root/out")).unwrap();
        assert!(make(root(), "/out/x").is_ok());
        assert!(!dir.path().join("x").exists() && dir.path().join("root/x").is_dir());
    }
}
