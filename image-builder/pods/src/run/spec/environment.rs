//! The environment of a container, and `$(NAME)` in texts.

use super::error::SpecError;
use crate::run::facts::{Facts, Missing};
use crate::run::pod::{Container, EnvValue, Pod};
use images::image::ImageConfig;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the manifest says, with everything filled in. These are the variables that `$(NAME)` can stand for.
pub(super) fn own(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
) -> Result<Vec<(String, String)>, SpecError> {
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in &container.env {
        let unknown = |missing: Missing| SpecError::Unknown {
            container: container.name.clone(),
            what: missing.what,
            reason: missing.reason,
        };
        let value = match value {
            // A value may refer to what is set before it.
            EnvValue::Text(text) => expand(text, &env),
            EnvValue::Literal(text) => text.clone(),
            EnvValue::Field(field) => facts.field(*field).map_err(unknown)?,
            EnvValue::Resource(resource) => facts.resource(resource, pod, container).to_string(),
        };
        set(&mut env, name, value);
    }
    Ok(env)
}

/// What programs expect to find, the image's variables, and the manifest's on top of them.
pub(super) fn whole(
    pod: &Pod,
    container: &Container,
    image: &ImageConfig,
    home: Option<&str>,
    own: &[(String, String)],
) -> Vec<(String, String)> {
    let mut env: Vec<(String, String)> = Vec::new();
    set(&mut env, "PATH", PATH.to_owned());
    set(&mut env, "HOSTNAME", pod.hostname.clone());
    set(&mut env, "HOME", home.unwrap_or("/").to_owned());
    if container.tty {
        set(&mut env, "TERM", "xterm".to_owned());
    }
    for variable in &image.env {
        if let Some((name, value)) = variable.split_once('=') {
            set(&mut env, name, value.to_owned());
        }
    }
    for (name, value) in own {
        set(&mut env, name, value.clone());
    }
    env
}

fn set(env: &mut Vec<(String, String)>, name: &str, value: String) {
    match env.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => env.push((name.to_owned(), value)),
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for `$`, and unknown names stay as they are.
pub(in crate::run) fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|after| after.split_once(')'));
        match name.and_then(|(name, after)| Some((env.iter().find(|(known, _)| known == name)?, after))) {
            Some(((_, value), after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}
