//! The pod itself: its metadata, and what it says for all its containers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::container::{self, Around, RESTARTS};
use super::document::Sources;
use super::fields::{At, Fields, Honoured, Ignored, Refused, Schema};
use super::labels::label;
use super::metadata::METADATA;
use super::{security, volume};
use crate::run::pod::{Container, Dns, EnvValue, FileData, Meta, Pod, ResourceField, Restart, VolumeKind};

/// Names the containers whose end is the end of the pod, separated by commas. All of them, by default.
const MAIN_CONTAINERS: &str = "pith/main-containers";
/// How long a container may take to end when it is asked to, unless the pod says otherwise.
const GRACE: Duration = Duration::from_secs(10);
/// The longest host name (gethostname(2)).
const MAX_HOSTNAME: usize = 64;
/// The domain that names of pods are in.
const DOMAIN: &str = "svc.cluster.local";

static POD: Schema = Schema {
    name: "Pod",
    keys: &[
        ("apiVersion", Honoured("`v1`")),
        ("kind", Honoured("`Pod`")),
        ("metadata", Honoured("the pod's name, labels and annotations")),
        ("spec", Honoured("the containers and everything they need")),
        ("status", Ignored("only a cluster writes it")),
    ],
};

const SCHEDULER: &str = "there is only one machine, so there is nothing to choose";
const NO_API: &str = "there is no API server";

static SPEC: Schema = Schema {
    name: "PodSpec",
    keys: &[
        ("containers", Honoured("at least one")),
        (
            "initContainers",
            Honoured(
                "run one after the other, before the other containers. With `restartPolicy: Always` they are sidecars",
            ),
        ),
        ("volumes", Honoured("what containers can mount")),
        (
            "restartPolicy",
            Honoured(
                "`Always`, `OnFailure`, `Never`. Without the key `Never`, unlike in a cluster: `run` ends when its containers do",
            ),
        ),
        ("terminationGracePeriodSeconds", Honoured("10")),
        ("activeDeadlineSeconds", Honoured("after this time the pod is ended, with status 124")),
        ("hostname", Honoured("the pod's name")),
        ("subdomain", Honoured("`HOSTNAME.SUBDOMAIN.NAMESPACE.svc.cluster.local` stands in /etc/hosts")),
        ("setHostnameAsFQDN", Honoured("the host name is the full name in this form")),
        ("hostAliases", Honoured("lines of /etc/hosts")),
        (
            "dnsPolicy",
            Honoured("`None`: only `dnsConfig`; all others: what the network says, then `dnsConfig`"),
        ),
        ("dnsConfig", Honoured("/etc/resolv.conf")),
        (
            "shareProcessNamespace",
            Honoured(
                "containers see each other's processes. Process 1 is a process of the pod that only waits",
            ),
        ),
        ("securityContext", Honoured("for all containers")),
        ("nodeName", Honoured("containers can read it. Default: the host's name")),
        ("serviceAccountName", Honoured("containers can read it. Default: `default`")),
        ("hostUsers", Honoured("only `true`, which is the default. User namespaces are refused")),
        ("os", Honoured("`linux`")),
        ("affinity", Ignored(SCHEDULER)),
        ("nodeSelector", Ignored(SCHEDULER)),
        ("preemptionPolicy", Ignored(SCHEDULER)),
        ("priority", Ignored(SCHEDULER)),
        ("priorityClassName", Ignored(SCHEDULER)),
        ("schedulerName", Ignored(SCHEDULER)),
        ("schedulingGates", Ignored(SCHEDULER)),
        ("tolerations", Ignored(SCHEDULER)),
        ("topologySpreadConstraints", Ignored(SCHEDULER)),
        ("overhead", Ignored("the guest's memory is `run --memory`")),
        ("runtimeClassName", Ignored("this is the runtime")),
        ("automountServiceAccountToken", Ignored(NO_API)),
        ("serviceAccount", Ignored("the old name of serviceAccountName")),
        ("enableServiceLinks", Ignored("there are no services")),
        (
            "imagePullSecrets",
            Ignored("logins come from the files that `docker login` and `podman login` write"),
        ),
        ("readinessGates", Ignored(NO_API)),
        ("hostNetwork", Ignored("the guest is the node, and all containers are in its network")),
        ("hostPID", Refused("processes of the host are outside of the guest")),
        ("hostIPC", Refused("memory of the host is outside of the guest")),
        ("ephemeralContainers", Refused("they can only be added to a running pod; use `exec`")),
        ("resourceClaims", Refused("there are no device claims")),
        ("resources", Refused("limits belong to containers")),
        ("hostnameOverride", Refused("use hostname")),
    ],
};

static OS: Schema = Schema { name: "PodOS", keys: &[("name", Honoured("`linux`"))] };

static DNS: Schema = Schema {
    name: "PodDNSConfig",
    keys: &[
        ("nameservers", Honoured("addresses. Only the first three are used")),
        ("searches", Honoured("domains")),
        ("options", Honoured("as in resolv.conf(5)")),
    ],
};

