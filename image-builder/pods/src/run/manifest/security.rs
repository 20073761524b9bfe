//! Who containers run as and what they may do.

use super::fields::{Fields, Honoured, Ignored, Refused, Schema};
use crate::run::pod::{Seccomp, Security};

static POD: Schema = Schema {
    name: "PodSecurityContext",
    keys: &[
        ("runAsUser", Honoured("the default for all containers")),
        ("runAsGroup", Honoured("the same")),
        ("runAsNonRoot", Honoured("a container that would run as user 0 is refused")),
        ("supplementalGroups", Honoured("groups of all containers")),
        ("supplementalGroupsPolicy", Honoured("`Merge`: the image's groups too; `Strict`: these only")),
        (
            "fsGroup",
            Honoured(
                "the group that owns emptyDir, configMap, secret, projected and downwardAPI volumes. All containers are in it",
            ),
        ),
        ("fsGroupChangePolicy", Ignored("volumes with an owner are created anew for each pod")),
        ("seccompProfile", Honoured("the default for all containers")),
        ("sysctls", Honoured("`net.*`, `kernel.shm*`, `kernel.msg*`, `kernel.sem` and `fs.mqueue.*`")),
        ("appArmorProfile", Ignored("the guest has no AppArmor; the VM isolates the pod")),
        ("seLinuxOptions", Ignored("the guest has no SELinux policy; the VM isolates the pod")),
        ("seLinuxChangePolicy", Ignored("as above")),
        ("windowsOptions", Refused("the guest is Linux")),
    ],
};

static CONTAINER: Schema = Schema {
    name: "SecurityContext",
    keys: &[
        ("runAsUser", Honoured("instead of the image's user")),
        ("runAsGroup", Honoured("instead of the user's group")),
        ("runAsNonRoot", Honoured("refused before it starts if it would run as user 0")),
        ("privileged", Honoured("all capabilities, all devices of the guest, nothing masked")),
        ("readOnlyRootFilesystem", Honoured("its root cannot be written to")),
        ("allowPrivilegeEscalation", Honoured("`false`: set-user-ID programs give no privileges")),
        ("capabilities", Honoured("added to or removed from the 14 default capabilities")),
        ("seccompProfile", Honoured("which system calls it may make")),
        ("procMount", Honoured("`Unmasked`: nothing of /proc and /sys is hidden")),
        ("appArmorProfile", Ignored("the guest has no AppArmor; the VM isolates the pod")),
        ("seLinuxOptions", Ignored("the guest has no SELinux policy; the VM isolates the pod")),
        ("windowsOptions", Refused("the guest is Linux")),
    ],
};

static CAPABILITIES: Schema = Schema {
    name: "Capabilities",
    keys: &[
        ("add", Honoured("names with or without `CAP_`, or `ALL`")),
        ("drop", Honoured("the same; what is added by name stays")),
    ],
};

static SECCOMP: Schema = Schema {
    name: "SeccompProfile",
    keys: &[
        ("type", Honoured("`Unconfined` (the default), `RuntimeDefault` (as Docker's) or `Localhost`")),
        ("localhostProfile", Honoured("a file, relative to the manifest")),
    ],
};

static SYSCTL: Schema = Schema {
    name: "Sysctl",
    keys: &[("name", Honoured("with dots or slashes")), ("value", Honoured("in quotes"))],
};

#[cfg(test)]
pub(super) static SCHEMAS: &[&Schema] = &[&POD, &CONTAINER, &CAPABILITIES, &SECCOMP, &SYSCTL];

/// What a pod says for all its containers.
#[derive(Debug, Default)]
pub(super) struct PodSecurity {
    pub(super) defaults: Security,
    pub(super) fs_group: Option<u32>,
    pub(super) sysctls: Vec<(String, String)>,
}

