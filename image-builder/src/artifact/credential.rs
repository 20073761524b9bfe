//! Who asks: what `docker login` left in `config.json`, and what a registry's 401 demands.
//!
//! Promises to say what is missing. Must never run a credential helper, nor print a secret.

use std::ffi::OsString;
use std::path::PathBuf;

use serde::Deserialize;

/// The user and password for one registry, in base64 as the file has them, or why there are none.
#[derive(Clone)]
pub(super) enum Credential {
    /// For `Authorization: Basic`.
    Basic(String),
    /// What is missing and how to get it.
    Missing(String),
}

/// What a `WWW-Authenticate` header demands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token, to be fetched from `realm`.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: std::collections::BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: std::collections::BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
}

impl Credential {
    /// Looks `registry` up in the file that `DOCKER_CONFIG` or `HOME` leads to.
    pub(super) fn find(registry: &str, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let dir = variable("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".docker")));
        let Some(path) = dir.map(|dir| dir.join("config.json")) else {
            return Self::Missing("neither DOCKER_CONFIG nor HOME leads to a config.json".into());
        };
        let file = path.display();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) => {
                return Self::Missing(format!("{file}: {error}; log in with `docker login {registry}`"));
            }
        };
        // The parser's own words might quote the file.
        let Ok(config) = serde_json::from_slice::<Config>(&text) else {
            return Self::Missing(format!("{file} is no JSON of docker's; mend it or log in again"));
        };
        let url = format!("https://{registry}");
        let entry = config.auths.get(registry).or_else(|| config.auths.get(&url));
        match entry.and_then(|entry| entry.auth.clone()).filter(|auth| is_base64(auth)) {
            Some(auth) => Self::Basic(auth),
            None if config.creds_store.is_some() || config.cred_helpers.contains_key(registry) => {
                Self::Missing(format!(
                    "{file} keeps the password of {registry} in a credential helper, which is not run; \
                     put an \"auth\" for it into a config.json of its own and name that directory in DOCKER_CONFIG"
                ))
            }
            None => Self::Missing(format!(
                "{file} has no \"auth\" for {registry}; log in with `docker login {registry}`"
            )),
        }
    }
}

impl Challenge {
    /// Understands a header's value.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = rest.trim_start();
        // A value may have commas inside its quotes: `scope="repository:a:pull,push"`.
        while let Some((name, after)) = rest.split_once("=\"") {
            let (value, after) = after.split_once('"')?;
            match name.trim() {
                "realm" => realm = Some(value.to_string()),
                "service" => service = Some(value.to_string()),
                "scope" => scope = Some(value.to_string()),
                _ => {}
            }
            rest = after.trim_start_matches([',', ' ']);
        }
        realm.map(|realm| Self::Bearer { realm, service, scope })
    }
}

fn is_base64(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(config: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        match Credential::find("r.io:5", |name| (name == "DOCKER_CONFIG").then(|| dir.path().into())) {
            Credential::Basic(auth) => Ok(auth),
            Credential::Missing(problem) => Err(problem),
        }
    }

    #[test]
    fn a_login_is_found_and_a_missing_one_explained() {
        assert_eq!(find(r#"{"auths": {"r.io:5": {"auth": "dTpw"}}}"#), Ok("dTpw".into()));
        assert_eq!(find(r#"{"auths": {"https://r.io:5": {"auth": "dTpw"}}, "x": 1}"#), Ok("dTpw".into()));
        for (config, named) in [
            (r#"{"auths": {"r.io": {"auth": "dTpw"}}}"#, "docker login r.io:5"),
            (r#"{"auths": {"r.io:5": {}}, "credsStore": "pass"}"#, "credential helper"),
            (r#"{"auths": {"r.io:5": {"auth": "a\r\nb"}}}"#, "no \"auth\""),
            ("{", "no JSON"),
        ] {
            let problem = find(config).unwrap_err();
            assert!(problem.contains(named) && problem.contains("config.json"), "{config}: {problem}");
        }
    }

    #[test]
    fn challenges_are_understood() {
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        let header =
            r#"Bearer realm="https://a/t",service="r.io", scope="repository:a/b:pull,push",error="x""#;
        let expected = Challenge::Bearer {
            realm: "https://a/t".into(),
            service: Some("r.io".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::parse(header), Some(expected));
        assert_eq!(Challenge::parse("Bearer service=\"x\""), None);
        assert_eq!(Challenge::parse("Negotiate"), None);
    }
}