static DNS_OPTION: Schema = Schema {
    name: "PodDNSConfigOption",
    keys: &[("name", Honoured("such as `ndots`")), ("value", Honoured("such as `\"2\"`"))],
};

static ALIAS: Schema = Schema {
    name: "HostAlias",
    keys: &[("ip", Honoured("an address")), ("hostnames", Honoured("names for it"))],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] = &[&POD, &METADATA, &SPEC, &OS, &DNS, &DNS_OPTION, &ALIAS];

pub(super) fn read(at: At<'_>, sources: &Sources) -> Option<Pod> {
    let fields = at.fields(&POD)?;
    for key in ["apiVersion", "kind"] {
        fields.text(key);
    }
    let meta = fields.at("metadata");
    let spec = fields.at("spec");
    for (key, there) in [("metadata", meta.is_some()), ("spec", spec.is_some())] {
        if !there {
            fields.wrong(format!("{key} is missing"));
        }
    }
    let spec = spec?.fields(&SPEC)?;
    let node = spec.text("nodeName").map(str::to_owned);
    let account = spec.text("serviceAccountName").unwrap_or("default").to_owned();
    let meta = Meta { node, service_account: account, ..metadata(&meta?) };
    refuse_what_is_elsewhere(&spec);
    let security = security::pod(&spec);
    let volumes = volume::volumes(&spec, sources, &meta);
    let restart = spec.choice("restartPolicy", &RESTARTS).unwrap_or(Restart::Never);
    let around = Around { sources, meta: &meta, volumes: &volumes, security: &security, restart };
    let init = spec.each("initContainers", |at| container::read(&at, true, &around));
    let containers = spec.each("containers", |at| container::read(&at, false, &around));
    if spec.at("containers").is_none_or(|at| at.node.is_empty()) {
        spec.wrong("a pod needs at least one container");
    }
    let main = main_containers(&fields, &meta, &containers);
    let (hostname, fqdn) = hostname(&spec, &meta);
    let seconds = |count: u32| Duration::from_secs(count.into());
    let pod = Pod {
        hostname,
        fqdn,
        grace: spec.count("terminationGracePeriodSeconds", 0).map_or(GRACE, seconds),
        deadline: spec.count("activeDeadlineSeconds", 1).map(seconds),
        init,
        containers,
        dns: dns(&spec),
        host_aliases: aliases(&spec),
        sysctls: security.sysctls.clone(),
        share_processes: spec.flag("shareProcessNamespace"),
        fs_group: security.fs_group,
        main,
        notes: Vec::new(),
        volumes: volumes.clone(),
        meta,
    };
    check_names(&pod, &spec);
    check_files(&pod, &spec);
    Some(pod)
}

fn metadata(at: &At<'_>) -> Meta {
    let Some(fields) = at.fields(&METADATA) else { return Meta::default() };
    let generated = fields.text("generateName").map(|text| text.trim_end_matches(['-', '.']));
    let name = match (fields.at("name"), generated) {
        (Some(at), _) => at.text().and_then(|text| at.checked(label(text))),
        (None, Some(text)) => at.checked(label(text)),
        (None, None) => {
            fields.wrong("name is missing");
            None
        }
    };
    let map = |key| fields.at(key).map(|at| at.text_map()).unwrap_or_default();
    Meta {
        name: name.unwrap_or_default(),
        namespace: fields.text("namespace").unwrap_or("default").to_owned(),
        uid: fields.text("uid").map(str::to_owned),
        labels: map("labels"),
        annotations: map("annotations"),
        ..Meta::default()
    }
}

fn refuse_what_is_elsewhere(spec: &Fields<'_>) {
    if let Some(at) = spec.at("hostUsers")
        && at.boolean() == Some(false)
    {
        at.wrong("containers have no user namespace of their own here; the VM is the wall");
    }
    if let Some(os) = spec.fields("os", &OS)
        && let Some(at) = os.at("name")
        && at.text().is_some_and(|name| name != "linux")
    {
        at.wrong("the guest is Linux");
    }
}

fn main_containers(fields: &Fields<'_>, meta: &Meta, containers: &[Container]) -> Vec<String> {
    let names: Vec<String> = containers.iter().map(|container| container.name.clone()).collect();
    let Some((_, list)) = meta.annotations.iter().find(|(key, _)| key == MAIN_CONTAINERS) else {
        return names;
    };
    let line = fields.at("metadata").map_or(fields.line, |at| at.line);
    let wrong = |text: String| {
        fields.report.problem(line, format!("metadata.annotations[{MAIN_CONTAINERS}]"), text);
    };
    let main: Vec<String> =
        list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    match main.iter().find(|name| !names.contains(*name)) {
        Some(stranger) => wrong(format!("there is no container {stranger:?}")),
        None if main.is_empty() => wrong("names no container".to_owned()),
        None => {}
    }
    main
}