pub(super) fn pod(spec: &Fields<'_>) -> PodSecurity {
    let Some(fields) = spec.fields("securityContext", &POD) else { return PodSecurity::default() };
    let fs_group = fields.id("fsGroup");
    let mut groups = fields.each("supplementalGroups", |at| at.number(0, u32::MAX - 1));
    groups.extend(fs_group);
    let strict = fields.choice("supplementalGroupsPolicy", &[("Merge", false), ("Strict", true)]);
    let sysctls = fields.each("sysctls", |at| {
        let fields = at.fields(&SYSCTL)?;
        let (name, value) = (fields.needed("name"), fields.needed("value"));
        let name = name?.replace('/', ".");
        let known = ["net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
        if !known.iter().any(|start| name.starts_with(start)) {
            fields.wrong(format!("{name} is a setting of the whole machine, none of a pod's namespaces"));
            return None;
        }
        Some((name, value?.to_owned()))
    });
    let defaults = Security {
        user: fields.id("runAsUser"),
        group: fields.id("runAsGroup"),
        groups,
        only_own_groups: strict.unwrap_or(false),
        not_root: fields.flag("runAsNonRoot"),
        seccomp: seccomp(&fields).unwrap_or_default(),
        ..Security::default()
    };
    PodSecurity { defaults, fs_group, sysctls }
}

/// What a container says, and the pod for it.
pub(super) fn container(container: &Fields<'_>, pod: &PodSecurity) -> Security {
    let defaults = pod.defaults.clone();
    let Some(fields) = container.fields("securityContext", &CONTAINER) else { return defaults };
    let bare = |fields: &Fields<'_>, key| -> Vec<String> {
        let names = fields.texts(key).unwrap_or_default();
        let upper = names.iter().map(|name| name.to_uppercase());
        upper.map(|name| name.strip_prefix("CAP_").unwrap_or(&name).to_owned()).collect()
    };
    let (add, drop) = match fields.fields("capabilities", &CAPABILITIES) {
        Some(fields) => (bare(&fields, "add"), bare(&fields, "drop")),
        None => Default::default(),
    };
    let escalation = fields.boolean("allowPrivilegeEscalation");
    let privileged = fields.flag("privileged");
    if privileged && escalation == Some(false) {
        fields.wrong("a privileged container can always gain privileges; leave out one of the two");
    }
    let unmasked = fields.choice("procMount", &[("Default", false), ("Unmasked", true)]);
    Security {
        account: None,
        user: fields.id("runAsUser").or(defaults.user),
        group: fields.id("runAsGroup").or(defaults.group),
        not_root: fields.boolean("runAsNonRoot").unwrap_or(defaults.not_root),
        privileged,
        unmasked: unmasked.unwrap_or(false),
        readonly_root: fields.flag("readOnlyRootFilesystem"),
        no_new_privileges: escalation == Some(false),
        add_capabilities: add,
        drop_capabilities: drop,
        seccomp: seccomp(&fields).unwrap_or(defaults.seccomp),
        groups: defaults.groups,
        only_own_groups: defaults.only_own_groups,
    }
}

fn seccomp(fields: &Fields<'_>) -> Option<Seccomp> {
    let fields = fields.fields("seccompProfile", &SECCOMP)?;
    let file = fields.text("localhostProfile").map(str::to_owned);
    let kinds = [("Unconfined", 0), ("RuntimeDefault", 1), ("Localhost", 2)];
    let kind = fields.choice("type", &kinds);
    if fields.at("type").is_none() {
        fields.wrong("type is missing");
    }
    match (kind?, file) {
        (0, None) => Some(Seccomp::Unconfined),
        (1, None) => Some(Seccomp::RuntimeDefault),
        (2, Some(file)) if !file.is_empty() => Some(Seccomp::Localhost(file)),
        (2, _) => {
            fields.wrong("localhostProfile is missing");
            None
        }
        _ => {
            fields.wrong("localhostProfile is for the type Localhost");
            None
        }
    }
}
