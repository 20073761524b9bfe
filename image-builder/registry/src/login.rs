//! Where logins are: the files that `docker login` and `podman login` write, and the credential helpers that these name.
//!
//! ```text
//! REGISTRY_AUTH_FILE ─► DOCKER_CONFIG/config.json ─► XDG_RUNTIME_DIR/containers/auth.json
//!     ─► XDG_CONFIG_HOME/containers/auth.json ─► HOME/.docker/config.json
//! ```
//!
//! The first file that knows the registry counts. Promises to say where it looked. Must never print a secret, nor run a
//! helper that no file names for this registry.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use store::text;

/// How long a helper may think: it may ask its user for a password.
const HELPER: Duration = Duration::from_secs(60);
/// The most that a helper's answer or a file of logins may have.
const MOST: u64 = 1 << 20;
/// The user name with which helpers mark an identity token.
const TOKEN_USER: &str = "<token>";

/// Who a registry takes us for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    /// User and password as base64 of `user:password`.
    Basic(String),
    /// A token that is exchanged for others (OAuth 2).
    Identity(String),
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

/// The files to look into, the first one first.
fn files(variable: &impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(only) = path("REGISTRY_AUTH_FILE") {
        return vec![only];
    }
    let home = path("HOME");
    let config = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let docker = path("DOCKER_CONFIG").map(|dir| dir.join("config.json"));
    let usual = home.map(|home| home.join(".docker/config.json"));
    let containers = |dir: PathBuf| dir.join("containers/auth.json");
    let found = [docker, path("XDG_RUNTIME_DIR").map(containers), config.map(containers), usual];
    found.into_iter().flatten().collect()
}

/// The login for a repository of `registry`.
///
/// # Errors
/// Why there is none, and how to get one.
pub(crate) fn find(
    registry: &str,
    repository: &str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Login, String> {
    let files = files(&variable);
    let mut problems = Vec::new();
    for path in &files {
        match look(path, registry, repository) {
            Ok(Some(login)) => return Ok(login),
            Ok(None) => {}
            Err(problem) => problems.push(format!("{}: {problem}", path.display())),
        }
    }
    if problems.is_empty() {
        let looked: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let looked =
            if looked.is_empty() { "nowhere: HOME is not set".to_owned() } else { looked.join(", ") };
        problems.push(format!("there is no login for it (looked in {looked})"));
    }
    Err(format!(
        "{}; log in with `docker login {registry}` or `podman login {registry}`",
        problems.join("; ")
    ))
}

fn look(path: &Path, registry: &str, repository: &str) -> Result<Option<Login>, String> {
    let mut text = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| error.to_string())?,
    };
    // The parser's own words might quote the file.
    let config: Config =
        serde_json::from_slice(&text).map_err(|_| "it is no JSON of docker's or podman's".to_owned())?;
    let names = names(registry, repository);
    // A helper for this registry is more exact than one for all.
    let helper = names.iter().find_map(|name| config.cred_helpers.get(name));
    if let Some(helper) = helper {
        return ask(helper, registry);
    }
    for entry in names.iter().filter_map(|name| config.auths.get(name)) {
        if let Some(token) = entry.identitytoken.clone().filter(|token| !token.is_empty()) {
            return Ok(Some(Login::Identity(token)));
        }
        match &entry.auth {
            Some(auth) if is_base64(auth) => return Ok(Some(Login::Basic(auth.clone()))),
            Some(auth) if !auth.is_empty() => {
                return Err(format!("the \"auth\" of {registry} is not base64"));
            }
            // An empty entry says that a helper has it.
            _ => {}
        }
    }
    config.creds_store.map_or(Ok(None), |helper| ask(&helper, registry))
}

/// The keys that a registry may have, the most exact first: containers' files have some for parts of a registry.
fn names(registry: &str, repository: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut path = format!("{registry}/{repository}");
    while let Some(at) = path.rfind('/') {
        names.push(path.clone());
        path.truncate(at);
    }
    let forms = [registry.to_owned(), format!("https://{registry}"), format!("https://{registry}/v2/")];
    names.extend(forms);
    if registry == "docker.io" {
        names.extend(["https://index.docker.io/v1/", "index.docker.io"].map(str::to_owned));
    }
    names
}

/// Asks `docker-credential-NAME`.
fn ask(helper: &str, registry: &str) -> Result<Option<Login>, String> {
    if helper.is_empty() || !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    {
        return Err(format!("{helper:?} is no name of a credential helper"));
    }
    ask_program(&format!("docker-credential-{helper}"), registry)
}

