"""Containers in microVMs of their own.

    from pith import Pod

    with Pod.run("alpine", ["sleep", "infinity"]) as pod:
        print(pod.exec(["uname", "-a"]).stdout.decode())

`Pod` needs the program `pith` on this host, which starts the pod. `Agent` needs nothing but the socket of a guest: it speaks
ttrpc with the agent in it, and has a function for each of its methods. `pith.aio` has the same for asyncio.
"""

__version__ = "0.2.0"

from . import messages
from ._program import Container, Record
from ._results import Completed, Stats
from ._sync import Agent, Input, Lines, Pod, Process
from .endpoint import AGENT_PORT, Endpoint, Hybrid, Unix, Vsock
from .errors import (
    CommandError,
    DeadlineExceeded,
    DecodeError,
    OutputTooLarge,
    PithError,
    ProgramError,
    Refused,
    Unreachable,
)

__all__ = [
    "AGENT_PORT",
    "Agent",
    "CommandError",
    "Completed",
    "Container",
    "DeadlineExceeded",
    "DecodeError",
    "Endpoint",
    "Hybrid",
    "Input",
    "Lines",
    "OutputTooLarge",
    "PithError",
    "Pod",
    "Process",
    "ProgramError",
    "Record",
    "Refused",
    "Stats",
    "Unix",
    "Unreachable",
    "Vsock",
    "messages",
]
