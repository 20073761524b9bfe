//! A container of a pod.

use super::document::Sources;
use super::fields::{At, Honoured, Ignored, Refused, Schema};
use super::labels::label;
use super::security::PodSecurity;
use super::{env, probe, resources, security, volume};
use crate::run::pod::{Container, Lifecycle, Meta, Probes, Pull, Restart, Role, Volume};

static CONTAINER: Schema = Schema {
    name: "Container",
    keys: &[
        ("name", Honoured("a DNS label")),
        (
            "image",
            Honoured(
                "an image as a file or directory, relative to the manifest: an OCI layout, an archive or a root file system. \
                 If there is no such file, it is a name in a registry, and is pulled",
            ),
        ),
        ("command", Honoured("replaces the entry point and arguments of the image. `$(NAME)` is replaced")),
        ("args", Honoured("replaces the arguments of the image. `$(NAME)` is replaced")),
        ("env", Honoured("variables on top of the image's")),
        ("envFrom", Honoured("variables of whole ConfigMaps and Secrets")),
        ("workingDir", Honoured("instead of the image's")),
        ("ports", Honoured("names for probes and hooks")),
        ("resources", Honoured("limits")),
        ("volumeMounts", Honoured("where volumes are mounted")),
        ("securityContext", Honoured("the user, and what the container may do")),
        (
            "restartPolicy",
            Honoured(
                "instead of the pod's; `Always` in an init container makes it a sidecar, which runs as long as the pod",
            ),
        ),
        ("startupProbe", Honoured("the other probes, and containers behind a sidecar, wait for it")),
        ("livenessProbe", Honoured("ends the container when it fails")),
        ("readinessProbe", Honoured("shown by `ps`")),
        ("lifecycle", Honoured("hooks at its start and end")),
        (
            "terminationMessagePath",
            Honoured("`/dev/termination-log`; `ps --json` has what is written there at the end"),
        ),
        (
            "terminationMessagePolicy",
            Honoured("`File`, or `FallbackToLogsOnError`: the end of its log when it failed"),
        ),
        (
            "stdin",
            Honoured(
                "its standard input stays open. The first container with this key gets the input of `run` in the foreground; `attach` connects to any of them",
            ),
        ),
        ("stdinOnce", Honoured("its standard input ends when the input of the first client ends")),
        ("tty", Honoured("it gets a terminal")),
        (
            "imagePullPolicy",
            Honoured(
                "`Always`, `IfNotPresent` or `Never`, for images in registries; if containers of one image differ, the first of \
                 these counts. `--pull` overrides it. The default is IfNotPresent, whatever the tag is",
            ),
        ),
        ("resizePolicy", Ignored("limits do not change")),
        ("restartPolicyRules", Refused("restartPolicy Always, OnFailure or Never decide")),
        ("volumeDevices", Refused("there are no block volumes; use hostPath or emptyDir")),
    ],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] = &[&CONTAINER];

/// What containers refer to.
pub(super) struct Around<'a> {
    pub(super) sources: &'a Sources,
    pub(super) meta: &'a Meta,
    pub(super) volumes: &'a [Volume],
    pub(super) security: &'a PodSecurity,
    /// The pod's own policy.
    pub(super) restart: Restart,
}

/// The words for [`Restart`].
pub(super) const RESTARTS: [(&str, Restart); 3] =
    [("Always", Restart::Always), ("OnFailure", Restart::OnFailure), ("Never", Restart::Never)];

pub(super) fn read(at: &At<'_>, is_init: bool, around: &Around<'_>) -> Option<Container> {
    let fields = at.fields(&CONTAINER)?;
    let own_restart = fields.choice("restartPolicy", &RESTARTS);
    let (role, restart) = match (is_init, own_restart) {
        (false, own) => (Role::Main, own.unwrap_or(around.restart)),
        (true, Some(Restart::Always)) => (Role::Sidecar, Restart::Always),
        (true, own) => {
            // An init container that has succeeded is done.
            let restart = own.unwrap_or(around.restart);
            (Role::Init, if restart == Restart::Always { Restart::OnFailure } else { restart })
        }
    };
    let ports = probe::ports(&fields);
    let (probes, lifecycle) = (probe::probes(&fields, &ports), probe::lifecycle(&fields, &ports));
    if role == Role::Init && (probes != Probes::default() || lifecycle != Lifecycle::default()) {
        fields.wrong(
            "an init container has neither probes nor hooks, unless restartPolicy: Always makes it a sidecar",
        );
    }
    let (limits, requests, storage) = resources::read(&fields);
    let security = security::container(&fields, around.security);
    let working_dir = fields.at("workingDir").and_then(|at| {
        let dir = at.text()?.to_owned();
        if !dir.is_empty() && !dir.starts_with('/') {
            at.wrong(format!("{dir:?} is not an absolute path"));
        }
        Some(dir).filter(|dir| !dir.is_empty())
    });
    let termination_path = fields.at("terminationMessagePath").and_then(|at| {
        let path = at.text()?.to_owned();
        if !path.is_empty() && !path.starts_with('/') {
            at.wrong(format!("{path:?} is not an absolute path"));
        }
        Some(path).filter(|path| !path.is_empty())
    });
    let policies = [("File", false), ("FallbackToLogsOnError", true)];
    let pulls = [("Always", Pull::Always), ("IfNotPresent", Pull::Missing), ("Never", Pull::Never)];
    let mut container = Container {
        name: String::new(),
        role,
        restart,
        image: String::new(),
        pull: fields.choice("imagePullPolicy", &pulls),
        command: fields.texts("command").filter(|words| !words.is_empty()),
        args: fields.texts("args").filter(|words| !words.is_empty()),
        env: env::read(&fields, around.sources, around.meta),
        working_dir,
        tty: fields.flag("tty"),
        stdin: fields.flag("stdin"),
        stdin_once: fields.flag("stdinOnce"),
        cpu_millis: limits.0,
        memory: limits.1,
        storage,
        requests,
        mounts: volume::mounts(&fields, around.volumes, security.privileged),
        security,
        probes,
        lifecycle,
        termination_path: termination_path.unwrap_or_else(|| "/dev/termination-log".to_owned()),
        termination_from_log: fields.choice("terminationMessagePolicy", &policies).unwrap_or(false),
    };
    let name = fields.at("name").and_then(|at| at.checked(label(at.text()?)));
    if fields.at("name").is_none() {
        fields.wrong("name is missing");
    }
    match fields.at("image") {
        Some(at) => match at.text() {
            Some("") => at.wrong(
                "is empty; name an image in a registry, an OCI layout, an image archive or a directory",
            ),
            text => container.image = text.unwrap_or_default().to_owned(),
        },
        None => fields.wrong(
            "image is missing; name an image in a registry, an OCI layout, an image archive or a directory",
        ),
    }
    container.name = name?;
    Some(container)
}
