"""The methods of the agent's API, each with its types. Written by generate.py; do not edit."""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

from . import messages as m
from ._codec import Message

_M = TypeVar("_M", bound=Message)

#: Seconds that a call may take when nothing else is said.
DEADLINE = 60.0


class Method(NamedTuple):
    """A method of the API."""

    service: str
    name: str
    request: type[Message]
    answer: type[Message]


#: All methods by name.
METHODS: dict[str, Method] = {
    "CreateContainer": Method("grpc.AgentService", "CreateContainer", m.CreateContainerRequest, m.Empty),
    "StartContainer": Method("grpc.AgentService", "StartContainer", m.StartContainerRequest, m.Empty),
    "RemoveContainer": Method("grpc.AgentService", "RemoveContainer", m.RemoveContainerRequest, m.Empty),
    "ExecProcess": Method("grpc.AgentService", "ExecProcess", m.ExecProcessRequest, m.Empty),
    "SignalProcess": Method("grpc.AgentService", "SignalProcess", m.SignalProcessRequest, m.Empty),
    "WaitProcess": Method("grpc.AgentService", "WaitProcess", m.WaitProcessRequest, m.WaitProcessResponse),
    "UpdateContainer": Method("grpc.AgentService", "UpdateContainer", m.UpdateContainerRequest, m.Empty),
    "UpdateEphemeralMounts": Method("grpc.AgentService", "UpdateEphemeralMounts", m.UpdateEphemeralMountsRequest, m.Empty),
    "StatsContainer": Method("grpc.AgentService", "StatsContainer", m.StatsContainerRequest, m.StatsContainerResponse),
    "PauseContainer": Method("grpc.AgentService", "PauseContainer", m.PauseContainerRequest, m.Empty),
    "ResumeContainer": Method("grpc.AgentService", "ResumeContainer", m.ResumeContainerRequest, m.Empty),
    "RemoveStaleVirtiofsShareMounts": Method("grpc.AgentService", "RemoveStaleVirtiofsShareMounts", m.RemoveStaleVirtiofsShareMountsRequest, m.Empty),
    "GetDiagnosticData": Method("grpc.AgentService", "GetDiagnosticData", m.GetDiagnosticDataRequest, m.GetDiagnosticDataResponse),
    "WriteStdin": Method("grpc.AgentService", "WriteStdin", m.WriteStreamRequest, m.WriteStreamResponse),
    "ReadStdout": Method("grpc.AgentService", "ReadStdout", m.ReadStreamRequest, m.ReadStreamResponse),
    "ReadStderr": Method("grpc.AgentService", "ReadStderr", m.ReadStreamRequest, m.ReadStreamResponse),
    "CloseStdin": Method("grpc.AgentService", "CloseStdin", m.CloseStdinRequest, m.Empty),
    "TtyWinResize": Method("grpc.AgentService", "TtyWinResize", m.TtyWinResizeRequest, m.Empty),
    "UpdateInterface": Method("grpc.AgentService", "UpdateInterface", m.UpdateInterfaceRequest, m.Interface),
    "UpdateRoutes": Method("grpc.AgentService", "UpdateRoutes", m.UpdateRoutesRequest, m.Routes),
    "ListInterfaces": Method("grpc.AgentService", "ListInterfaces", m.ListInterfacesRequest, m.Interfaces),
    "ListRoutes": Method("grpc.AgentService", "ListRoutes", m.ListRoutesRequest, m.Routes),
    "AddARPNeighbors": Method("grpc.AgentService", "AddARPNeighbors", m.AddARPNeighborsRequest, m.Empty),
    "GetIPTables": Method("grpc.AgentService", "GetIPTables", m.GetIPTablesRequest, m.GetIPTablesResponse),
    "SetIPTables": Method("grpc.AgentService", "SetIPTables", m.SetIPTablesRequest, m.SetIPTablesResponse),
    "GetMetrics": Method("grpc.AgentService", "GetMetrics", m.GetMetricsRequest, m.Metrics),
    "MemAgentMemcgSet": Method("grpc.AgentService", "MemAgentMemcgSet", m.MemAgentMemcgConfig, m.Empty),
    "MemAgentCompactSet": Method("grpc.AgentService", "MemAgentCompactSet", m.MemAgentCompactConfig, m.Empty),
    "CreateSandbox": Method("grpc.AgentService", "CreateSandbox", m.CreateSandboxRequest, m.Empty),
    "DestroySandbox": Method("grpc.AgentService", "DestroySandbox", m.DestroySandboxRequest, m.Empty),
    "OnlineCPUMem": Method("grpc.AgentService", "OnlineCPUMem", m.OnlineCPUMemRequest, m.Empty),
    "ReseedRandomDev": Method("grpc.AgentService", "ReseedRandomDev", m.ReseedRandomDevRequest, m.Empty),
    "GetGuestDetails": Method("grpc.AgentService", "GetGuestDetails", m.GuestDetailsRequest, m.GuestDetailsResponse),
    "MemHotplugByProbe": Method("grpc.AgentService", "MemHotplugByProbe", m.MemHotplugByProbeRequest, m.Empty),
    "SetGuestDateTime": Method("grpc.AgentService", "SetGuestDateTime", m.SetGuestDateTimeRequest, m.Empty),
    "CopyFile": Method("grpc.AgentService", "CopyFile", m.CopyFileRequest, m.Empty),
    "GetOOMEvent": Method("grpc.AgentService", "GetOOMEvent", m.GetOOMEventRequest, m.OOMEvent),
    "AddSwap": Method("grpc.AgentService", "AddSwap", m.AddSwapRequest, m.Empty),
    "AddSwapPath": Method("grpc.AgentService", "AddSwapPath", m.AddSwapPathRequest, m.Empty),
    "GetVolumeStats": Method("grpc.AgentService", "GetVolumeStats", m.VolumeStatsRequest, m.VolumeStatsResponse),
    "ResizeVolume": Method("grpc.AgentService", "ResizeVolume", m.ResizeVolumeRequest, m.Empty),
    "SetPolicy": Method("grpc.AgentService", "SetPolicy", m.SetPolicyRequest, m.Empty),
    "Check": Method("grpc.Health", "Check", m.CheckRequest, m.HealthCheckResponse),
    "Version": Method("grpc.Health", "Version", m.CheckRequest, m.VersionCheckResponse),
}