/// The host name, and the long name of a pod in a subdomain.
fn hostname(spec: &Fields<'_>, meta: &Meta) -> (String, Option<String>) {
    let checked = |key| {
        let at = spec.at(key)?;
        let text = at.text().filter(|text| !text.is_empty())?;
        at.checked(label(text))
    };
    let short = checked("hostname").unwrap_or_else(|| meta.name.clone());
    let fqdn = checked("subdomain").map(|domain| format!("{short}.{domain}.{}.{DOMAIN}", meta.namespace));
    match (spec.at("setHostnameAsFQDN").is_some_and(|at| at.boolean() == Some(true)), &fqdn) {
        (true, Some(long)) if long.len() <= MAX_HOSTNAME => (long.clone(), fqdn),
        (true, Some(long)) => {
            spec.wrong(format!("the host name {long} is longer than {MAX_HOSTNAME} bytes"));
            (short, fqdn)
        }
        _ => (short, fqdn),
    }
}

fn address(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    at.checked(text.parse::<IpAddr>().map_err(|_| format!("{text:?} is no address"))).map(|_| text.to_owned())
}

fn dns(spec: &Fields<'_>) -> Dns {
    let policies =
        [("ClusterFirst", false), ("ClusterFirstWithHostNet", false), ("Default", false), ("None", true)];
    let alone = spec.choice("dnsPolicy", &policies).unwrap_or(false);
    let mut dns = Dns { alone, ..Dns::default() };
    if let Some(fields) = spec.fields("dnsConfig", &DNS) {
        dns.servers = fields.each("nameservers", |at| address(&at));
        dns.searches = fields.texts("searches").unwrap_or_default();
        dns.options = fields.each("options", |at| {
            let fields = at.fields(&DNS_OPTION)?;
            let value = fields.text("value").map(str::to_owned);
            let name = fields.needed("name")?;
            Some(value.map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")))
        });
        let words = dns.searches.iter().chain(&dns.options);
        if let Some(word) =
            words.into_iter().find(|word| word.is_empty() || word.contains(char::is_whitespace))
        {
            fields.wrong(format!("{word:?} is no word of resolv.conf"));
        }
    }
    if alone && dns.servers.is_empty() {
        spec.wrong("dnsPolicy None needs dnsConfig.nameservers");
    }
    dns
}

fn aliases(spec: &Fields<'_>) -> Vec<(String, Vec<String>)> {
    spec.each("hostAliases", |at| {
        let fields = at.fields(&ALIAS)?;
        let names = fields.texts("hostnames").unwrap_or_default();
        if names.is_empty() || names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace))
        {
            fields.wrong("hostnames is a list of names");
        }
        let Some(ip) = fields.at("ip") else {
            fields.wrong("ip is missing");
            return None;
        };
        Some((address(&ip)?, names))
    })
}

/// Names are one container's, and resources are those of containers that are there.
fn check_names(pod: &Pod, spec: &Fields<'_>) {
    let mut names = BTreeSet::new();
    for container in pod.all() {
        if !names.insert(container.name.as_str()) {
            spec.wrong(format!("two containers have the name {:?}", container.name));
        }
    }
    let in_env = pod.all().flat_map(|container| &container.env).filter_map(|(_, value)| match value {
        EnvValue::Resource(resource) => Some(resource),
        _ => None,
    });
    let in_files = pod.volumes.iter().filter_map(|volume| match &volume.kind {
        VolumeKind::Files(files) => Some(files),
        _ => None,
    });
    let in_files = in_files.flatten().filter_map(|file| match &file.data {
        FileData::Resource(resource) => Some(resource),
        _ => None,
    });
    let all: Vec<&ResourceField> = in_env.chain(in_files).collect();
    for resource in all {
        if !resource.container.is_empty() && !names.contains(resource.container.as_str()) {
            spec.wrong(format!(
                "a resourceFieldRef names the container {:?}, which is not there",
                resource.container
            ));
        }
    }
}

/// A part of a volume of files has to be among them.
fn check_files(pod: &Pod, spec: &Fields<'_>) {
    for container in pod.all() {
        for mount in container.mounts.iter().filter(|mount| !mount.sub_path.is_empty()) {
            let volume = pod.volumes.iter().find(|volume| volume.name == mount.volume);
            let Some(VolumeKind::Files(files)) = volume.map(|volume| &volume.kind) else { continue };
            if mount.sub_path_expands && mount.sub_path.contains('$') {
                continue;
            }
            let wanted = mount.sub_path.trim_end_matches('/');
            let is_there = |path: &str| path == wanted || path.starts_with(&format!("{wanted}/"));
            if !files.iter().any(|file| is_there(&file.path)) && !files.is_empty() {
                spec.wrong(format!(
                    "container {:?} mounts {wanted:?} of the volume {:?}, which has no such file",
                    container.name, mount.volume
                ));
            }
        }
    }
}
