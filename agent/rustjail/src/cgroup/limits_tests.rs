//! Tests of [`super`]: the plan as a list of writes, and its execution on a tree of plain files.

use std::fs;

use oci_spec::runtime::LinuxResources;
use proptest::prelude::*;

use super::super::{CgroupPath, ErrorClass};
use super::*;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn writes_at(json: &str, now: &Now) -> Vec<String> {
    let plan = plan(&resources(json), now).unwrap();
    plan.settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
}

fn writes(json: &str) -> Vec<String> {
    writes_at(json, &Now::default())
}

fn cgroup_with(files: &[&str]) -> (tempfile::TempDir, Cgroup) {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("c1")).unwrap();
    for name in files {
        fs::write(tree.path().join("c1").join(name), "max\n").unwrap();
    }
    let cgroup = Cgroup::open(tree.path(), &CgroupPath::parse("c1", "").unwrap()).unwrap();
    (tree, cgroup)
}

#[test]
fn shares_become_a_weight() {
    assert_eq!(weight_of_shares(0), 1);
    assert_eq!(weight_of_shares(1), 1);
    assert_eq!(weight_of_shares(2), 1);
    assert_eq!(weight_of_shares(1024), 39);
    assert_eq!(weight_of_shares(262_144), 10_000);
    assert_eq!(weight_of_shares(u64::MAX), 10_000);
    assert_eq!(writes(r#"{"cpu": {"shares": 0}}"#), [""; 0]);
    assert_eq!(writes(r#"{"cpu": {"shares": 2048}}"#), ["cpu.weight=79"]);
}

#[test]
fn quota_and_period_make_cpu_max() {
    assert_eq!(writes(r#"{"cpu": {"quota": 50000, "period": 100000}}"#), ["cpu.max=50000 100000"]);
    assert_eq!(writes(r#"{"cpu": {"quota": 50000}}"#), ["cpu.max=50000"]);
    assert_eq!(writes(r#"{"cpu": {"quota": -1}}"#), ["cpu.max=max"]);
    assert_eq!(writes(r#"{"cpu": {"quota": 0, "period": 0}}"#), [""; 0]);
    // A new period must not lift the quota in force.
    let limited = Now { cpu_quota: Some(20_000), ..Now::default() };
    assert_eq!(writes_at(r#"{"cpu": {"period": 50000}}"#, &limited), ["cpu.max=20000 50000"]);
    assert_eq!(writes(r#"{"cpu": {"period": 50000}}"#), ["cpu.max=max 50000"]);
}

#[test]
fn a_burst_is_never_above_the_quota() {
    assert_eq!(
        writes(r#"{"cpu": {"quota": 50000, "burst": 20000}}"#),
        ["cpu.max.burst=0", "cpu.max=50000", "cpu.max.burst=20000"]
    );
    assert_eq!(writes(r#"{"cpu": {"burst": 0}}"#), ["cpu.max.burst=0"]);
}

#[test]
fn an_idle_cgroup_has_no_weight() {
    let plan = plan(&resources(r#"{"cpu": {"idle": 1, "shares": 512}}"#), &Now::default()).unwrap();
    assert_eq!(plan.settings.len(), 1);
    assert_eq!(plan.warnings.len(), 1);
    assert_eq!(writes(r#"{"cpu": {"idle": 0, "shares": 512}}"#), ["cpu.idle=0", "cpu.weight=20"]);
    assert!(super::plan(&resources(r#"{"cpu": {"idle": 2}}"#), &Now::default()).is_err());
}

#[test]
fn sets_of_cpus_and_nodes() {
    assert_eq!(writes(r#"{"cpu": {"cpus": "0-1", "mems": "0"}}"#), ["cpuset.cpus=0-1", "cpuset.mems=0"]);
    assert_eq!(writes(r#"{"cpu": {"cpus": "", "mems": " "}}"#), [""; 0]);
}

#[test]
fn pids_without_a_limit_are_unlimited() {
    assert_eq!(writes(r#"{"pids": {"limit": 32}}"#), ["pids.max=32"]);
    assert_eq!(writes(r#"{"pids": {"limit": 0}}"#), ["pids.max=max"]);
    assert_eq!(writes(r#"{"pids": {"limit": -1}}"#), ["pids.max=max"]);
}

#[test]
fn huge_pages() {
    assert_eq!(
        writes(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#),
        ["hugetlb.2MB.max=4194304", "hugetlb.2MB.rsvd.max=4194304"]
    );
    for size in ["", "MB", "2", "../2MB", "2M", "2 MB"] {
        let json = format!(r#"{{"hugepageLimits": [{{"pageSize": "{size}", "limit": 1}}]}}"#);
        assert!(plan(&resources(&json), &Now::default()).is_err(), "{size:?}");
    }
}

#[test]
fn rdma_by_device() {
    let json = r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaObjects": 5}, "x": {}}}"#;
    assert_eq!(
        writes(json),
        ["rdma.max=mlx4_0 hca_object=5", "rdma.max=mlx5_1 hca_handle=3 hca_object=10000"]
    );
}

#[test]
fn unified_has_the_last_word_and_keeps_out_of_the_runtimes_files() {
    assert_eq!(
        writes(
            r#"{"unified": {"pids.max": "7", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}, "pids": {"limit": 32}}"#
        ),
        ["pids.max=32", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "pids.max=7"]
    );
    for file in ["cgroup.procs", "cgroup.kill", "cgroup.subtree_control", "../x.y", "memory", "", ".x"] {
        let json = format!(r#"{{"unified": {{"{file}": "1"}}}}"#);
        assert!(plan(&resources(&json), &Now::default()).is_err(), "{file:?}");
    }
    assert_eq!(writes(r#"{"unified": {"cgroup.max.depth": "2"}}"#), ["cgroup.max.depth=2"]);
}

#[test]
fn the_plan_is_carried_out() {
    let (tree, cgroup) = cgroup_with(&["memory.max", "memory.swap.max", "pids.max", "cgroup.controllers"]);
    let warnings = cgroup
        .apply(&resources(
            r#"{"memory": {"limit": 1000, "swap": 1500, "swappiness": 1}, "pids": {"limit": 5}}"#,
        ))
        .unwrap();
    let text = |name: &str| fs::read_to_string(tree.path().join("c1").join(name)).unwrap();
    assert_eq!((text("memory.max").as_str(), text("memory.swap.max").as_str()), ("1000", "500"));
    assert_eq!(text("pids.max"), "5");
    assert_eq!(warnings.len(), 1);
    // The second time it is live: swap counts from the 1000 now in force.
    cgroup.apply(&resources(r#"{"memory": {"swap": 1200}}"#)).unwrap();
    assert_eq!(text("memory.swap.max"), "200");
}

#[test]
fn a_wrong_value_stops_everything_before_the_first_write() {
    let (tree, cgroup) = cgroup_with(&["pids.max", "cpu.weight"]);
    let error = cgroup
        .apply(&resources(r#"{"cpu": {"shares": 5}, "pids": {"limit": 5}, "unified": {"x": "1"}}"#))
        .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert_eq!(fs::read_to_string(tree.path().join("c1/cpu.weight")).unwrap(), "max\n");
}

#[test]
fn a_limit_without_its_controller_is_an_error_and_no_limit_is_not() {
    let (tree, cgroup) = cgroup_with(&["cgroup.controllers"]);
    fs::write(tree.path().join("c1/cgroup.controllers"), "cpu memory\n").unwrap();
    for (json, says) in [
        (r#"{"pids": {"limit": 5}}"#, "CONFIG_CGROUP_PIDS"),
        (r#"{"cpu": {"cpus": "0"}}"#, "CONFIG_CPUSETS"),
        (r#"{"cpu": {"quota": 1000}}"#, "CONFIG_CFS_BANDWIDTH"),
        (r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}"#, "CONFIG_CGROUP_HUGETLB"),
        (r#"{"unified": {"misc.max": "x 1"}}"#, "CONFIG_CGROUP_MISC"),
    ] {
        let error = cgroup.apply(&resources(json)).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Unsupported, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let harmless = r#"{"pids": {"limit": 0}, "cpu": {"quota": -1, "period": 100000}, "memory": {"limit": -1},
                       "hugepageLimits": [{"pageSize": "1GB", "limit": 0}]}"#;
    let warnings = cgroup.apply(&resources(harmless)).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].to_string().contains("hugetlb.1GB.max"), "{}", warnings[0]);
}

#[test]
fn a_size_of_huge_pages_that_does_not_exist_says_which_do() {
    let (tree, cgroup) = cgroup_with(&["cgroup.controllers", "hugetlb.2MB.max", "hugetlb.1GB.max"]);
    fs::write(tree.path().join("c1/cgroup.controllers"), "hugetlb memory\n").unwrap();
    let json = r#"{"hugepageLimits": [{"pageSize": "64KB", "limit": 65536}]}"#;
    let error = cgroup.apply(&resources(json)).unwrap_err();
    assert!(error.to_string().ends_with("; there are none"), "{error}");
    for name in ["hugetlb.2MB.current", "hugetlb.2MB.rsvd.current", "hugetlb.1GB.current"] {
        fs::write(tree.path().join("c1").join(name), "0\n").unwrap();
    }
    let error = cgroup.apply(&resources(json)).unwrap_err();
    assert_eq!(error.class(), ErrorClass::Invalid);
    assert!(error.to_string().contains("64KB") && error.to_string().contains("are 1GB, 2MB"), "{error}");
}

proptest! {
    #[test]
    fn any_number_is_planned_or_refused(
        shares in any::<u64>(), quota in any::<i64>(), period in any::<u64>(), limit in any::<i64>(),
        swap in any::<i64>(), reservation in any::<i64>(), pids in any::<i64>(),
    ) {
        let json = format!(
            r#"{{"cpu": {{"shares": {shares}, "quota": {quota}, "period": {period}}}, "pids": {{"limit": {pids}}},
                "memory": {{"limit": {limit}, "swap": {swap}, "reservation": {reservation}}}}}"#
        );
        if let Ok(plan) = plan(&resources(&json), &Now::default()) {
            for Setting { file, value, .. } in plan.settings {
                prop_assert!(!value.is_empty() && !value.contains('-'), "{}={}", file, value);
            }
        }
    }

    #[test]
    fn weights_keep_their_order(a in 0u64..300_000, b in 0u64..300_000) {
        let (low, high) = (a.min(b), a.max(b));
        prop_assert!(weight_of_shares(low) <= weight_of_shares(high));
        prop_assert!((1..=10_000).contains(&weight_of_shares(a)));
    }
}
