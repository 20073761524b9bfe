//! Resource limits: of a container's spec, and alone in an update.

use oci_spec::runtime::{self, LinuxDeviceType};

use super::{BUILDER_DEFAULTS, SpecError, in_range, list, message, nonzero, parse, repeated, text, try_list};
use crate::oci;

/// How a device rule says "every number" on the wire.
const EVERY: i64 = -1;

pub(super) fn from_wire(
    field: &str,
    wire: &oci::LinuxResources,
) -> Result<runtime::LinuxResources, SpecError> {
    let mut resources = runtime::LinuxResources::default();
    resources
        .set_devices(try_list(&wire.Devices, |i, wire| device_rule_from_wire(field, i, wire))?)
        .set_memory(wire.Memory.as_ref().map(memory_from_wire))
        .set_cpu(wire.CPU.as_ref().map(cpu_from_wire))
        .set_pids(wire.Pids.as_ref().map(|wire| {
            let mut pids = runtime::LinuxPids::default();
            pids.set_limit(wire.Limit);
            pids
        }))
        .set_block_io(wire.BlockIO.as_ref().map(|wire| block_io_from_wire(field, wire)).transpose()?)
        .set_hugepage_limits(try_list(&wire.HugepageLimits, |i, wire| hugepages_from_wire(field, i, wire))?)
        .set_network(wire.Network.as_ref().map(network_from_wire));
    Ok(resources)
}

/// Puts resource limits on the wire, for a client that makes an update.
///
/// `unified`, `rdma`, `cpu.idle`, `cpu.burst` and `memory.checkBeforeUpdate` have no field there and stay behind.
pub fn to_wire(resources: &runtime::LinuxResources) -> oci::LinuxResources {
    oci::LinuxResources {
        Devices: repeated(resources.devices(), device_rule_to_wire),
        Memory: message(resources.memory().as_ref(), memory_to_wire),
        CPU: message(resources.cpu().as_ref(), cpu_to_wire),
        Pids: message(resources.pids().as_ref(), |pids| oci::LinuxPids {
            Limit: pids.limit(),
            ..Default::default()
        }),
        BlockIO: message(resources.block_io().as_ref(), block_io_to_wire),
        HugepageLimits: repeated(resources.hugepage_limits(), |pages| oci::LinuxHugepageLimit {
            Pagesize: pages.page_size().clone(),
            Limit: pages.limit().cast_unsigned(),
            ..Default::default()
        }),
        Network: message(resources.network().as_ref(), network_to_wire),
        ..Default::default()
    }
}

pub(super) fn device_type(field: impl FnOnce() -> String, wire: &str) -> Result<LinuxDeviceType, SpecError> {
    parse(field, wire, "a device type (a, b, c, u or p)")
}

pub(super) fn device_type_text(typ: LinuxDeviceType) -> &'static str {
    match typ {
        LinuxDeviceType::A => "a",
        LinuxDeviceType::B => "b",
        LinuxDeviceType::C => "c",
        LinuxDeviceType::U => "u",
        LinuxDeviceType::P => "p",
    }
}

fn device_rule_from_wire(
    field: &str,
    i: usize,
    wire: &oci::LinuxDeviceCgroup,
) -> Result<runtime::LinuxDeviceCgroup, SpecError> {
    let typ =
        text(&wire.Type).map(|typ| device_type(|| format!("{field}.devices[{i}].type"), &typ)).transpose()?;
    let major = in_range(|| format!("{field}.devices[{i}].major"), wire.Major, EVERY, i64::MAX)?;
    let minor = in_range(|| format!("{field}.devices[{i}].minor"), wire.Minor, EVERY, i64::MAX)?;
    // No device has major 0, so it stands for an absent number; minor 0 is real beside a real major.
    let zero_is_absent = matches!(typ, None | Some(LinuxDeviceType::A)) || major == 0;
    let number = |value| (value != EVERY && !(value == 0 && zero_is_absent)).then_some(value);
    let mut rule = runtime::LinuxDeviceCgroup::default();
    rule.set_allow(wire.Allow)
        .set_typ(typ)
        .set_major(number(major))
        .set_minor(number(minor))
        .set_access(text(&wire.Access));
    Ok(rule)
}

