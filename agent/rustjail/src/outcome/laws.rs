//! What holds for every outcome, whatever the config was.

use std::path::{Component, Path};

use serde_json::Value;

use super::Outcome;
use crate::plan::{JailPlan, MountSource};

/// # Panics
/// When a law is broken, with its name.
pub(super) fn hold(outcome: &Outcome) {
    for plan in [&outcome.init, &outcome.exec] {
        survives_its_journey(plan);
        has_something_to_execute(plan);
        climbs_nowhere(plan);
        has_no_nul(plan);
        names_its_ids(plan);
        filters_soundly(plan);
    }
    assert!(outcome.init.wait_for_start, "a container starts when it is told to");
    assert!(outcome.init.rootfs.is_some() && outcome.exec.rootfs.is_none(), "only the first builds a root");
    writes_name_control_files(&outcome.cgroup);
}

/// The child gets the plan as JSON.
fn survives_its_journey(plan: &JailPlan) {
    let text = serde_json::to_vec(plan).expect("a plan is plain data");
    let back: JailPlan = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(&back, plan, "a plan survives its journey");
}

fn has_something_to_execute(plan: &JailPlan) {
    assert!(plan.command.args.first().is_some_and(|program| !program.is_empty()), "there is a program");
    assert!(plan.command.cwd.is_absolute(), "the working directory is absolute");
    assert!(plan.identity.umask <= 0o777, "a umask is permission bits");
    assert!(plan.rlimits.iter().all(|limit| limit.soft <= limit.hard), "no limit is above its ceiling");
    assert!(plan.oom_score_adj.is_none_or(|score| (-1000..=1000).contains(&score)), "the OOM score is one");
}

fn climbs_nowhere(plan: &JailPlan) {
    for (kind, path) in &plan.namespaces.join {
        assert!(path.is_absolute(), "the path of a joined namespace ({kind:?}) is absolute");
    }
    for (key, _) in &plan.sysctls {
        assert!(
            key.split('/').all(|name| !name.is_empty() && name != ".."),
            "sysctl {key:?} stays below /proc/sys"
        );
    }
    let Some(root) = &plan.rootfs else { return };
    inside(&root.path);
    assert!(root.path != Path::new("/"), "the root is a container's own");
    for mount in &root.mounts {
        inside(&mount.destination);
        if let MountSource::Bind { path, .. } = &mount.source {
            assert!(path.is_absolute(), "the source of a bind is absolute: {path:?}");
        }
        for attributes in [mount.attributes, mount.recursive_attributes] {
            // Only the access-time mode is both: the field is cleared and then set (mount_setattr(2)).
            assert_eq!(
                attributes.set & attributes.clear & !0x70,
                0,
                "no attribute is set and cleared: {mount:?}"
            );
        }
    }
    root.devices.iter().for_each(|device| inside(&device.path));
    root.links.iter().for_each(|(link, _)| inside(Path::new(link)));
    root.masked.iter().chain(&root.readonly_paths).for_each(|path| inside(Path::new(path)));
}

/// A path in the container: from its root on, name by name.
fn inside(path: &Path) {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    assert!(path.is_absolute() && plain, "{path:?} is a plain path in the container");
}

/// Texts end at a NUL for the kernel: what is behind one was never checked.
fn has_no_nul(plan: &JailPlan) {
    let mut plan = serde_json::to_value(plan).expect("a plan is plain data");
    // Whatever the listener is told goes over a socket.
    plan["seccomp"].take();
    let mut texts = Vec::new();
    collect(&plan, &mut texts);
    assert!(texts.iter().all(|text| !text.contains('\0')), "a text has a NUL: {texts:?}");
}

fn collect<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(list) => list.iter().for_each(|value| collect(value, texts)),
        Value::Object(map) => map.values().for_each(|value| collect(value, texts)),
        _ => {}
    }
}

/// To the kernel an id of -1 is the one that is there already.
fn names_its_ids(plan: &JailPlan) {
    let ids = [plan.identity.uid, plan.identity.gid];
    assert!(ids.iter().chain(&plan.identity.groups).all(|id| *id != u32::MAX), "ids are ids");
}

/// What the kernel demands of a filter (`bpf_check_classic`): it would refuse another one, after the fork.
fn filters_soundly(plan: &JailPlan) {
    let Some(seccomp) = &plan.seccomp else { return };
    let program = &seccomp.filter.program;
    assert!((1..=4096).contains(&program.len()), "a filter has 1 to 4096 instructions");
    assert_eq!(program.last().map(|last| last.code), Some(0x06), "a filter ends with a result");
    for (line, instruction) in program.iter().enumerate() {
        let farthest = match instruction.code {
            0x05 => instruction.k as usize,
            0x15 | 0x25 | 0x35 => usize::from(instruction.jt.max(instruction.jf)),
            0x20 => {
                assert!(
                    instruction.k < 64 && instruction.k.is_multiple_of(4),
                    "a word of struct seccomp_data is loaded"
                );
                0
            }
            _ => 0,
        };
        assert!(
            line + 1 + farthest < program.len() || instruction.code == 0x06,
            "line {line} jumps past the end"
        );
    }
}

fn writes_name_control_files(cgroup: &Value) {
    for setting in cgroup["settings"].as_array().into_iter().flatten() {
        let text = setting.as_str().expect("a setting is a text");
        let (file, _) = text.split_once('=').expect("a setting has a value");
        assert!(
            file.contains('.') && !file.contains('/') && !file.starts_with('.'),
            "{file:?} is a control file"
        );
    }
    let path = cgroup["path"].as_str().expect("there is a path");
    assert!(path.len() > 1, "no container is in the root of the hierarchy");
    inside(Path::new(path));
}
