"""ttrpc: frames on a stream, and calls that may be answered in any order.

A frame is ten bytes, big-endian (length 4, stream 4, type 1, flags 1), and a message.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Self, TypeVar

from ._codec import Message, _fields_of, _put_bytes, _varint
from .endpoint import Endpoint, dial
from .errors import DecodeError, DeadlineExceeded, PithError, Refused, Unreachable
from .services import Method

_M = TypeVar("_M", bound=Message)

_HEADER = struct.Struct(">IIBB")
_REQUEST, _RESPONSE = 1, 2
#: The largest message that a frame may carry.
LARGEST = 4 << 20
# How much longer than the agent a client waits, which has the better words for what took so long.
_GRACE = 10.0


def request_frame(stream: int, method: Method, payload: bytes, timeout: float | None) -> bytes:
    """A call as it travels. Raises `ValueError` if it is too large."""
    body = bytearray()
    for number, data in ((1, method.service.encode()), (2, method.name.encode()), (3, payload)):
        if data:
            _put_bytes(body, number, data)
    if timeout is not None:
        body += _varint(4 << 3) + _varint(max(1, int(timeout * 1e9)))
    if len(body) > LARGEST:
        raise ValueError(f"{method.name}: {len(body)} bytes are more than the {LARGEST} that a frame holds")
    return _HEADER.pack(len(body), stream, _REQUEST, 0) + bytes(body)


def read_response(data: bytes) -> bytes:
    """The payload of an answer. Raises `Refused` if it is a refusal."""
    code, message, payload = 0, b"", b""
    for number, _, value in _fields_of(data):
        if number == 1 and isinstance(value, bytes):
            for part, _, item in _fields_of(value):
                if part == 1 and isinstance(item, int):
                    code = item
                elif part == 2 and isinstance(item, bytes):
                    message = item
        elif number == 2 and isinstance(value, bytes):
            payload = value
    if code:
        raise Refused(code, message.decode(errors="replace"))
    return payload


class Connection:
    """A connection to an agent. Many calls may be under way at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._streams = itertools.count(1, 2)
        self._sending = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._end: str | None = None
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Self:
        """Dials an agent. Raises `Unreachable`."""
        return cls(*await dial(endpoint))

    async def invoke(self, method: Method, answer: type[_M], request: Message, timeout: float | None) -> _M:
        """Makes a call."""
        payload = request.to_bytes()
        loop = asyncio.get_running_loop()
        async with self._sending:
            # Ids rise on the wire, so one is taken when it is its turn.
            stream = next(self._streams)
            frame = request_frame(stream, method, payload, timeout)
            if self._end is not None:
                raise Unreachable(self._end)
            waiting = self._waiting[stream] = loop.create_future()
            try:
                self._writer.write(frame)
                await self._writer.drain()
            except OSError as error:
                self._waiting.pop(stream, None)
                raise Unreachable(f"{method.name}: {error}") from error
            except BaseException:
                self._waiting.pop(stream, None)
                raise
        try:
            async with asyncio.timeout(None if timeout is None else timeout + _GRACE):
                data = await waiting
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method.name}: no answer for {timeout} s") from error
        finally:
            self._waiting.pop(stream, None)
        try:
            return answer.from_bytes(read_response(data))
        except Refused as refusal:
            if refusal.code == "DEADLINE_EXCEEDED":
                raise DeadlineExceeded(f"{method.name}: {refusal.message}") from refusal
            raise
        except DecodeError as error:
            raise DecodeError(f"the answer to {method.name} makes no sense: {error}") from error

    async def close(self) -> None:
        """Ends the connection, and with it the calls that are under way."""
        self._task.cancel()
        self._finish("the connection was closed")
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            # The other side was faster.
            pass

    async def _read(self) -> None:
        try:
            while True:
                length, stream, kind, _ = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                if length > LARGEST:
                    raise PithError(f"a frame of {length} bytes, of which {LARGEST} are allowed")
                data = await self._reader.readexactly(length)
                waiting = self._waiting.pop(stream, None)
                if kind == _RESPONSE and waiting is not None and not waiting.done():
                    waiting.set_result(data)
        except asyncio.IncompleteReadError:
            self._finish("the agent is gone: the connection ended")
        except (OSError, PithError) as error:
            self._finish(f"the agent is gone: {error}")
        finally:
            self._writer.close()

    def _finish(self, reason: str) -> None:
        self._end = self._end or reason
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Unreachable(self._end))
        self._waiting.clear()
