//! Hooks that run inside of a container, and so in its own process before its program does.

use oci_spec::runtime::{Hook, Hooks, Spec};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::PlanError;

/// A program that runs at a point of the container's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookPlan {
    /// Absolute path.
    pub path: String,
    /// All of its arguments; the first one is its name.
    pub args: Vec<String>,
    /// All of its environment.
    pub env: Vec<String>,
    /// Seconds it may take; none is no limit.
    pub timeout: Option<u64>,
}

/// The hooks that run in the container's namespaces (runtime-spec, "POSIX-platform Hooks").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerHooks {
    /// In the guest's root, before the container's becomes `/`.
    pub create_container: Vec<HookPlan>,
    /// In the container's root, before its program executes.
    pub start_container: Vec<HookPlan>,
    /// What they are told on stdin, but for `status` and `pid`.
    pub state: String,
}

/// Who the container is, as its hooks are told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bundle<'a> {
    /// Its id.
    pub id: &'a str,
    /// Absolute path of its directory.
    pub path: &'a str,
}

impl HookPlan {
    /// Reads the hooks of one point, `field` of the spec.
    ///
    /// # Errors
    /// [`PlanError`] for a path that is not absolute or a timeout that is not positive.
    pub fn all_of_spec(field: &str, list: &Option<Vec<Hook>>) -> Result<Vec<HookPlan>, PlanError> {
        list.iter().flatten().enumerate().map(|(index, hook)| HookPlan::of_spec(field, index, hook)).collect()
    }

    fn of_spec(field: &str, index: usize, hook: &Hook) -> Result<HookPlan, PlanError> {
        let invalid = |text: String| Err(PlanError::Invalid(format!("hooks.{field}[{index}].{text}")));
        let path = hook.path().to_string_lossy().into_owned();
        if !hook.path().is_absolute() {
            return invalid(format!("path {path:?} is no absolute path"));
        }
        let timeout = match hook.timeout().map(u64::try_from) {
            None => None,
            Some(Ok(seconds @ 1..)) => Some(seconds),
            Some(_) => return invalid("timeout is not a positive number of seconds".into()),
        };
        let args = match hook.args().as_deref() {
            None | Some([]) => vec![path.clone()],
            Some(args) => args.to_vec(),
        };
        let env = hook.env().clone().unwrap_or_default();
        if let Some(bad) = args.iter().chain(&env).chain([&path]).find(|text| text.contains('\0')) {
            return invalid(format!("{bad:?} contains a NUL byte"));
        }
        Ok(HookPlan { path, args, env, timeout })
    }
}

impl InnerHooks {
    pub(super) fn of_spec(spec: &Spec, bundle: Bundle<'_>) -> Result<InnerHooks, PlanError> {
        let Some(hooks) = spec.hooks() else { return Ok(InnerHooks::default()) };
        Ok(InnerHooks {
            create_container: HookPlan::all_of_spec("createContainer", hooks.create_container())?,
            start_container: HookPlan::all_of_spec("startContainer", hooks.start_container())?,
            state: json!({
                "ociVersion": spec.version(),
                "id": bundle.id,
                "bundle": bundle.path,
                // A map whose order is the same in each plan of a spec.
                "annotations": spec.annotations().iter().flatten().collect::<std::collections::BTreeMap<_, _>>(),
            })
            .to_string(),
        })
    }
}

/// Whether hooks of the guest run before the container's root is entered.
pub(super) fn stops_for_runtime(hooks: Option<&Hooks>) -> bool {
    #[allow(deprecated, reason = "specs may still have them")]
    let lists = hooks.map(|hooks| [hooks.prestart(), hooks.create_runtime()]);
    lists.into_iter().flatten().flatten().any(|list| !list.is_empty())
}