fn device_rule_to_wire(rule: &runtime::LinuxDeviceCgroup) -> oci::LinuxDeviceCgroup {
    oci::LinuxDeviceCgroup {
        Allow: rule.allow(),
        Type: rule.typ().map(device_type_text).unwrap_or_default().to_owned(),
        Major: rule.major().unwrap_or(EVERY),
        Minor: rule.minor().unwrap_or(EVERY),
        Access: rule.access().clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn memory_from_wire(wire: &oci::LinuxMemory) -> runtime::LinuxMemory {
    let mut memory = runtime::LinuxMemory::default();
    memory
        .set_limit(nonzero(wire.Limit))
        .set_reservation(nonzero(wire.Reservation))
        .set_swap(nonzero(wire.Swap))
        .set_kernel(nonzero(wire.Kernel))
        .set_kernel_tcp(nonzero(wire.KernelTCP))
        .set_swappiness(nonzero(wire.Swappiness))
        .set_disable_oom_killer(nonzero(wire.DisableOOMKiller));
    memory
}

fn memory_to_wire(memory: &runtime::LinuxMemory) -> oci::LinuxMemory {
    oci::LinuxMemory {
        Limit: memory.limit().unwrap_or_default(),
        Reservation: memory.reservation().unwrap_or_default(),
        Swap: memory.swap().unwrap_or_default(),
        Kernel: memory.kernel().unwrap_or_default(),
        KernelTCP: memory.kernel_tcp().unwrap_or_default(),
        Swappiness: memory.swappiness().unwrap_or_default(),
        DisableOOMKiller: memory.disable_oom_killer().unwrap_or_default(),
        ..Default::default()
    }
}

fn cpu_from_wire(wire: &oci::LinuxCPU) -> runtime::LinuxCpu {
    let mut cpu = runtime::LinuxCpu::default();
    cpu.set_shares(nonzero(wire.Shares))
        .set_quota(nonzero(wire.Quota))
        .set_period(nonzero(wire.Period))
        .set_realtime_runtime(nonzero(wire.RealtimeRuntime))
        .set_realtime_period(nonzero(wire.RealtimePeriod))
        .set_cpus(text(&wire.Cpus))
        .set_mems(text(&wire.Mems));
    cpu
}

fn cpu_to_wire(cpu: &runtime::LinuxCpu) -> oci::LinuxCPU {
    oci::LinuxCPU {
        Shares: cpu.shares().unwrap_or_default(),
        Quota: cpu.quota().unwrap_or_default(),
        Period: cpu.period().unwrap_or_default(),
        RealtimeRuntime: cpu.realtime_runtime().unwrap_or_default(),
        RealtimePeriod: cpu.realtime_period().unwrap_or_default(),
        Cpus: cpu.cpus().clone().unwrap_or_default(),
        Mems: cpu.mems().clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn block_io_from_wire(field: &str, wire: &oci::LinuxBlockIO) -> Result<runtime::LinuxBlockIo, SpecError> {
    let weight = |name: &str, value| weight_from_wire(|| format!("{field}.blockIO.{name}"), value);
    let weight_devices = try_list(&wire.WeightDevice, |i, wire| {
        let mut device = runtime::LinuxWeightDeviceBuilder::default()
            .major(number(|| format!("{field}.blockIO.weightDevice[{i}].major"), wire.Major)?)
            .minor(number(|| format!("{field}.blockIO.weightDevice[{i}].minor"), wire.Minor)?);
        if let Some(weight) = weight(&format!("weightDevice[{i}].weight"), wire.Weight)? {
            device = device.weight(weight);
        }
        if let Some(weight) = weight(&format!("weightDevice[{i}].leafWeight"), wire.LeafWeight)? {
            device = device.leaf_weight(weight);
        }
        Ok(device.build().expect(BUILDER_DEFAULTS))
    })?;
    let throttles = |name: &str, wire: &[oci::LinuxThrottleDevice]| {
        try_list(wire, |i, wire| {
            let device = runtime::LinuxThrottleDeviceBuilder::default()
                .major(number(|| format!("{field}.blockIO.{name}[{i}].major"), wire.Major)?)
                .minor(number(|| format!("{field}.blockIO.{name}[{i}].minor"), wire.Minor)?)
                .rate(wire.Rate);
            Ok(device.build().expect(BUILDER_DEFAULTS))
        })
    };
    let mut block_io = runtime::LinuxBlockIo::default();
    block_io
        .set_weight(weight("weight", wire.Weight)?)
        .set_leaf_weight(weight("leafWeight", wire.LeafWeight)?)
        .set_weight_device(weight_devices)
        .set_throttle_read_bps_device(throttles("throttleReadBpsDevice", &wire.ThrottleReadBpsDevice)?)
        .set_throttle_write_bps_device(throttles("throttleWriteBpsDevice", &wire.ThrottleWriteBpsDevice)?)
        .set_throttle_read_iops_device(throttles("throttleReadIOPSDevice", &wire.ThrottleReadIOPSDevice)?)
        .set_throttle_write_iops_device(throttles("throttleWriteIOPSDevice", &wire.ThrottleWriteIOPSDevice)?);
    Ok(block_io)
}

fn block_io_to_wire(block_io: &runtime::LinuxBlockIo) -> oci::LinuxBlockIO {
    let throttle = |device: &runtime::LinuxThrottleDevice| oci::LinuxThrottleDevice {
        Major: device.major(),
        Minor: device.minor(),
        Rate: device.rate(),
        ..Default::default()
    };
    oci::LinuxBlockIO {
        Weight: block_io.weight().unwrap_or_default().into(),
        LeafWeight: block_io.leaf_weight().unwrap_or_default().into(),
        WeightDevice: repeated(block_io.weight_device(), |device| oci::LinuxWeightDevice {
            Major: device.major(),
            Minor: device.minor(),
            Weight: device.weight().unwrap_or_default().into(),
            LeafWeight: device.leaf_weight().unwrap_or_default().into(),
            ..Default::default()
        }),
        ThrottleReadBpsDevice: repeated(block_io.throttle_read_bps_device(), throttle),
        ThrottleWriteBpsDevice: repeated(block_io.throttle_write_bps_device(), throttle),
        ThrottleReadIOPSDevice: repeated(block_io.throttle_read_iops_device(), throttle),
        ThrottleWriteIOPSDevice: repeated(block_io.throttle_write_iops_device(), throttle),
        ..Default::default()
    }
}

/// A weight is 32 bits on the wire and 16 in the OCI spec.
fn weight_from_wire(field: impl FnOnce() -> String, wire: u32) -> Result<Option<u16>, SpecError> {
    Ok(nonzero(in_range(field, wire, 0, u16::MAX)?))
}

fn number(field: impl FnOnce() -> String, wire: i64) -> Result<i64, SpecError> {
    in_range(field, wire, 0, i64::MAX)
}

fn hugepages_from_wire(
    field: &str,
    i: usize,
    wire: &oci::LinuxHugepageLimit,
) -> Result<runtime::LinuxHugepageLimit, SpecError> {
    // "No limit" is -1 in the OCI type, which an unsigned field carries as all ones.
    let limit = match wire.Limit {
        u64::MAX => -1,
        bytes => in_range(|| format!("{field}.hugepageLimits[{i}].limit"), bytes, 0, i64::MAX)?,
    };
    let mut pages = runtime::LinuxHugepageLimit::default();
    pages.set_page_size(wire.Pagesize.clone()).set_limit(limit);
    Ok(pages)
}

fn network_from_wire(wire: &oci::LinuxNetwork) -> runtime::LinuxNetwork {
    let mut network = runtime::LinuxNetwork::default();
    network.set_class_id(nonzero(wire.ClassID)).set_priorities(list(&wire.Priorities, |wire| {
        let mut priority = runtime::LinuxInterfacePriority::default();
        priority.set_name(wire.Name.clone()).set_priority(wire.Priority);
        priority
    }));
    network
}

fn network_to_wire(network: &runtime::LinuxNetwork) -> oci::LinuxNetwork {
    oci::LinuxNetwork {
        ClassID: network.class_id().unwrap_or_default(),
        Priorities: repeated(network.priorities(), |priority| oci::LinuxInterfacePriority {
            Name: priority.name().clone(),
            Priority: priority.priority(),
            ..Default::default()
        }),
        ..Default::default()
    }
}
