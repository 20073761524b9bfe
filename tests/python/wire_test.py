#!/usr/bin/env python3
"""The package against a device and an agent of this process, which say what none should say. Needs no guest. Exit status 0 if
every case is told as what it is."""

import contextlib
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading

from pith import Agent, DeadlineExceeded, DecodeError, Hybrid, Refused, Unix, Unreachable, _ttrpc, messages
from pith._codec import _put_bytes, _varint

OK = b"OK 1073741824\n"


def receive(stream, count):
    data = b""
    while len(data) < count:
        piece = stream.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def request(stream):
    """The id and the bytes of the next call."""
    length, number, _, _ = struct.unpack(">IIBB", receive(stream, 10))
    return number, receive(stream, length)


def frame(number, data, kind=2):
    return struct.pack(">IIBB", len(data), number, kind, 0) + data


def response(payload=b"", code=0, words=""):
    out = bytearray()
    if code:
        status = bytearray(_varint(1 << 3) + _varint(code))
        _put_bytes(status, 2, words.encode())
        _put_bytes(out, 1, bytes(status))
    if payload:
        _put_bytes(out, 2, payload)
    return bytes(out)


@contextlib.contextmanager
def device(behaviour):
    """A socket at which each connection is served by `behaviour`."""
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = pathlib.Path(directory) / "vsock.sock"
        listener.bind(str(path))
        listener.listen()

        def serve():
            while True:
                try:
                    stream, _ = listener.accept()
                except OSError:
                    return
                with stream, contextlib.suppress(EOFError, OSError):
                    behaviour(stream)

        threading.Thread(target=serve, daemon=True).start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)


def told(what, kind, words, work):
    try:
        got = work()
    except kind as error:
        print(f"{what}: {error}")
        if words not in str(error):
            sys.exit(f"{what}: {words!r} is not in {str(error)!r}")
    else:
        sys.exit(f"{what}: {got!r} instead of {kind.__name__}")


def dialling():
    def answers(answer):
        def behave(stream):
            assert receive(stream, 13) == b"CONNECT 1024\n"
            stream.sendall(answer)

        return behave

    for what, answer, words in (
        ("a closed port", b"", "nothing in the guest listens on vsock port 1024"),
        ("another answer", b"EINVAL\n", "instead of OK"),
        ("an endless answer", b"O" * 1000, "instead of OK"),
    ):
        with device(answers(answer)) as path:
            told(what, Unreachable, words, lambda: Agent(Hybrid(path)))
    told("a missing socket", Unreachable, "/nowhere", lambda: Agent(Unix("/nowhere")))


def calling():
    def serves(serve):
        def behave(stream):
            receive(stream, 13)
            stream.sendall(OK)
            serve(stream)

        return behave

    def in_reverse(stream):
        calls = [request(stream) for _ in range(2)]
        for number, data in reversed(calls):
            version = messages.VersionCheckResponse(agent_version="Version" if b"Version" in data else "other")
            # What nobody asked for comes between.
            stream.sendall(frame(number + 1000, b"") + frame(number, response(version.to_bytes())))

    with device(serves(in_reverse)) as path, Agent(Hybrid(path)) as agent:
        got = []
        first = threading.Thread(target=lambda: got.append(agent.get_metrics().metrics))
        first.start()
        assert agent.version().agent_version == "Version"
        first.join()
        # Field 1 of Metrics is a text that the other message has not.
        assert got == [""], got

    def once(answer):
        def serve(stream):
            number, _ = request(stream)
            stream.sendall(answer(number))

        return serves(serve)

    refusal = response(code=5, words="no such container")
    for what, kind, words, answer in (
        ("a refusal", Refused, "NOT_FOUND: no such container", lambda number: frame(number, refusal)),
        ("an unknown code", Refused, "CODE_99: x", lambda number: frame(number, response(code=99, words="x"))),
        ("a deadline of the agent's", DeadlineExceeded, "too slow", lambda number: frame(number, response(code=4, words="too slow"))),
        ("garbage", DecodeError, "Check", lambda number: frame(number, b"\xff" * 9)),
        ("garbage in an answer", DecodeError, "Check", lambda number: frame(number, response(b"\x0a\xff"))),
        ("a frame that is too large", Unreachable, "bytes", lambda number: struct.pack(">IIBB", 1 << 30, number, 2, 0)),
        ("half a frame", Unreachable, "ended", lambda number: frame(number, refusal)[:-1]),
        ("an end", Unreachable, "ended", lambda number: b""),
    ):
        with device(once(answer)) as path, Agent(Hybrid(path)) as agent:
            told(what, kind, words, agent.check)

    def never(stream):
        while True:
            request(stream)

    _ttrpc._GRACE = 0.1
    with device(serves(never)) as path, Agent(Hybrid(path)) as agent:
        told("no answer", DeadlineExceeded, "0.2 s", lambda: agent.check(timeout=0.2))
        assert not agent._agent._waiting, "a call that was given up is forgotten"
        large = messages.SetPolicyRequest(policy="x" * (5 << 20))
        told("a request that is too large", ValueError, "4194304", lambda: agent.set_policy(large))
        agent.close()
        told("a closed connection", Unreachable, "closed", agent.check)


# What `pith logs --follow` does, without a pod.
FOLLOWED = """#!/bin/sh
echo one
exec sleep 1000
"""
# A program that ends before the log does.
UNREAD = """
import sys
from pith import Lines, aio
pod = aio.Pod(sys.argv[1], aio.Record("box", "running", None, (), {}), None, False)
lines = Lines(pod.follow())
print(next(lines))
"""


def following():
    with tempfile.TemporaryDirectory() as directory:
        program = pathlib.Path(directory) / "pith"
        program.write_text(FOLLOWED)
        program.chmod(0o755)
        command = [sys.executable, "-c", UNREAD, str(program)]
        done = subprocess.run(command, timeout=60, stdout=subprocess.PIPE, check=True)
        assert done.stdout == b"b'one\\n'\n", done.stdout
        print("a log that is not read to its end holds up nobody")


if __name__ == "__main__":
    dialling()
    calling()
    following()
