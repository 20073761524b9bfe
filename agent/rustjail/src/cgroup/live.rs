//! The same code on a real cgroup2 mount.
//!
//! These need root and a mount, which they take from `PITH_CGROUP_ROOT`, and so they are ignored unless asked for:
//! `PITH_CGROUP_ROOT=/sys/fs/cgroup cargo nextest run -p rustjail --run-ignored only cgroup::live`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use oci_spec::runtime::LinuxDeviceCgroup;

use super::*;
use crate::sys::bpf;

const SOON: Duration = Duration::from_secs(20);

fn root() -> PathBuf {
    std::env::var_os("PITH_CGROUP_ROOT").expect("set PITH_CGROUP_ROOT to a cgroup2 mount").into()
}

/// A cgroup of this test's own, gone at its end also when it fails.
struct Fixture(Cgroup);

impl Drop for Fixture {
    fn drop(&mut self) {
        self.0.remove(SOON).unwrap();
    }
}

fn fixture(name: &str) -> Fixture {
    let path = CgroupPath::parse(&format!("/pith-test-{}-{name}/pod/c1", std::process::id()), "").unwrap();
    Fixture(Cgroup::create(&root(), &path).unwrap())
}

/// Runs a shell command in the cgroup. The shell moves itself in, as tests have no forker.
fn shell(cgroup: &Cgroup, command: &str) -> Child {
    let script = format!("set -e; echo $$ > {}/cgroup.procs; {command}", cgroup.path().display());
    Command::new("sh").args(["-c", &script]).spawn().unwrap()
}

fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain");
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn is_made_found_again_and_removed_with_its_ancestors() {
    let cgroup = fixture("life");
    let pod = cgroup.0.path().parent().unwrap().to_owned();
    let path = cgroup.0.path.clone();
    assert_eq!(Cgroup::create(&root(), &path).unwrap_err().class(), ErrorClass::Exists);
    assert!(Cgroup::open(&root(), &path).unwrap().procs().unwrap().is_empty());
    let controllers = fs::read_to_string(root().join("cgroup.controllers")).unwrap();
    assert_eq!(fs::read_to_string(cgroup.0.path().join("cgroup.controllers")).unwrap(), controllers);

    // The pod's second container did not make the pod's cgroup, but is the last to leave it.
    let second = CgroupPath::parse(&format!("{}/c2", path.to_string().trim_end_matches("/c1")), "").unwrap();
    let second = Cgroup::create(&root(), &second).unwrap();
    cgroup.0.remove(SOON).unwrap();
    assert!(pod.exists());
    second.remove(SOON).unwrap();
    assert!(!pod.parent().unwrap().exists());
    assert_eq!(Cgroup::open(&root(), &path).unwrap_err().class(), ErrorClass::NotFound);
    cgroup.0.remove(SOON).unwrap();
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn a_name_of_the_kernels_is_no_cgroup() {
    let path = CgroupPath::parse("/cgroup.procs", "").unwrap();
    let error = Cgroup::create(&root(), &path).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn kills_all_and_removes_what_the_container_nested() {
    let cgroup = fixture("kill");
    let own = cgroup.0.path().display().to_string();
    let mut child = shell(
        &cgroup.0,
        &format!("mkdir -p {own}/a/b/c && (echo 0 > {own}/a/b/c/cgroup.procs; sleep 1000) & sleep 1000"),
    );
    let nested = || fs::read_to_string(Path::new(&own).join("a/b/c/cgroup.procs")).unwrap_or_default();
    // Both sleeps at least; a shell may have become one of them.
    until(|| !nested().is_empty() && cgroup.0.procs().unwrap().len() >= 2);
    assert!(cgroup.0.procs().unwrap().iter().any(|pid| nested().lines().any(|line| line == pid.to_string())));
    assert!(cgroup.0.populated().unwrap());
    cgroup.0.kill().unwrap();
    child.wait().unwrap();
    until(|| !cgroup.0.populated().unwrap());
    assert!(cgroup.0.procs().unwrap().is_empty());
    cgroup.0.remove(SOON).unwrap();
    assert!(!Path::new(&own).exists());
    assert_eq!(cgroup.0.stats().unwrap(), Stats::default());
    assert!(cgroup.0.procs().unwrap().is_empty());
    cgroup.0.kill().unwrap();
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn remove_kills_what_is_left() {
    let cgroup = fixture("leftover");
    let mut child = shell(&cgroup.0, "sleep 1000 & sleep 1000 & wait");
    until(|| cgroup.0.procs().unwrap().len() >= 3);
    // The child is reaped only afterwards: a zombie does not keep a cgroup.
    cgroup.0.remove(SOON).unwrap();
    assert!(!cgroup.0.path().exists());
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn a_frozen_cgroup_stands_still_and_can_be_killed() {
    let cgroup = fixture("freeze");
    cgroup.0.freeze(SOON).unwrap();
    cgroup.0.thaw(SOON).unwrap();
    let out = tempfile::NamedTempFile::new().unwrap();
    let counting = format!("while :; do echo x >> {}; sleep 0.01; done", out.path().display());
    let mut child = shell(&cgroup.0, &counting);
    let size = || fs::metadata(out.path()).unwrap().len();
    until(|| size() > 0);
    cgroup.0.freeze(SOON).unwrap();
    let frozen = size();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(size(), frozen);
    cgroup.0.thaw(SOON).unwrap();
    until(|| size() > frozen);
    cgroup.0.freeze(SOON).unwrap();
    cgroup.0.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn an_event_wakes_a_poll() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let cgroup = fixture("events");
    let events = cgroup.0.open_events(EventsFile::Cgroup).unwrap();
    rustix::io::pread(&events, &mut [0u8; 64], 0).unwrap();
    let mut child = shell(&cgroup.0, "sleep 1000");
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    let woken = poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&limit)).unwrap();
    assert_eq!(woken, 1);
    until(|| cgroup.0.populated().unwrap());
    cgroup.0.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn cpu_time_is_counted() {
    let cgroup = fixture("cpu");
    assert!(shell(&cgroup.0, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done").wait().unwrap().success());
    // cpu.stat is the core's own file, there without any controller.
    let cpu = cgroup.0.stats().unwrap().cpu;
    assert!(cpu.total_ns > 0 && cpu.total_ns >= cpu.user_ns, "{cpu:?}");
}

/// Opens and makes device nodes in the cgroup; one letter per attempt that worked.
fn devices_that_work(cgroup: &Cgroup, directory: &Path) -> String {
    let out = directory.join("out");
    let script = format!(
        "cd {}; rm -f out kmsg; \
         (: < /dev/null) 2>/dev/null && printf n >> out; \
         (: > /dev/null) 2>/dev/null && printf N >> out; \
         mknod kmsg c 1 11 2>/dev/null && printf m >> out; \
         (: < /dev/kmsg) 2>/dev/null && printf k >> out; \
         (: >> /dev/kmsg) 2>/dev/null && printf K >> out; true",
        directory.display()
    );
    File::create(&out).unwrap().flush().unwrap();
    assert!(shell(cgroup, &script).wait().unwrap().success());
    fs::read_to_string(out).unwrap_or_default()
}

fn rules(json: &str) -> Vec<LinuxDeviceCgroup> {
    serde_json::from_str(json).unwrap()
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn the_filter_decides_and_is_replaced() {
    let cgroup = fixture("devices");
    let directory = tempfile::tempdir().unwrap();
    let works = || devices_that_work(&cgroup.0, directory.path());
    let attached = || bpf::device_programs(cgroup.0.dir()).unwrap();
    assert_eq!((works().as_str(), attached().len()), ("nNmkK", 0));

    cgroup.0.apply_devices(&rules(r#"[{"allow": false, "access": "rwm"}]"#)).unwrap();
    let first = attached();
    assert_eq!((works().as_str(), first.len()), ("nNm", 1));

    let reading =
        r#"[{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]"#;
    cgroup.0.apply_devices(&rules(reading)).unwrap();
    assert_eq!((works().as_str(), attached().len()), ("nNmk", 1));
    assert_ne!(attached(), first);

    cgroup.0.apply_devices(&rules(r#"[{"allow": true}]"#)).unwrap();
    assert_eq!((works().as_str(), attached().len()), ("nNmkK", 1));
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn several_filters_of_others_give_way_to_one() {
    let cgroup = fixture("several");
    let deny_all = [[0xb4, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    for _ in 0..3 {
        let program = bpf::load_device_program(&deny_all, None).unwrap();
        bpf::attach_device_program(cgroup.0.dir(), program.as_fd(), None).unwrap();
    }
    assert_eq!(bpf::device_programs(cgroup.0.dir()).unwrap().len(), 3);
    cgroup.0.apply_devices(&[]).unwrap();
    assert_eq!(bpf::device_programs(cgroup.0.dir()).unwrap().len(), 1);
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(devices_that_work(&cgroup.0, directory.path()), "nNm");
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn the_verifier_takes_as_many_rules_as_we_do() {
    let cgroup = fixture("verifier");
    // Every shape of rule, each with numbers of its own, in an order that alternates the verdicts.
    let rules: Vec<LinuxDeviceCgroup> = (0..1024)
        .map(|i: i64| {
            let mut rule = LinuxDeviceCgroup::default();
            let access: String =
                "rwm".chars().enumerate().filter(|(b, _)| i >> b & 1 == 0).map(|(_, c)| c).collect();
            let kind = serde_json::from_str(["\"a\"", "\"b\"", "\"c\""][i as usize % 3]).unwrap();
            rule.set_allow(i % 2 == 0).set_typ(Some(kind)).set_access(Some(access));
            rule.set_major(Some(if i % 5 == 0 { -1 } else { i })).set_minor(Some(i * 4_194_303));
            rule
        })
        .collect();
    cgroup.0.apply_devices(&rules).unwrap();
    assert_eq!(bpf::device_programs(cgroup.0.dir()).unwrap().len(), 1);
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT"]
fn a_refused_program_says_why() {
    let mut log = vec![0u8; 4096];
    // Returns without a result.
    let error = bpf::load_device_program(&[[0x95, 0, 0, 0, 0, 0, 0, 0]], Some(&mut log)).unwrap_err();
    assert_eq!(error, rustix::io::Errno::ACCESS);
    assert!(String::from_utf8_lossy(&log).contains("R0 !read_ok"));
}

fn resources(json: &str) -> oci_spec::runtime::LinuxResources {
    serde_json::from_str(json).unwrap()
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT with cpu, memory and pids"]
fn a_memory_limit_kills_and_is_counted() {
    let cgroup = fixture("memory");
    let warnings =
        cgroup.0.apply(&resources(r#"{"memory": {"limit": 16777216, "swap": 16777216}}"#)).unwrap();
    assert!(warnings.len() <= 1, "{warnings:?}");
    let hungry = "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null";
    assert!(!shell(&cgroup.0, hungry).wait().unwrap().success());
    assert_eq!(cgroup.0.oom_kill_count().unwrap(), 1);
    let memory = cgroup.0.stats().unwrap().memory;
    assert_eq!(memory.usage.limit, Some(16 << 20));
    assert!(memory.usage.failures > 0 && memory.usage.max_usage > 8 << 20, "{memory:?}");
    assert!(memory.stat.contains_key("anon"));

    cgroup.0.apply(&resources(r#"{"memory": {"limit": 134217728}}"#)).unwrap();
    assert!(shell(&cgroup.0, hungry).wait().unwrap().success());
    cgroup.0.apply(&resources(r#"{"memory": {"limit": -1}}"#)).unwrap();
    assert_eq!(cgroup.0.stats().unwrap().memory.usage.limit, None);
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT with cpu, memory and pids"]
fn a_pids_limit_stops_forks() {
    let cgroup = fixture("pids");
    cgroup.0.apply(&resources(r#"{"pids": {"limit": 3}}"#)).unwrap();
    let mut child = shell(&cgroup.0, "sleep 1000 & sleep 1000 & sleep 1000 & wait");
    assert!(!child.wait().unwrap().success());
    assert_eq!(cgroup.0.stats().unwrap().pids.limit, Some(3));
    cgroup.0.kill().unwrap();
    cgroup.0.apply(&resources(r#"{"pids": {"limit": 0}}"#)).unwrap();
    assert_eq!(cgroup.0.stats().unwrap().pids.limit, None);
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT with cpu, memory and pids"]
fn a_cpu_quota_throttles() {
    let cgroup = fixture("quota");
    let quota = r#"{"cpu": {"shares": 512, "quota": 10000, "period": 100000, "burst": 5000}}"#;
    cgroup.0.apply(&resources(quota)).unwrap();
    cgroup.0.apply(&resources(quota)).unwrap();
    let file = |name: &str| fs::read_to_string(cgroup.0.path().join(name)).unwrap();
    assert_eq!((file("cpu.max").trim(), file("cpu.weight").trim()), ("10000 100000", "20"));
    let mut child = shell(&cgroup.0, "while :; do :; done");
    until(|| cgroup.0.stats().unwrap().cpu.throttled_periods > 2);
    assert!(cgroup.0.stats().unwrap().cpu.throttled_ns > 0);
    cgroup.0.kill().unwrap();
    child.wait().unwrap();

    let error = cgroup.0.apply(&resources(r#"{"cpu": {"quota": 1}}"#)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
    assert!(
        error.to_string().contains("write \"1\" to") && error.to_string().ends_with("cpu.max"),
        "{error}"
    );
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT with every controller"]
fn the_kernel_takes_what_the_plan_writes() {
    let cgroup = fixture("all");
    let json = r#"{
        "cpu": {"shares": 2048, "idle": 0, "cpus": "0", "mems": "0"},
        "memory": {"limit": 67108864, "reservation": 33554432, "swap": 100663296},
        "pids": {"limit": 32},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "128KB", "limit": 0}],
        "blockIO": {"weight": 500},
        "unified": {"memory.oom.group": "1", "pids.max": "9", "cgroup.max.depth": "3"}
    }"#;
    let warnings = cgroup.0.apply(&resources(json)).unwrap();
    let file =
        |name: &str| fs::read_to_string(cgroup.0.path().join(name)).unwrap_or_default().trim().to_owned();
    for (name, value) in [
        ("cpu.weight", "79"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.swap.max", "33554432"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("io.weight", "default 4950"),
        ("memory.oom.group", "1"),
        ("pids.max", "9"),
        ("cgroup.max.depth", "3"),
    ] {
        assert_eq!(file(name), value, "{name}");
    }
    // No processor has huge pages of 128 KiB.
    assert_eq!(warnings.len(), 1, "{warnings:?}");

    cgroup.0.apply(&resources(r#"{"cpu": {"idle": 1, "shares": 2048}}"#)).unwrap();
    assert_eq!(file("cpu.idle"), "1");
    assert_eq!(cgroup.0.stats().unwrap().hugetlb["2MB"].limit, Some(4 << 20));

    let error = cgroup.0.apply(&resources(r#"{"cpu": {"cpus": "900-901"}}"#)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid, "{error}");
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT with cpu, memory and pids"]
fn a_controller_kept_back_is_named_with_who_keeps_it() {
    let pod = fixture("refused");
    let mut child = shell(&pod.0, "sleep 1000");
    until(|| pod.0.populated().unwrap());
    // A cgroup with processes hands no domain controller down.
    let path = CgroupPath::parse(&format!("{}/inner", pod.0.path), "").unwrap();
    let inner = Cgroup::create(&root(), &path).unwrap();
    let error = inner.apply(&resources(r#"{"memory": {"limit": 67108864}}"#)).unwrap_err();
    assert!(error.to_string().contains("memory") && error.to_string().contains("/pod/c1"), "{error}");
    assert_eq!(error.class(), ErrorClass::Unsupported);
    inner.remove(SOON).unwrap();
    pod.0.kill().unwrap();
    child.wait().unwrap();
}

#[test]
#[ignore = "needs root and PITH_CGROUP_ROOT with cpu, memory and pids"]
fn containers_come_and_go_side_by_side() {
    let pod = format!("/pith-test-{}-crowd/pod", std::process::id());
    std::thread::scope(|scope| {
        for container in 0..4 {
            let pod = &pod;
            scope.spawn(move || {
                let path = CgroupPath::parse(&format!("{pod}/c{container}"), "").unwrap();
                for _ in 0..100 {
                    // Each is the first and the last of the pod now and then.
                    let cgroup = Cgroup::create(&root(), &path).unwrap();
                    assert!(cgroup.has_controller(Controller::Cpu).unwrap());
                    cgroup.remove(SOON).unwrap();
                }
            });
        }
    });
    assert!(!root().join(pod.trim_start_matches('/')).parent().unwrap().exists());
}
