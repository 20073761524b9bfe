"""What calls give."""

from __future__ import annotations

from dataclasses import dataclass

from . import messages as m


@dataclass(frozen=True)
class Completed:
    """What a command left."""

    #: Its exit status: 128 plus the number of the signal that ended it, if one did.
    status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Stats:
    """What a container uses."""

    #: Processor time since its start, in nanoseconds.
    cpu_ns: int
    #: Memory in use, in bytes.
    memory_bytes: int
    #: What it may use, in bytes; 0 where there is no limit.
    memory_limit: int
    #: Processes and threads.
    processes: int
    #: All that the agent tells.
    raw: m.StatsContainerResponse

    @classmethod
    def of(cls, answer: m.StatsContainerResponse) -> Stats:
        """Of an answer to StatsContainer."""
        groups = answer.cgroup_stats or m.CgroupStats()
        cpu = (groups.cpu_stats or m.CpuStats()).cpu_usage or m.CpuUsage()
        memory = (groups.memory_stats or m.MemoryStats()).usage or m.MemoryData()
        limit = 0 if memory.limit >= 1 << 62 else memory.limit
        pids = groups.pids_stats or m.PidsStats()
        return cls(cpu.total_usage, memory.usage, limit, pids.current, answer)
