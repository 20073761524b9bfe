//! Block device weights and throttles.
//!
//! Owns: OCI `blockIO` as `io.weight` (or BFQ's) and `io.max` lines. Promises: one `io.max` line per device, with every
//! rate given for it; a device's own weight, not the default one. Must never: look a device up.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::Error;
use super::limits::{Absent, Now, Plan};

pub(super) fn plan(block_io: &LinuxBlockIo, now: &Now, plan: &mut Plan) -> Result<(), Error> {
    // BFQ has files of its own as long as it schedules a device; else the kernel's io.cost model takes the weights.
    let (file, scale): (_, fn(u16) -> u64) =
        if now.has_bfq { ("io.bfq.weight", u64::from) } else { ("io.weight", cost_weight) };
    if let Some(weight) = weight("blockIO.weight", block_io.weight())? {
        plan.set(file, format!("default {}", scale(weight)), Absent::Refuse);
    }
    for device in block_io.weight_device().iter().flatten() {
        let field = "blockIO.weightDevice";
        let number = device_number(field, device.major(), device.minor())?;
        if let Some(weight) = weight(field, device.weight())? {
            plan.set(file, format!("{number} {}", scale(weight)), Absent::Refuse);
        }
    }
    let leaf_weights = block_io.weight_device().iter().flatten().filter_map(|device| device.leaf_weight());
    if block_io.leaf_weight().into_iter().chain(leaf_weights).any(|weight| weight != 0) {
        plan.warn("blockIO.leafWeight: cgroup v2 has none");
    }
    plan_throttles(block_io, plan)
}

fn plan_throttles(block_io: &LinuxBlockIo, plan: &mut Plan) -> Result<(), Error> {
    let lists: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("rbps", "blockIO.throttleReadBpsDevice", block_io.throttle_read_bps_device()),
        ("wbps", "blockIO.throttleWriteBpsDevice", block_io.throttle_write_bps_device()),
        ("riops", "blockIO.throttleReadIOPSDevice", block_io.throttle_read_iops_device()),
        ("wiops", "blockIO.throttleWriteIOPSDevice", block_io.throttle_write_iops_device()),
    ];
    let mut lines: BTreeMap<String, String> = BTreeMap::new();
    for (key, field, list) in lists {
        for device in list.iter().flatten() {
            let number = device_number(field, device.major(), device.minor())?;
            // A rate of 0 lifted the limit on v1.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            *lines.entry(number).or_default() += &format!(" {key}={rate}");
        }
    }
    for (number, rates) in lines {
        plan.set("io.max", format!("{number}{rates}"), Absent::Refuse);
    }
    Ok(())
}

/// OCI's weights are BFQ's: 10 to 1000, and 0 for unset.
fn weight(field: &str, weight: Option<u16>) -> Result<Option<u16>, Error> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => Err(Error::resource(field, format!("weight {weight} is not within 10 and 1000"))),
    }
}

/// 10 to 1000 as `io.weight`'s 1 to 10000.
fn cost_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

fn device_number(field: &str, major: i64, minor: i64) -> Result<String, Error> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(Error::resource(field, format!("{major}:{minor} is no device number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str, has_bfq: bool) -> Result<Plan, Error> {
        let mut planned = Plan::default();
        let now = Now { has_bfq, ..Now::default() };
        plan(&serde_json::from_str(json).unwrap(), &now, &mut planned).map(|()| planned)
    }

    fn writes(json: &str, has_bfq: bool) -> Vec<String> {
        let planned = planned(json, has_bfq).unwrap();
        planned.settings.iter().map(|setting| format!("{}={}", setting.file, setting.value)).collect()
    }

    #[test]
    fn a_device_keeps_its_own_weight() {
        let json = r#"{"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10},
                       {"major": 8, "minor": 16, "weight": 1000}]}"#;
        assert_eq!(
            writes(json, true),
            ["io.bfq.weight=default 500", "io.bfq.weight=8:0 10", "io.bfq.weight=8:16 1000"]
        );
        assert_eq!(
            writes(json, false),
            ["io.weight=default 4950", "io.weight=8:0 1", "io.weight=8:16 10000"]
        );
    }

    #[test]
    fn the_rates_of_a_device_share_a_line() {
        let json = r#"{"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
                       "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 10},
                                                   {"major": 253, "minor": 1, "rate": 0}]}"#;
        assert_eq!(writes(json, false), ["io.max=253:1 wiops=max", "io.max=8:0 rbps=1048576 wiops=10"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for json in [
            r#"{"weight": 9}"#,
            r#"{"weight": 1001}"#,
            r#"{"weightDevice": [{"major": -1, "minor": 0, "weight": 10}]}"#,
            r#"{"throttleReadBpsDevice": [{"major": 8, "minor": 4294967296, "rate": 1}]}"#,
        ] {
            assert!(matches!(planned(json, false), Err(Error::Resource { .. })), "{json}");
        }
    }

    #[test]
    fn a_leaf_weight_is_warned_of() {
        let planned = planned(r#"{"leafWeight": 100}"#, false).unwrap();
        assert_eq!((planned.settings.len(), planned.warnings.len()), (0, 1));
        assert_eq!(writes(r#"{"weight": 0, "leafWeight": 0}"#, false), [""; 0]);
    }
}