class _Calls(Protocol):
    def invoke(self, method: Method, answer: type[_M], request: Message, timeout: float | None) -> _M: ...


class Methods:
    """Every method of the agent, as a function that waits for the answer.

    `timeout` is the deadline in seconds, of which the agent is told too; `None` is for ever. A refusal is a
    `Refused`, and a deadline that passes a `DeadlineExceeded`."""

    def create_container(
        self: _Calls, request: m.CreateContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["CreateContainer"], m.Empty, request or m.CreateContainerRequest(), timeout)

    def start_container(
        self: _Calls, request: m.StartContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["StartContainer"], m.Empty, request or m.StartContainerRequest(), timeout)

    def remove_container(
        self: _Calls, request: m.RemoveContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["RemoveContainer"], m.Empty, request or m.RemoveContainerRequest(), timeout)

    def exec_process(
        self: _Calls, request: m.ExecProcessRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["ExecProcess"], m.Empty, request or m.ExecProcessRequest(), timeout)

    def signal_process(
        self: _Calls, request: m.SignalProcessRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["SignalProcess"], m.Empty, request or m.SignalProcessRequest(), timeout)

    def wait_process(
        self: _Calls, request: m.WaitProcessRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.WaitProcessResponse:
        return self.invoke(METHODS["WaitProcess"], m.WaitProcessResponse, request or m.WaitProcessRequest(), timeout)

    def update_container(
        self: _Calls, request: m.UpdateContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["UpdateContainer"], m.Empty, request or m.UpdateContainerRequest(), timeout)

    def update_ephemeral_mounts(
        self: _Calls, request: m.UpdateEphemeralMountsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["UpdateEphemeralMounts"], m.Empty, request or m.UpdateEphemeralMountsRequest(), timeout)

    def stats_container(
        self: _Calls, request: m.StatsContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.StatsContainerResponse:
        return self.invoke(METHODS["StatsContainer"], m.StatsContainerResponse, request or m.StatsContainerRequest(), timeout)

    def pause_container(
        self: _Calls, request: m.PauseContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["PauseContainer"], m.Empty, request or m.PauseContainerRequest(), timeout)

    def resume_container(
        self: _Calls, request: m.ResumeContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["ResumeContainer"], m.Empty, request or m.ResumeContainerRequest(), timeout)

    def remove_stale_virtiofs_share_mounts(
        self: _Calls, request: m.RemoveStaleVirtiofsShareMountsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["RemoveStaleVirtiofsShareMounts"], m.Empty, request or m.RemoveStaleVirtiofsShareMountsRequest(), timeout)

    def get_diagnostic_data(
        self: _Calls, request: m.GetDiagnosticDataRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.GetDiagnosticDataResponse:
        return self.invoke(METHODS["GetDiagnosticData"], m.GetDiagnosticDataResponse, request or m.GetDiagnosticDataRequest(), timeout)

    def write_stdin(
        self: _Calls, request: m.WriteStreamRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.WriteStreamResponse:
        return self.invoke(METHODS["WriteStdin"], m.WriteStreamResponse, request or m.WriteStreamRequest(), timeout)

    def read_stdout(
        self: _Calls, request: m.ReadStreamRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.ReadStreamResponse:
        return self.invoke(METHODS["ReadStdout"], m.ReadStreamResponse, request or m.ReadStreamRequest(), timeout)

    def read_stderr(
        self: _Calls, request: m.ReadStreamRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.ReadStreamResponse:
        return self.invoke(METHODS["ReadStderr"], m.ReadStreamResponse, request or m.ReadStreamRequest(), timeout)

    def close_stdin(
        self: _Calls, request: m.CloseStdinRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["CloseStdin"], m.Empty, request or m.CloseStdinRequest(), timeout)

    def tty_win_resize(
        self: _Calls, request: m.TtyWinResizeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["TtyWinResize"], m.Empty, request or m.TtyWinResizeRequest(), timeout)

    def update_interface(
        self: _Calls, request: m.UpdateInterfaceRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Interface:
        return self.invoke(METHODS["UpdateInterface"], m.Interface, request or m.UpdateInterfaceRequest(), timeout)

    def update_routes(
        self: _Calls, request: m.UpdateRoutesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Routes:
        return self.invoke(METHODS["UpdateRoutes"], m.Routes, request or m.UpdateRoutesRequest(), timeout)

    def list_interfaces(
        self: _Calls, request: m.ListInterfacesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Interfaces:
        return self.invoke(METHODS["ListInterfaces"], m.Interfaces, request or m.ListInterfacesRequest(), timeout)

    def list_routes(
        self: _Calls, request: m.ListRoutesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Routes:
        return self.invoke(METHODS["ListRoutes"], m.Routes, request or m.ListRoutesRequest(), timeout)

    def add_arp_neighbors(
        self: _Calls, request: m.AddARPNeighborsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["AddARPNeighbors"], m.Empty, request or m.AddARPNeighborsRequest(), timeout)

    def get_ip_tables(
        self: _Calls, request: m.GetIPTablesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.GetIPTablesResponse:
        return self.invoke(METHODS["GetIPTables"], m.GetIPTablesResponse, request or m.GetIPTablesRequest(), timeout)

    def set_ip_tables(
        self: _Calls, request: m.SetIPTablesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.SetIPTablesResponse:
        return self.invoke(METHODS["SetIPTables"], m.SetIPTablesResponse, request or m.SetIPTablesRequest(), timeout)

    def get_metrics(
        self: _Calls, request: m.GetMetricsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Metrics:
        return self.invoke(METHODS["GetMetrics"], m.Metrics, request or m.GetMetricsRequest(), timeout)

    def mem_agent_memcg_set(
        self: _Calls, request: m.MemAgentMemcgConfig | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["MemAgentMemcgSet"], m.Empty, request or m.MemAgentMemcgConfig(), timeout)

    def mem_agent_compact_set(
        self: _Calls, request: m.MemAgentCompactConfig | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["MemAgentCompactSet"], m.Empty, request or m.MemAgentCompactConfig(), timeout)

    def create_sandbox(
        self: _Calls, request: m.CreateSandboxRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["CreateSandbox"], m.Empty, request or m.CreateSandboxRequest(), timeout)

    def destroy_sandbox(
        self: _Calls, request: m.DestroySandboxRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["DestroySandbox"], m.Empty, request or m.DestroySandboxRequest(), timeout)

    def online_cpu_mem(
        self: _Calls, request: m.OnlineCPUMemRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["OnlineCPUMem"], m.Empty, request or m.OnlineCPUMemRequest(), timeout)

    def reseed_random_dev(
        self: _Calls, request: m.ReseedRandomDevRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["ReseedRandomDev"], m.Empty, request or m.ReseedRandomDevRequest(), timeout)

    def get_guest_details(
        self: _Calls, request: m.GuestDetailsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.GuestDetailsResponse:
        return self.invoke(METHODS["GetGuestDetails"], m.GuestDetailsResponse, request or m.GuestDetailsRequest(), timeout)

    def mem_hotplug_by_probe(
        self: _Calls, request: m.MemHotplugByProbeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["MemHotplugByProbe"], m.Empty, request or m.MemHotplugByProbeRequest(), timeout)

    def set_guest_date_time(
        self: _Calls, request: m.SetGuestDateTimeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["SetGuestDateTime"], m.Empty, request or m.SetGuestDateTimeRequest(), timeout)

    def copy_file(
        self: _Calls, request: m.CopyFileRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["CopyFile"], m.Empty, request or m.CopyFileRequest(), timeout)

    def get_oom_event(
        self: _Calls, request: m.GetOOMEventRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.OOMEvent:
        return self.invoke(METHODS["GetOOMEvent"], m.OOMEvent, request or m.GetOOMEventRequest(), timeout)

    def add_swap(
        self: _Calls, request: m.AddSwapRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["AddSwap"], m.Empty, request or m.AddSwapRequest(), timeout)

    def add_swap_path(
        self: _Calls, request: m.AddSwapPathRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["AddSwapPath"], m.Empty, request or m.AddSwapPathRequest(), timeout)

    def get_volume_stats(
        self: _Calls, request: m.VolumeStatsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.VolumeStatsResponse:
        return self.invoke(METHODS["GetVolumeStats"], m.VolumeStatsResponse, request or m.VolumeStatsRequest(), timeout)

    def resize_volume(
        self: _Calls, request: m.ResizeVolumeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["ResizeVolume"], m.Empty, request or m.ResizeVolumeRequest(), timeout)

    def set_policy(
        self: _Calls, request: m.SetPolicyRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return self.invoke(METHODS["SetPolicy"], m.Empty, request or m.SetPolicyRequest(), timeout)

    def check(
        self: _Calls, request: m.CheckRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.HealthCheckResponse:
        return self.invoke(METHODS["Check"], m.HealthCheckResponse, request or m.CheckRequest(), timeout)

    def version(
        self: _Calls, request: m.CheckRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.VersionCheckResponse:
        return self.invoke(METHODS["Version"], m.VersionCheckResponse, request or m.CheckRequest(), timeout)


class _AsyncCalls(Protocol):
    async def invoke(self, method: Method, answer: type[_M], request: Message, timeout: float | None) -> _M: ...


class AsyncMethods:
    """Every method of the agent, as a coroutine.

    `timeout` is the deadline in seconds, of which the agent is told too; `None` is for ever. A refusal is a
    `Refused`, and a deadline that passes a `DeadlineExceeded`."""

    async def create_container(
        self: _AsyncCalls, request: m.CreateContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["CreateContainer"], m.Empty, request or m.CreateContainerRequest(), timeout)

    async def start_container(
        self: _AsyncCalls, request: m.StartContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["StartContainer"], m.Empty, request or m.StartContainerRequest(), timeout)

    async def remove_container(
        self: _AsyncCalls, request: m.RemoveContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["RemoveContainer"], m.Empty, request or m.RemoveContainerRequest(), timeout)

    async def exec_process(
        self: _AsyncCalls, request: m.ExecProcessRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["ExecProcess"], m.Empty, request or m.ExecProcessRequest(), timeout)

    async def signal_process(
        self: _AsyncCalls, request: m.SignalProcessRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["SignalProcess"], m.Empty, request or m.SignalProcessRequest(), timeout)

    async def wait_process(
        self: _AsyncCalls, request: m.WaitProcessRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.WaitProcessResponse:
        return await self.invoke(METHODS["WaitProcess"], m.WaitProcessResponse, request or m.WaitProcessRequest(), timeout)

    async def update_container(
        self: _AsyncCalls, request: m.UpdateContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["UpdateContainer"], m.Empty, request or m.UpdateContainerRequest(), timeout)

    async def update_ephemeral_mounts(
        self: _AsyncCalls, request: m.UpdateEphemeralMountsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["UpdateEphemeralMounts"], m.Empty, request or m.UpdateEphemeralMountsRequest(), timeout)

    async def stats_container(
        self: _AsyncCalls, request: m.StatsContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.StatsContainerResponse:
        return await self.invoke(METHODS["StatsContainer"], m.StatsContainerResponse, request or m.StatsContainerRequest(), timeout)

    async def pause_container(
        self: _AsyncCalls, request: m.PauseContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["PauseContainer"], m.Empty, request or m.PauseContainerRequest(), timeout)

    async def resume_container(
        self: _AsyncCalls, request: m.ResumeContainerRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["ResumeContainer"], m.Empty, request or m.ResumeContainerRequest(), timeout)

    async def remove_stale_virtiofs_share_mounts(
        self: _AsyncCalls, request: m.RemoveStaleVirtiofsShareMountsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["RemoveStaleVirtiofsShareMounts"], m.Empty, request or m.RemoveStaleVirtiofsShareMountsRequest(), timeout)

    async def get_diagnostic_data(
        self: _AsyncCalls, request: m.GetDiagnosticDataRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.GetDiagnosticDataResponse:
        return await self.invoke(METHODS["GetDiagnosticData"], m.GetDiagnosticDataResponse, request or m.GetDiagnosticDataRequest(), timeout)

    async def write_stdin(
        self: _AsyncCalls, request: m.WriteStreamRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.WriteStreamResponse:
        return await self.invoke(METHODS["WriteStdin"], m.WriteStreamResponse, request or m.WriteStreamRequest(), timeout)

    async def read_stdout(
        self: _AsyncCalls, request: m.ReadStreamRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.ReadStreamResponse:
        return await self.invoke(METHODS["ReadStdout"], m.ReadStreamResponse, request or m.ReadStreamRequest(), timeout)

    async def read_stderr(
        self: _AsyncCalls, request: m.ReadStreamRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.ReadStreamResponse:
        return await self.invoke(METHODS["ReadStderr"], m.ReadStreamResponse, request or m.ReadStreamRequest(), timeout)

    async def close_stdin(
        self: _AsyncCalls, request: m.CloseStdinRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["CloseStdin"], m.Empty, request or m.CloseStdinRequest(), timeout)

    async def tty_win_resize(
        self: _AsyncCalls, request: m.TtyWinResizeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["TtyWinResize"], m.Empty, request or m.TtyWinResizeRequest(), timeout)

    async def update_interface(
        self: _AsyncCalls, request: m.UpdateInterfaceRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Interface:
        return await self.invoke(METHODS["UpdateInterface"], m.Interface, request or m.UpdateInterfaceRequest(), timeout)

    async def update_routes(
        self: _AsyncCalls, request: m.UpdateRoutesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Routes:
        return await self.invoke(METHODS["UpdateRoutes"], m.Routes, request or m.UpdateRoutesRequest(), timeout)

    async def list_interfaces(
        self: _AsyncCalls, request: m.ListInterfacesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Interfaces:
        return await self.invoke(METHODS["ListInterfaces"], m.Interfaces, request or m.ListInterfacesRequest(), timeout)

    async def list_routes(
        self: _AsyncCalls, request: m.ListRoutesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Routes:
        return await self.invoke(METHODS["ListRoutes"], m.Routes, request or m.ListRoutesRequest(), timeout)

    async def add_arp_neighbors(
        self: _AsyncCalls, request: m.AddARPNeighborsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["AddARPNeighbors"], m.Empty, request or m.AddARPNeighborsRequest(), timeout)

    async def get_ip_tables(
        self: _AsyncCalls, request: m.GetIPTablesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.GetIPTablesResponse:
        return await self.invoke(METHODS["GetIPTables"], m.GetIPTablesResponse, request or m.GetIPTablesRequest(), timeout)

    async def set_ip_tables(
        self: _AsyncCalls, request: m.SetIPTablesRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.SetIPTablesResponse:
        return await self.invoke(METHODS["SetIPTables"], m.SetIPTablesResponse, request or m.SetIPTablesRequest(), timeout)

    async def get_metrics(
        self: _AsyncCalls, request: m.GetMetricsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Metrics:
        return await self.invoke(METHODS["GetMetrics"], m.Metrics, request or m.GetMetricsRequest(), timeout)

    async def mem_agent_memcg_set(
        self: _AsyncCalls, request: m.MemAgentMemcgConfig | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["MemAgentMemcgSet"], m.Empty, request or m.MemAgentMemcgConfig(), timeout)

    async def mem_agent_compact_set(
        self: _AsyncCalls, request: m.MemAgentCompactConfig | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["MemAgentCompactSet"], m.Empty, request or m.MemAgentCompactConfig(), timeout)

    async def create_sandbox(
        self: _AsyncCalls, request: m.CreateSandboxRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["CreateSandbox"], m.Empty, request or m.CreateSandboxRequest(), timeout)

    async def destroy_sandbox(
        self: _AsyncCalls, request: m.DestroySandboxRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["DestroySandbox"], m.Empty, request or m.DestroySandboxRequest(), timeout)

    async def online_cpu_mem(
        self: _AsyncCalls, request: m.OnlineCPUMemRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["OnlineCPUMem"], m.Empty, request or m.OnlineCPUMemRequest(), timeout)

    async def reseed_random_dev(
        self: _AsyncCalls, request: m.ReseedRandomDevRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["ReseedRandomDev"], m.Empty, request or m.ReseedRandomDevRequest(), timeout)

    async def get_guest_details(
        self: _AsyncCalls, request: m.GuestDetailsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.GuestDetailsResponse:
        return await self.invoke(METHODS["GetGuestDetails"], m.GuestDetailsResponse, request or m.GuestDetailsRequest(), timeout)

    async def mem_hotplug_by_probe(
        self: _AsyncCalls, request: m.MemHotplugByProbeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["MemHotplugByProbe"], m.Empty, request or m.MemHotplugByProbeRequest(), timeout)

    async def set_guest_date_time(
        self: _AsyncCalls, request: m.SetGuestDateTimeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["SetGuestDateTime"], m.Empty, request or m.SetGuestDateTimeRequest(), timeout)

    async def copy_file(
        self: _AsyncCalls, request: m.CopyFileRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["CopyFile"], m.Empty, request or m.CopyFileRequest(), timeout)

    async def get_oom_event(
        self: _AsyncCalls, request: m.GetOOMEventRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.OOMEvent:
        return await self.invoke(METHODS["GetOOMEvent"], m.OOMEvent, request or m.GetOOMEventRequest(), timeout)

    async def add_swap(
        self: _AsyncCalls, request: m.AddSwapRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["AddSwap"], m.Empty, request or m.AddSwapRequest(), timeout)

    async def add_swap_path(
        self: _AsyncCalls, request: m.AddSwapPathRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["AddSwapPath"], m.Empty, request or m.AddSwapPathRequest(), timeout)

    async def get_volume_stats(
        self: _AsyncCalls, request: m.VolumeStatsRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.VolumeStatsResponse:
        return await self.invoke(METHODS["GetVolumeStats"], m.VolumeStatsResponse, request or m.VolumeStatsRequest(), timeout)

    async def resize_volume(
        self: _AsyncCalls, request: m.ResizeVolumeRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["ResizeVolume"], m.Empty, request or m.ResizeVolumeRequest(), timeout)

    async def set_policy(
        self: _AsyncCalls, request: m.SetPolicyRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.Empty:
        return await self.invoke(METHODS["SetPolicy"], m.Empty, request or m.SetPolicyRequest(), timeout)

    async def check(
        self: _AsyncCalls, request: m.CheckRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.HealthCheckResponse:
        return await self.invoke(METHODS["Check"], m.HealthCheckResponse, request or m.CheckRequest(), timeout)

    async def version(
        self: _AsyncCalls, request: m.CheckRequest | None = None, *, timeout: float | None = DEADLINE
    ) -> m.VersionCheckResponse:
        return await self.invoke(METHODS["Version"], m.VersionCheckResponse, request or m.CheckRequest(), timeout)
