"""Where an agent is reached, and how it is dialled."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from typing import TypeAlias

from .errors import Unreachable

#: vsock port of the agent's ttrpc server.
AGENT_PORT = 1024
# How long one dial may take, in seconds.
_PATIENCE = 10.0
# The longest answer to CONNECT that makes sense: `OK` and a number.
_LONGEST_ANSWER = 64


@dataclass(frozen=True)
class Hybrid:
    """The Unix socket of a VMM with hybrid vsock, as Firecracker, Cloud Hypervisor and vhost-device-vsock have."""

    socket: str | os.PathLike[str]
    port: int = AGENT_PORT


@dataclass(frozen=True)
class Vsock:
    """The guest with this context id, by the vsock of the host's kernel."""

    cid: int
    port: int = AGENT_PORT


@dataclass(frozen=True)
class Unix:
    """A Unix socket at which the agent answers at once, without a handshake."""

    socket: str | os.PathLike[str]


Endpoint: TypeAlias = Hybrid | Vsock | Unix

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dial(endpoint: Endpoint) -> Streams:
    """Opens a connection. Raises `Unreachable`, which says what is not there."""
    try:
        async with asyncio.timeout(_PATIENCE):
            match endpoint:
                case Unix(socket=path):
                    return await asyncio.open_unix_connection(path)
                case Hybrid(socket=path, port=port):
                    return await _hybrid(path, port)
                case Vsock(cid=cid, port=port):
                    return await _vsock(cid, port)
    except TimeoutError as error:
        raise Unreachable(f"{endpoint}: no answer for {_PATIENCE:.0f} s") from error
    except OSError as error:
        raise Unreachable(f"{endpoint}: {error}") from error


async def _hybrid(path: str | os.PathLike[str], port: int) -> Streams:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(f"CONNECT {port}\n".encode())
        await writer.drain()
        answer = b""
        # One byte at a time: an answer without an end must not be waited for.
        while not answer.endswith(b"\n") and len(answer) <= _LONGEST_ANSWER:
            byte = await reader.read(1)
            if not byte:
                raise Unreachable(f"{path}: nothing in the guest listens on vsock port {port}")
            answer += byte
        if answer.split()[:1] != [b"OK"]:
            raise Unreachable(f"{path}: the device answered {answer!r} instead of OK")
    except ConnectionError as error:
        writer.close()
        raise Unreachable(f"{path}: nothing in the guest listens on vsock port {port}") from error
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _vsock(cid: int, port: int) -> Streams:
    connection = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (cid, port))
        return await asyncio.open_connection(sock=connection)
    except BaseException:
        connection.close()
        raise
