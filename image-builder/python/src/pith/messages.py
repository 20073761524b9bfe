"""The messages of the agent's API. Written by generate.py; do not edit."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import ClassVar

from ._codec import Field, Message, Shape


class ServingStatus(enum.IntEnum):
    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2


class IPFamily(enum.IntEnum):
    v4 = 0
    v6 = 1


class FSGroupChangePolicy(enum.IntEnum):
    Always = 0
    OnRootMismatch = 1


class Unit(enum.IntEnum):
    UNKNOWN = 0
    BYTES = 1
    INODES = 2


@dataclass
class Empty(Message):
    pass


@dataclass
class CreateContainerRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    string_user: StringUser | None = None
    devices: list[Device] = field(default_factory=list)
    storages: list[Storage] = field(default_factory=list)
    OCI: Spec | None = None
    sandbox_pidns: bool = False
    shared_mounts: list[SharedMount] = field(default_factory=list)
    stdin_port: int = 0
    stdout_port: int = 0
    stderr_port: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
        Field(3, "string_user", "StringUser", Shape.OPTIONAL),
        Field(4, "devices", "Device", Shape.LIST),
        Field(5, "storages", "Storage", Shape.LIST),
        Field(6, "OCI", "Spec", Shape.OPTIONAL),
        Field(7, "sandbox_pidns", "bool"),
        Field(8, "shared_mounts", "SharedMount", Shape.LIST),
        Field(9, "stdin_port", "uint32"),
        Field(10, "stdout_port", "uint32"),
        Field(11, "stderr_port", "uint32"),
    )


@dataclass
class StartContainerRequest(Message):
    container_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
    )


@dataclass
class RemoveContainerRequest(Message):
    container_id: str = ""
    timeout: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "timeout", "uint32"),
    )


@dataclass
class ExecProcessRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    string_user: StringUser | None = None
    process: Process | None = None
    stdin_port: int = 0
    stdout_port: int = 0
    stderr_port: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
        Field(3, "string_user", "StringUser", Shape.OPTIONAL),
        Field(4, "process", "Process", Shape.OPTIONAL),
        Field(5, "stdin_port", "uint32"),
        Field(6, "stdout_port", "uint32"),
        Field(7, "stderr_port", "uint32"),
    )


@dataclass
class SignalProcessRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    signal: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
        Field(3, "signal", "uint32"),
    )


@dataclass
class WaitProcessRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
    )


@dataclass
class WaitProcessResponse(Message):
    status: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "status", "int32"),
    )


@dataclass
class UpdateContainerRequest(Message):
    container_id: str = ""
    resources: LinuxResources | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "resources", "LinuxResources", Shape.OPTIONAL),
    )


@dataclass
class StatsContainerRequest(Message):
    container_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
    )


@dataclass
class PauseContainerRequest(Message):
    container_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
    )


@dataclass
class ResumeContainerRequest(Message):
    container_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
    )


@dataclass
class CpuUsage(Message):
    total_usage: int = 0
    percpu_usage: list[int] = field(default_factory=list)
    usage_in_kernelmode: int = 0
    usage_in_usermode: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "total_usage", "uint64"),
        Field(2, "percpu_usage", "uint64", Shape.LIST),
        Field(3, "usage_in_kernelmode", "uint64"),
        Field(4, "usage_in_usermode", "uint64"),
    )


@dataclass
class ThrottlingData(Message):
    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "periods", "uint64"),
        Field(2, "throttled_periods", "uint64"),
        Field(3, "throttled_time", "uint64"),
    )


@dataclass
class CpuStats(Message):
    cpu_usage: CpuUsage | None = None
    throttling_data: ThrottlingData | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "cpu_usage", "CpuUsage", Shape.OPTIONAL),
        Field(2, "throttling_data", "ThrottlingData", Shape.OPTIONAL),
    )


@dataclass
class PidsStats(Message):
    current: int = 0
    limit: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "current", "uint64"),
        Field(2, "limit", "uint64"),
    )


@dataclass
class MemoryData(Message):
    usage: int = 0
    max_usage: int = 0
    failcnt: int = 0
    limit: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "usage", "uint64"),
        Field(2, "max_usage", "uint64"),
        Field(3, "failcnt", "uint64"),
        Field(4, "limit", "uint64"),
    )


@dataclass
class MemoryStats(Message):
    cache: int = 0
    usage: MemoryData | None = None
    swap_usage: MemoryData | None = None
    kernel_usage: MemoryData | None = None
    use_hierarchy: bool = False
    stats: dict[str, int] = field(default_factory=dict)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "cache", "uint64"),
        Field(2, "usage", "MemoryData", Shape.OPTIONAL),
        Field(3, "swap_usage", "MemoryData", Shape.OPTIONAL),
        Field(4, "kernel_usage", "MemoryData", Shape.OPTIONAL),
        Field(5, "use_hierarchy", "bool"),
        Field(6, "stats", "uint64", Shape.MAP, "string"),
    )


@dataclass
class BlkioStatsEntry(Message):
    major: int = 0
    minor: int = 0
    op: str = ""
    value: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "major", "uint64"),
        Field(2, "minor", "uint64"),
        Field(3, "op", "string"),
        Field(4, "value", "uint64"),
    )


@dataclass
class BlkioStats(Message):
    io_service_bytes_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    io_serviced_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    io_queued_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    io_service_time_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    io_wait_time_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    io_merged_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    io_time_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    sectors_recursive: list[BlkioStatsEntry] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "io_service_bytes_recursive", "BlkioStatsEntry", Shape.LIST),
        Field(2, "io_serviced_recursive", "BlkioStatsEntry", Shape.LIST),
        Field(3, "io_queued_recursive", "BlkioStatsEntry", Shape.LIST),
        Field(4, "io_service_time_recursive", "BlkioStatsEntry", Shape.LIST),
        Field(5, "io_wait_time_recursive", "BlkioStatsEntry", Shape.LIST),
        Field(6, "io_merged_recursive", "BlkioStatsEntry", Shape.LIST),
        Field(7, "io_time_recursive", "BlkioStatsEntry", Shape.LIST),
        Field(8, "sectors_recursive", "BlkioStatsEntry", Shape.LIST),
    )


@dataclass
class HugetlbStats(Message):
    usage: int = 0
    max_usage: int = 0
    failcnt: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "usage", "uint64"),
        Field(2, "max_usage", "uint64"),
        Field(3, "failcnt", "uint64"),
    )


@dataclass
class CgroupStats(Message):
    cpu_stats: CpuStats | None = None
    memory_stats: MemoryStats | None = None
    pids_stats: PidsStats | None = None
    blkio_stats: BlkioStats | None = None
    hugetlb_stats: dict[str, HugetlbStats] = field(default_factory=dict)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "cpu_stats", "CpuStats", Shape.OPTIONAL),
        Field(2, "memory_stats", "MemoryStats", Shape.OPTIONAL),
        Field(3, "pids_stats", "PidsStats", Shape.OPTIONAL),
        Field(4, "blkio_stats", "BlkioStats", Shape.OPTIONAL),
        Field(5, "hugetlb_stats", "HugetlbStats", Shape.MAP, "string"),
    )


@dataclass
class NetworkStats(Message):
    name: str = ""
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "name", "string"),
        Field(2, "rx_bytes", "uint64"),
        Field(3, "rx_packets", "uint64"),
        Field(4, "rx_errors", "uint64"),
        Field(5, "rx_dropped", "uint64"),
        Field(6, "tx_bytes", "uint64"),
        Field(7, "tx_packets", "uint64"),
        Field(8, "tx_errors", "uint64"),
        Field(9, "tx_dropped", "uint64"),
    )


@dataclass
class StatsContainerResponse(Message):
    cgroup_stats: CgroupStats | None = None
    network_stats: list[NetworkStats] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "cgroup_stats", "CgroupStats", Shape.OPTIONAL),
        Field(2, "network_stats", "NetworkStats", Shape.LIST),
    )


@dataclass
class WriteStreamRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    data: bytes = b""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
        Field(3, "data", "bytes"),
    )


@dataclass
class WriteStreamResponse(Message):
    len: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "len", "uint32"),
    )


@dataclass
class ReadStreamRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    len: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
        Field(3, "len", "uint32"),
    )


@dataclass
class ReadStreamResponse(Message):
    data: bytes = b""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "data", "bytes"),
    )


@dataclass
class CloseStdinRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
    )


@dataclass
class TtyWinResizeRequest(Message):
    container_id: str = ""
    exec_id: str = ""
    row: int = 0
    column: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
        Field(2, "exec_id", "string"),
        Field(3, "row", "uint32"),
        Field(4, "column", "uint32"),
    )


@dataclass
class KernelModule(Message):
    name: str = ""
    parameters: list[str] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "name", "string"),
        Field(2, "parameters", "string", Shape.LIST),
    )


@dataclass
class CreateSandboxRequest(Message):
    hostname: str = ""
    dns: list[str] = field(default_factory=list)
    storages: list[Storage] = field(default_factory=list)
    sandbox_pidns: bool = False
    sandbox_id: str = ""
    guest_hook_path: str = ""
    kernel_modules: list[KernelModule] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "hostname", "string"),
        Field(2, "dns", "string", Shape.LIST),
        Field(3, "storages", "Storage", Shape.LIST),
        Field(4, "sandbox_pidns", "bool"),
        Field(5, "sandbox_id", "string"),
        Field(6, "guest_hook_path", "string"),
        Field(7, "kernel_modules", "KernelModule", Shape.LIST),
    )


@dataclass
class DestroySandboxRequest(Message):
    pass


@dataclass
class RemoveStaleVirtiofsShareMountsRequest(Message):
    pass


@dataclass
class Interfaces(Message):
    Interfaces: list[Interface] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Interfaces", "Interface", Shape.LIST),
    )


@dataclass
class Routes(Message):
    Routes: list[Route] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Routes", "Route", Shape.LIST),
    )


@dataclass
class UpdateInterfaceRequest(Message):
    interface: Interface | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "interface", "Interface", Shape.OPTIONAL),
    )


@dataclass
class UpdateRoutesRequest(Message):
    routes: Routes | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "routes", "Routes", Shape.OPTIONAL),
    )


@dataclass
class UpdateEphemeralMountsRequest(Message):
    storages: list[Storage] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "storages", "Storage", Shape.LIST),
    )


@dataclass
class ListInterfacesRequest(Message):
    pass


@dataclass
class ListRoutesRequest(Message):
    pass


@dataclass
class ARPNeighbors(Message):
    ARPNeighbors: list[ARPNeighbor] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "ARPNeighbors", "ARPNeighbor", Shape.LIST),
    )


@dataclass
class AddARPNeighborsRequest(Message):
    neighbors: ARPNeighbors | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "neighbors", "ARPNeighbors", Shape.OPTIONAL),
    )


@dataclass
class GetIPTablesRequest(Message):
    is_ipv6: bool = False
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "is_ipv6", "bool"),
    )


@dataclass
class GetIPTablesResponse(Message):
    data: bytes = b""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "data", "bytes"),
    )


@dataclass
class SetIPTablesRequest(Message):
    is_ipv6: bool = False
    data: bytes = b""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "is_ipv6", "bool"),
        Field(2, "data", "bytes"),
    )


@dataclass
class SetIPTablesResponse(Message):
    data: bytes = b""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "data", "bytes"),
    )


@dataclass
class OnlineCPUMemRequest(Message):
    wait: bool = False
    nb_cpus: int = 0
    cpu_only: bool = False
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "wait", "bool"),
        Field(2, "nb_cpus", "uint32"),
        Field(3, "cpu_only", "bool"),
    )


@dataclass
class ReseedRandomDevRequest(Message):
    data: bytes = b""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(2, "data", "bytes"),
    )


@dataclass
class AgentDetails(Message):
    version: str = ""
    init_daemon: bool = False
    device_handlers: list[str] = field(default_factory=list)
    storage_handlers: list[str] = field(default_factory=list)
    supports_seccomp: bool = False
    extra_features: list[str] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "version", "string"),
        Field(2, "init_daemon", "bool"),
        Field(3, "device_handlers", "string", Shape.LIST),
        Field(4, "storage_handlers", "string", Shape.LIST),
        Field(5, "supports_seccomp", "bool"),
        Field(6, "extra_features", "string", Shape.LIST),
    )


@dataclass
class GuestDetailsRequest(Message):
    mem_block_size: bool = False
    mem_hotplug_probe: bool = False
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "mem_block_size", "bool"),
        Field(2, "mem_hotplug_probe", "bool"),
    )


@dataclass
class GuestDetailsResponse(Message):
    mem_block_size_bytes: int = 0
    agent_details: AgentDetails | None = None
    support_mem_hotplug_probe: bool = False
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "mem_block_size_bytes", "uint64"),
        Field(2, "agent_details", "AgentDetails", Shape.OPTIONAL),
        Field(3, "support_mem_hotplug_probe", "bool"),
    )


@dataclass
class MemHotplugByProbeRequest(Message):
    memHotplugProbeAddr: list[int] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "memHotplugProbeAddr", "uint64", Shape.LIST),
    )


@dataclass
class SetGuestDateTimeRequest(Message):
    Sec: int = 0
    Usec: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Sec", "int64"),
        Field(2, "Usec", "int64"),
    )


@dataclass
class FSGroup(Message):
    group_id: int = 0
    group_change_policy: int = 0  #: a value of FSGroupChangePolicy
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(2, "group_id", "uint32"),
        Field(3, "group_change_policy", "int32"),
    )


@dataclass
class SharedMount(Message):
    name: str = ""
    src_ctr: str = ""
    src_path: str = ""
    dst_ctr: str = ""
    dst_path: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "name", "string"),
        Field(2, "src_ctr", "string"),
        Field(3, "src_path", "string"),
        Field(4, "dst_ctr", "string"),
        Field(5, "dst_path", "string"),
    )


@dataclass
class Storage(Message):
    driver: str = ""
    driver_options: list[str] = field(default_factory=list)
    source: str = ""
    fstype: str = ""
    options: list[str] = field(default_factory=list)
    mount_point: str = ""
    fs_group: FSGroup | None = None
    shared: bool = False
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "driver", "string"),
        Field(2, "driver_options", "string", Shape.LIST),
        Field(3, "source", "string"),
        Field(4, "fstype", "string"),
        Field(5, "options", "string", Shape.LIST),
        Field(6, "mount_point", "string"),
        Field(7, "fs_group", "FSGroup", Shape.OPTIONAL),
        Field(8, "shared", "bool"),
    )


@dataclass
class Device(Message):
    id: str = ""
    type: str = ""
    vm_path: str = ""
    container_path: str = ""
    options: list[str] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "id", "string"),
        Field(2, "type", "string"),
        Field(3, "vm_path", "string"),
        Field(4, "container_path", "string"),
        Field(5, "options", "string", Shape.LIST),
    )


@dataclass
class StringUser(Message):
    uid: str = ""
    gid: str = ""
    additionalGids: list[str] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "uid", "string"),
        Field(2, "gid", "string"),
        Field(3, "additionalGids", "string", Shape.LIST),
    )


@dataclass
class CopyFileRequest(Message):
    path: str = ""
    file_size: int = 0
    file_mode: int = 0
    dir_mode: int = 0
    uid: int = 0
    gid: int = 0
    offset: int = 0
    data: bytes = b""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "path", "string"),
        Field(2, "file_size", "int64"),
        Field(3, "file_mode", "uint32"),
        Field(4, "dir_mode", "uint32"),
        Field(5, "uid", "int32"),
        Field(6, "gid", "int32"),
        Field(7, "offset", "int64"),
        Field(8, "data", "bytes"),
    )


@dataclass
class GetOOMEventRequest(Message):
    pass


@dataclass
class OOMEvent(Message):
    container_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "container_id", "string"),
    )


@dataclass
class AddSwapRequest(Message):
    PCIPath: list[int] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "PCIPath", "uint32", Shape.LIST),
    )


@dataclass
class AddSwapPathRequest(Message):
    path: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "path", "string"),
    )


@dataclass
class GetMetricsRequest(Message):
    pass


@dataclass
class Metrics(Message):
    metrics: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "metrics", "string"),
    )


@dataclass
class VolumeStatsRequest(Message):
    volume_guest_path: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "volume_guest_path", "string"),
    )


@dataclass
class ResizeVolumeRequest(Message):
    volume_guest_path: str = ""
    size: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "volume_guest_path", "string"),
        Field(2, "size", "uint64"),
    )


@dataclass
class SetPolicyRequest(Message):
    policy: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "policy", "string"),
    )


@dataclass
class GetDiagnosticDataRequest(Message):
    log_type: str = ""
    container_id: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "log_type", "string"),
        Field(2, "container_id", "string"),
    )


@dataclass
class GetDiagnosticDataResponse(Message):
    data: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "data", "string"),
    )


@dataclass
class MemAgentMemcgConfig(Message):
    disabled: bool | None = None
    swap: bool | None = None
    swappiness_max: int | None = None
    period_secs: int | None = None
    period_psi_percent_limit: int | None = None
    eviction_psi_percent_limit: int | None = None
    eviction_run_aging_count_min: int | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "disabled", "bool", Shape.OPTIONAL),
        Field(2, "swap", "bool", Shape.OPTIONAL),
        Field(3, "swappiness_max", "uint32", Shape.OPTIONAL),
        Field(4, "period_secs", "uint64", Shape.OPTIONAL),
        Field(5, "period_psi_percent_limit", "uint32", Shape.OPTIONAL),
        Field(6, "eviction_psi_percent_limit", "uint32", Shape.OPTIONAL),
        Field(7, "eviction_run_aging_count_min", "uint64", Shape.OPTIONAL),
    )


@dataclass
class MemAgentCompactConfig(Message):
    disabled: bool | None = None
    period_secs: int | None = None
    period_psi_percent_limit: int | None = None
    compact_psi_percent_limit: int | None = None
    compact_sec_max: int | None = None
    compact_order: int | None = None
    compact_threshold: int | None = None
    compact_force_times: int | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "disabled", "bool", Shape.OPTIONAL),
        Field(2, "period_secs", "uint64", Shape.OPTIONAL),
        Field(3, "period_psi_percent_limit", "uint32", Shape.OPTIONAL),
        Field(4, "compact_psi_percent_limit", "uint32", Shape.OPTIONAL),
        Field(5, "compact_sec_max", "int64", Shape.OPTIONAL),
        Field(6, "compact_order", "uint32", Shape.OPTIONAL),
        Field(7, "compact_threshold", "uint64", Shape.OPTIONAL),
        Field(8, "compact_force_times", "uint64", Shape.OPTIONAL),
    )


@dataclass
class CheckRequest(Message):
    service: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "service", "string"),
    )


@dataclass
class HealthCheckResponse(Message):
    status: int = 0  #: a value of ServingStatus
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "status", "int32"),
    )


@dataclass
class VersionCheckResponse(Message):
    grpc_version: str = ""
    agent_version: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "grpc_version", "string"),
        Field(2, "agent_version", "string"),
    )


@dataclass
class Spec(Message):
    Version: str = ""
    Process: Process | None = None
    Root: Root | None = None
    Hostname: str = ""
    Mounts: list[Mount] = field(default_factory=list)
    Hooks: Hooks | None = None
    Annotations: dict[str, str] = field(default_factory=dict)
    Linux: Linux | None = None
    Solaris: Solaris | None = None
    Windows: Windows | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Version", "string"),
        Field(2, "Process", "Process", Shape.OPTIONAL),
        Field(3, "Root", "Root", Shape.OPTIONAL),
        Field(4, "Hostname", "string"),
        Field(5, "Mounts", "Mount", Shape.LIST),
        Field(6, "Hooks", "Hooks", Shape.OPTIONAL),
        Field(7, "Annotations", "string", Shape.MAP, "string"),
        Field(8, "Linux", "Linux", Shape.OPTIONAL),
        Field(9, "Solaris", "Solaris", Shape.OPTIONAL),
        Field(10, "Windows", "Windows", Shape.OPTIONAL),
    )


@dataclass
class Process(Message):
    Terminal: bool = False
    ConsoleSize: Box | None = None
    User: User | None = None
    Args: list[str] = field(default_factory=list)
    Env: list[str] = field(default_factory=list)
    Cwd: str = ""
    Capabilities: LinuxCapabilities | None = None
    Rlimits: list[POSIXRlimit] = field(default_factory=list)
    NoNewPrivileges: bool = False
    ApparmorProfile: str = ""
    OOMScoreAdj: int = 0
    SelinuxLabel: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Terminal", "bool"),
        Field(2, "ConsoleSize", "Box", Shape.OPTIONAL),
        Field(3, "User", "User", Shape.OPTIONAL),
        Field(4, "Args", "string", Shape.LIST),
        Field(5, "Env", "string", Shape.LIST),
        Field(6, "Cwd", "string"),
        Field(7, "Capabilities", "LinuxCapabilities", Shape.OPTIONAL),
        Field(8, "Rlimits", "POSIXRlimit", Shape.LIST),
        Field(9, "NoNewPrivileges", "bool"),
        Field(10, "ApparmorProfile", "string"),
        Field(11, "OOMScoreAdj", "int64"),
        Field(12, "SelinuxLabel", "string"),
    )


@dataclass
class Box(Message):
    Height: int = 0
    Width: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Height", "uint32"),
        Field(2, "Width", "uint32"),
    )


@dataclass
class User(Message):
    UID: int = 0
    GID: int = 0
    AdditionalGids: list[int] = field(default_factory=list)
    Username: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "UID", "uint32"),
        Field(2, "GID", "uint32"),
        Field(3, "AdditionalGids", "uint32", Shape.LIST),
        Field(4, "Username", "string"),
    )


@dataclass
class LinuxCapabilities(Message):
    Bounding: list[str] = field(default_factory=list)
    Effective: list[str] = field(default_factory=list)
    Inheritable: list[str] = field(default_factory=list)
    Permitted: list[str] = field(default_factory=list)
    Ambient: list[str] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Bounding", "string", Shape.LIST),
        Field(2, "Effective", "string", Shape.LIST),
        Field(3, "Inheritable", "string", Shape.LIST),
        Field(4, "Permitted", "string", Shape.LIST),
        Field(5, "Ambient", "string", Shape.LIST),
    )


@dataclass
class POSIXRlimit(Message):
    Type: str = ""
    Hard: int = 0
    Soft: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Type", "string"),
        Field(2, "Hard", "uint64"),
        Field(3, "Soft", "uint64"),
    )


@dataclass
class Mount(Message):
    destination: str = ""
    source: str = ""
    type: str = ""
    options: list[str] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "destination", "string"),
        Field(2, "source", "string"),
        Field(3, "type", "string"),
        Field(4, "options", "string", Shape.LIST),
    )


@dataclass
class Root(Message):
    Path: str = ""
    Readonly: bool = False
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Path", "string"),
        Field(2, "Readonly", "bool"),
    )


@dataclass
class Hooks(Message):
    Prestart: list[Hook] = field(default_factory=list)
    Poststart: list[Hook] = field(default_factory=list)
    Poststop: list[Hook] = field(default_factory=list)
    CreateRuntime: list[Hook] = field(default_factory=list)
    CreateContainer: list[Hook] = field(default_factory=list)
    StartContainer: list[Hook] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Prestart", "Hook", Shape.LIST),
        Field(2, "Poststart", "Hook", Shape.LIST),
        Field(3, "Poststop", "Hook", Shape.LIST),
        Field(4, "CreateRuntime", "Hook", Shape.LIST),
        Field(5, "CreateContainer", "Hook", Shape.LIST),
        Field(6, "StartContainer", "Hook", Shape.LIST),
    )


@dataclass
class Hook(Message):
    Path: str = ""
    Args: list[str] = field(default_factory=list)
    Env: list[str] = field(default_factory=list)
    Timeout: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Path", "string"),
        Field(2, "Args", "string", Shape.LIST),
        Field(3, "Env", "string", Shape.LIST),
        Field(4, "Timeout", "int64"),
    )


@dataclass
class Linux(Message):
    UIDMappings: list[LinuxIDMapping] = field(default_factory=list)
    GIDMappings: list[LinuxIDMapping] = field(default_factory=list)
    Sysctl: dict[str, str] = field(default_factory=dict)
    Resources: LinuxResources | None = None
    CgroupsPath: str = ""
    Namespaces: list[LinuxNamespace] = field(default_factory=list)
    Devices: list[LinuxDevice] = field(default_factory=list)
    Seccomp: LinuxSeccomp | None = None
    RootfsPropagation: str = ""
    MaskedPaths: list[str] = field(default_factory=list)
    ReadonlyPaths: list[str] = field(default_factory=list)
    MountLabel: str = ""
    IntelRdt: LinuxIntelRdt | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "UIDMappings", "LinuxIDMapping", Shape.LIST),
        Field(2, "GIDMappings", "LinuxIDMapping", Shape.LIST),
        Field(3, "Sysctl", "string", Shape.MAP, "string"),
        Field(4, "Resources", "LinuxResources", Shape.OPTIONAL),
        Field(5, "CgroupsPath", "string"),
        Field(6, "Namespaces", "LinuxNamespace", Shape.LIST),
        Field(7, "Devices", "LinuxDevice", Shape.LIST),
        Field(8, "Seccomp", "LinuxSeccomp", Shape.OPTIONAL),
        Field(9, "RootfsPropagation", "string"),
        Field(10, "MaskedPaths", "string", Shape.LIST),
        Field(11, "ReadonlyPaths", "string", Shape.LIST),
        Field(12, "MountLabel", "string"),
        Field(13, "IntelRdt", "LinuxIntelRdt", Shape.OPTIONAL),
    )


@dataclass
class Windows(Message):
    dummy: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "dummy", "string"),
    )


@dataclass
class Solaris(Message):
    dummy: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "dummy", "string"),
    )


@dataclass
class LinuxIDMapping(Message):
    HostID: int = 0
    ContainerID: int = 0
    Size: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "HostID", "uint32"),
        Field(2, "ContainerID", "uint32"),
        Field(3, "Size", "uint32"),
    )


@dataclass
class LinuxNamespace(Message):
    Type: str = ""
    Path: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Type", "string"),
        Field(2, "Path", "string"),
    )


@dataclass
class LinuxDevice(Message):
    Path: str = ""
    Type: str = ""
    Major: int = 0
    Minor: int = 0
    FileMode: int = 0
    UID: int = 0
    GID: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Path", "string"),
        Field(2, "Type", "string"),
        Field(3, "Major", "int64"),
        Field(4, "Minor", "int64"),
        Field(5, "FileMode", "uint32"),
        Field(6, "UID", "uint32"),
        Field(7, "GID", "uint32"),
    )


@dataclass
class LinuxResources(Message):
    Devices: list[LinuxDeviceCgroup] = field(default_factory=list)
    Memory: LinuxMemory | None = None
    CPU: LinuxCPU | None = None
    Pids: LinuxPids | None = None
    BlockIO: LinuxBlockIO | None = None
    HugepageLimits: list[LinuxHugepageLimit] = field(default_factory=list)
    Network: LinuxNetwork | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Devices", "LinuxDeviceCgroup", Shape.LIST),
        Field(2, "Memory", "LinuxMemory", Shape.OPTIONAL),
        Field(3, "CPU", "LinuxCPU", Shape.OPTIONAL),
        Field(4, "Pids", "LinuxPids", Shape.OPTIONAL),
        Field(5, "BlockIO", "LinuxBlockIO", Shape.OPTIONAL),
        Field(6, "HugepageLimits", "LinuxHugepageLimit", Shape.LIST),
        Field(7, "Network", "LinuxNetwork", Shape.OPTIONAL),
    )


@dataclass
class LinuxMemory(Message):
    Limit: int = 0
    Reservation: int = 0
    Swap: int = 0
    Kernel: int = 0
    KernelTCP: int = 0
    Swappiness: int = 0
    DisableOOMKiller: bool = False
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Limit", "int64"),
        Field(2, "Reservation", "int64"),
        Field(3, "Swap", "int64"),
        Field(4, "Kernel", "int64"),
        Field(5, "KernelTCP", "int64"),
        Field(6, "Swappiness", "uint64"),
        Field(7, "DisableOOMKiller", "bool"),
    )


@dataclass
class LinuxCPU(Message):
    Shares: int = 0
    Quota: int = 0
    Period: int = 0
    RealtimeRuntime: int = 0
    RealtimePeriod: int = 0
    Cpus: str = ""
    Mems: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Shares", "uint64"),
        Field(2, "Quota", "int64"),
        Field(3, "Period", "uint64"),
        Field(4, "RealtimeRuntime", "int64"),
        Field(5, "RealtimePeriod", "uint64"),
        Field(6, "Cpus", "string"),
        Field(7, "Mems", "string"),
    )


@dataclass
class LinuxWeightDevice(Message):
    Major: int = 0
    Minor: int = 0
    Weight: int = 0
    LeafWeight: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Major", "int64"),
        Field(2, "Minor", "int64"),
        Field(3, "Weight", "uint32"),
        Field(4, "LeafWeight", "uint32"),
    )


@dataclass
class LinuxThrottleDevice(Message):
    Major: int = 0
    Minor: int = 0
    Rate: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Major", "int64"),
        Field(2, "Minor", "int64"),
        Field(3, "Rate", "uint64"),
    )


@dataclass
class LinuxBlockIO(Message):
    Weight: int = 0
    LeafWeight: int = 0
    WeightDevice: list[LinuxWeightDevice] = field(default_factory=list)
    ThrottleReadBpsDevice: list[LinuxThrottleDevice] = field(default_factory=list)
    ThrottleWriteBpsDevice: list[LinuxThrottleDevice] = field(default_factory=list)
    ThrottleReadIOPSDevice: list[LinuxThrottleDevice] = field(default_factory=list)
    ThrottleWriteIOPSDevice: list[LinuxThrottleDevice] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Weight", "uint32"),
        Field(2, "LeafWeight", "uint32"),
        Field(3, "WeightDevice", "LinuxWeightDevice", Shape.LIST),
        Field(4, "ThrottleReadBpsDevice", "LinuxThrottleDevice", Shape.LIST),
        Field(5, "ThrottleWriteBpsDevice", "LinuxThrottleDevice", Shape.LIST),
        Field(6, "ThrottleReadIOPSDevice", "LinuxThrottleDevice", Shape.LIST),
        Field(7, "ThrottleWriteIOPSDevice", "LinuxThrottleDevice", Shape.LIST),
    )


@dataclass
class LinuxPids(Message):
    Limit: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Limit", "int64"),
    )


@dataclass
class LinuxDeviceCgroup(Message):
    Allow: bool = False
    Type: str = ""
    Major: int = 0
    Minor: int = 0
    Access: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Allow", "bool"),
        Field(2, "Type", "string"),
        Field(3, "Major", "int64"),
        Field(4, "Minor", "int64"),
        Field(5, "Access", "string"),
    )


@dataclass
class LinuxNetwork(Message):
    ClassID: int = 0
    Priorities: list[LinuxInterfacePriority] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "ClassID", "uint32"),
        Field(2, "Priorities", "LinuxInterfacePriority", Shape.LIST),
    )


@dataclass
class LinuxHugepageLimit(Message):
    Pagesize: str = ""
    Limit: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Pagesize", "string"),
        Field(2, "Limit", "uint64"),
    )


@dataclass
class LinuxInterfacePriority(Message):
    Name: str = ""
    Priority: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Name", "string"),
        Field(2, "Priority", "uint32"),
    )


@dataclass
class LinuxSeccomp(Message):
    DefaultAction: str = ""
    Architectures: list[str] = field(default_factory=list)
    Flags: list[str] = field(default_factory=list)
    Syscalls: list[LinuxSyscall] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "DefaultAction", "string"),
        Field(2, "Architectures", "string", Shape.LIST),
        Field(3, "Flags", "string", Shape.LIST),
        Field(4, "Syscalls", "LinuxSyscall", Shape.LIST),
    )


@dataclass
class LinuxSeccompArg(Message):
    Index: int = 0
    Value: int = 0
    ValueTwo: int = 0
    Op: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Index", "uint64"),
        Field(2, "Value", "uint64"),
        Field(3, "ValueTwo", "uint64"),
        Field(4, "Op", "string"),
    )


@dataclass
class LinuxSyscall(Message):
    Names: list[str] = field(default_factory=list)
    Action: str = ""
    errnoret: int | None = None
    Args: list[LinuxSeccompArg] = field(default_factory=list)
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "Names", "string", Shape.LIST),
        Field(2, "Action", "string"),
        Field(3, "errnoret", "uint32", Shape.OPTIONAL),
        Field(4, "Args", "LinuxSeccompArg", Shape.LIST),
    )


@dataclass
class LinuxIntelRdt(Message):
    L3CacheSchema: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "L3CacheSchema", "string"),
    )


@dataclass
class IPAddress(Message):
    family: int = 0  #: a value of IPFamily
    address: str = ""
    mask: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "family", "int32"),
        Field(2, "address", "string"),
        Field(3, "mask", "string"),
    )


@dataclass
class Interface(Message):
    device: str = ""
    name: str = ""
    IPAddresses: list[IPAddress] = field(default_factory=list)
    mtu: int = 0
    hwAddr: str = ""
    devicePath: str = ""
    type: str = ""
    raw_flags: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "device", "string"),
        Field(2, "name", "string"),
        Field(3, "IPAddresses", "IPAddress", Shape.LIST),
        Field(4, "mtu", "uint64"),
        Field(5, "hwAddr", "string"),
        Field(6, "devicePath", "string"),
        Field(7, "type", "string"),
        Field(8, "raw_flags", "uint32"),
    )


@dataclass
class Route(Message):
    dest: str = ""
    gateway: str = ""
    device: str = ""
    source: str = ""
    scope: int = 0
    family: int = 0  #: a value of IPFamily
    flags: int = 0
    mtu: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "dest", "string"),
        Field(2, "gateway", "string"),
        Field(3, "device", "string"),
        Field(4, "source", "string"),
        Field(5, "scope", "uint32"),
        Field(6, "family", "int32"),
        Field(7, "flags", "uint32"),
        Field(8, "mtu", "uint32"),
    )


@dataclass
class ARPNeighbor(Message):
    toIPAddress: IPAddress | None = None
    device: str = ""
    lladdr: str = ""
    state: int = 0
    flags: int = 0
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "toIPAddress", "IPAddress", Shape.OPTIONAL),
        Field(2, "device", "string"),
        Field(3, "lladdr", "string"),
        Field(4, "state", "int32"),
        Field(5, "flags", "int32"),
    )


@dataclass
class VolumeStatsResponse(Message):
    usage: list[VolumeUsage] = field(default_factory=list)
    volume_condition: VolumeCondition | None = None
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "usage", "VolumeUsage", Shape.LIST),
        Field(2, "volume_condition", "VolumeCondition", Shape.OPTIONAL),
    )


@dataclass
class VolumeUsage(Message):
    available: int = 0
    total: int = 0
    used: int = 0
    unit: int = 0  #: a value of Unit
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "available", "uint64"),
        Field(2, "total", "uint64"),
        Field(3, "used", "uint64"),
        Field(4, "unit", "int32"),
    )


@dataclass
class VolumeCondition(Message):
    abnormal: bool = False
    message: str = ""
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field(1, "abnormal", "bool"),
        Field(2, "message", "string"),
    )