fn ask_program(program: &str, registry: &str) -> Result<Option<Login>, String> {
    let server = if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry };
    let failed = |error: std::io::Error| format!("cannot run {program}: {error}");
    let mut child = Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    // One that does not read has its own reason, which its status tells.
    drop(child.stdin.take().map(|mut input| input.write_all(server.as_bytes())));
    let output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        output.map(|output| output.take(MOST).read_to_end(&mut answer));
        answer
    });
    let begun = Instant::now();
    let status = loop {
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None if begun.elapsed() > HELPER => {
                drop(child.kill());
                drop(child.wait());
                return Err(format!("{program} gave no answer within {} s", HELPER.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let answer = reader.join().unwrap_or_default();
    if !status.success() {
        let said = String::from_utf8_lossy(&answer);
        let said = said.trim();
        // The one answer that all helpers agree on.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let said = text::printable(said.lines().next().unwrap_or_default()).into_owned();
        return Err(format!("{program} failed ({status}): {said}"));
    }
    let secret: Secret =
        serde_json::from_slice(&answer).map_err(|_| format!("{program} gave no user and secret"))?;
    Ok(Some(match secret.username.as_str() {
        TOKEN_USER => Login::Identity(secret.secret),
        user => Login::Basic(basic(user, &secret.secret)),
    }))
}

/// What `Authorization: Basic` takes.
pub(crate) fn basic(user: &str, password: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn in_file(config: &str, registry: &str, repository: &str) -> Result<Login, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), config).unwrap();
        find(registry, repository, |name| (name == "DOCKER_CONFIG").then(|| dir.path().into()))
    }

    fn basic_of(found: Result<Login, String>) -> String {
        match found {
            Ok(Login::Basic(auth)) => auth,
            Ok(Login::Identity(token)) => panic!("an identity token: {token}"),
            Err(problem) => panic!("{problem}"),
        }
    }

    fn problem(config: &str) -> String {
        in_file(config, "r.io:5", "a/b").err().unwrap()
    }

    #[test]
    fn a_login_is_found_by_every_name_that_a_registry_has() {
        for key in ["r.io:5", "https://r.io:5", "https://r.io:5/v2/", "r.io:5/a", "r.io:5/a/b"] {
            let config =
                format!(r#"{{"auths": {{"{key}": {{"auth": "dTpw"}}, "other.io": {{"auth": "bm8="}}}}}}"#);
            assert_eq!(basic_of(in_file(&config, "r.io:5", "a/b")), "dTpw", "{key}");
        }
        let hub = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}}}"#;
        assert_eq!(basic_of(in_file(hub, "docker.io", "library/nginx")), "dTpw");
        let exact = r#"{"auths": {"r.io:5": {"auth": "bm8="}, "r.io:5/a": {"auth": "dTpw"}}}"#;
        assert_eq!(basic_of(in_file(exact, "r.io:5", "a/b")), "dTpw", "the most exact one counts");
        let token = r#"{"auths": {"r.io:5": {"auth": "dTpw", "identitytoken": "t"}}}"#;
        assert!(in_file(token, "r.io:5", "a").is_ok_and(|login| login == Login::Identity("t".into())));
    }

    #[test]
    fn what_is_missing_or_broken_is_explained_without_the_secret() {
        for (config, named) in [
            (r#"{"auths": {"r.io": {"auth": "dTpw"}}}"#, "docker login r.io:5"),
            (r#"{"auths": {"r.io:5": {"auth": "a\r\nb"}}}"#, "not base64"),
            ("{\"auths\": \"c2VjcmV0\"", "no JSON"),
            (r#"{"credsStore": "no-such-helper"}"#, "docker-credential-no-such-helper"),
            (r#"{"credHelpers": {"r.io:5": "../../bin/sh"}}"#, "no name of a credential helper"),
        ] {
            let problem = problem(config);
            assert!(problem.contains(named) && problem.contains("config.json"), "{config}: {problem}");
            assert!(!problem.contains("c2VjcmV0"), "{problem}");
        }
        assert!(find("r.io", "a", |_| None).is_err_and(|problem| problem.contains("HOME")));
    }

    #[test]
    fn files_are_asked_in_order_and_the_first_that_knows_counts() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, config: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, config).unwrap();
        };
        file("run/containers/auth.json", r#"{"auths": {"one.io": {"auth": "cnVu"}}}"#);
        file("home/.config/containers/auth.json", r#"{"auths": {"two.io": {"auth": "Y29uZg=="}}}"#);
        file(
            "home/.docker/config.json",
            r#"{"auths": {"one.io": {"auth": "bm8="}, "three.io": {"auth": "aG9tZQ=="}}}"#,
        );
        file("only.json", r#"{"auths": {"one.io": {"auth": "b25seQ=="}}}"#);
        let variable = |name: &str| match name {
            "HOME" => Some(dir.path().join("home").into()),
            "XDG_RUNTIME_DIR" => Some(dir.path().join("run").into()),
            _ => None,
        };
        for (registry, auth) in [("one.io", "cnVu"), ("two.io", "Y29uZg=="), ("three.io", "aG9tZQ==")] {
            assert_eq!(basic_of(find(registry, "a", variable)), auth);
        }
        let only = |name: &str| (name == "REGISTRY_AUTH_FILE").then(|| dir.path().join("only.json").into());
        assert_eq!(basic_of(find("one.io", "a", only)), "b25seQ==");
        assert!(find("two.io", "a", only).is_err_and(|problem| problem.contains("only.json")));
    }

    #[test]
    fn a_helper_is_asked_for_the_registry_and_its_answer_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\nread -r server\ncase $server in\n\
            known.io) echo '{\"ServerURL\": \"x\", \"Username\": \"u\", \"Secret\": \"p\"}' ;;\n\
            token.io) echo '{\"Username\": \"<token>\", \"Secret\": \"t\"}' ;;\n\
            odd.io) echo 'no JSON' ;;\n\
            locked.io) echo 'the keyring is locked'; exit 1 ;;\n\
            *) echo 'credentials not found in native keychain'; exit 1 ;;\nesac\n";
        let program = dir.path().join("docker-credential-pith-unit-test");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        // The helper is found on PATH; so is this one, by its whole path.
        let ask = |registry: &str| ask_program(&program.display().to_string(), registry);
        assert_eq!(basic_of(ask("known.io").map(Option::unwrap)), basic("u", "p"));
        assert!(ask("token.io").is_ok_and(|login| login == Some(Login::Identity("t".into()))));
        assert!(ask("other.io").is_ok_and(|login| login.is_none()));
        assert!(ask("locked.io").is_err_and(|problem| problem.contains("keyring is locked")));
        assert!(ask("odd.io").is_err_and(|problem| problem.contains("no user")));
    }

    #[test]
    fn base64_is_that_of_everybody() {
        assert_eq!(basic("u", "p"), "dTpw");
        assert_eq!(basic("user", "U*U"), "dXNlcjpVKlU=");
    }
}
