#!/usr/bin/env python3
"""Drives a guest from Python, with nothing but the standard library.

The agent speaks ttrpc (frames on a stream) with protobuf messages. Both are small enough to be written down here, from
their specifications and from the table of messages in tests/wire/api.txt: no code of the project's Rust side is used.

    pith.py --socket RUN/vsock.sock check
    pith.py --socket RUN/vsock.sock call ListInterfaces
    pith.py --socket RUN/vsock.sock call StatsContainer '{"container_id": "web"}'
    pith.py --socket RUN/vsock.sock methods
    pith.py --socket RUN/vsock.sock life --disk /dev/vda

As a library:

    from pith import Guest
    guest = Guest.hybrid("RUN/vsock.sock")          # or Guest.vsock(cid)
    guest.call("CreateSandbox", sandbox_id="pod", hostname="pod")

Exit status: 0 done, 1 the agent refused or a check failed, 2 wrong usage or no guest there.
"""

import argparse
import base64
import json
import pathlib
import queue
import re
import socket
import struct
import sys
import threading

TABLE = pathlib.Path(__file__).resolve().parent.parent / "wire" / "api.txt"
PORT = 1024
REQUEST, RESPONSE = 1, 2
LARGEST = 4 << 20


class Refused(Exception):
    """The agent answered with an error: `code` is its name, as `NOT_FOUND`."""

    CODES = (
        "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
        "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
        "UNAUTHENTICATED"
    ).split()

    def __init__(self, code, message):
        self.code = self.CODES[code] if code < len(self.CODES) else f"CODE_{code}"
        self.message = message
        super().__init__(f"{self.code}: {message}")


class Unreachable(Exception):
    """There is no agent at that address, or it is gone."""


# Protobuf: the table, and messages as dictionaries.


class Schema:
    """The messages and methods of tests/wire/api.txt."""

    def __init__(self, text):
        self.messages = {"google.protobuf.Empty": []}
        self.enums, self.methods = set(), {}
        service = package = None
        for line in text.splitlines():
            word, _, rest = line.strip().partition(" ")
            if not word or word.startswith("#"):
                continue
            if line.startswith("  "):
                name, given, taken = re.fullmatch(r"(\w+): (\S+) -> (\S+)", line.strip()).groups()
                self.methods[name] = (f"{package}.{service}", given, taken)
            elif word == "file":
                package = rest.split()[-1]
            elif word == "service":
                service = rest
            elif word == "message":
                name, _, fields = rest.partition(":")
                parts = [part.split() for part in fields.split(";") if part.strip()]
                self.messages[name] = [(int(part[0]), part[1], part[2]) for part in parts]
            elif word == "enum":
                self.enums.add(rest.partition(":")[0])

    def fields(self, message):
        return self.messages[message] if message in self.messages else self.messages[message.rpartition(".")[2]]

    def is_number(self, kind):
        return kind in ("bool", "int32", "int64", "uint32", "uint64") or kind in self.enums or self.is_enum(kind)

    def is_enum(self, kind):
        return any(enum.rpartition(".")[2] == kind.rpartition(".")[2] for enum in self.enums)

    def encode(self, message, value):
        out = bytearray()
        known = {name: (number, kind) for number, name, kind in self.fields(message)}
        for name, given in value.items():
            if name not in known:
                raise KeyError(f"{message} has no field {name!r}; it has: {', '.join(known) or 'none'}")
            number, kind = known[name]
            if pair := re.fullmatch(r"map<(\w+),([\w.]+)>", kind):
                for key, item in given.items():
                    entry = self.field(1, pair[1], key) + self.field(2, pair[2], item)
                    out += varint(number << 3 | 2) + varint(len(entry)) + entry
            elif kind.endswith("[]"):
                kind = kind[:-2]
                if self.is_number(kind):
                    packed = b"".join(varint(int(item)) for item in given)
                    out += varint(number << 3 | 2) + varint(len(packed)) + packed if given else b""
                else:
                    out += b"".join(self.field(number, kind, item) for item in given)
            elif kind.endswith("?"):
                out += self.field(number, kind[:-1], given)
            elif given or isinstance(given, dict):
                # proto3 leaves out what has the default value.
                out += self.field(number, kind, given)
        return bytes(out)

    def field(self, number, kind, value):
        if self.is_number(kind):
            return varint(number << 3) + varint(int(value))
        if kind == "string":
            data = value.encode()
        elif kind == "bytes":
            data = base64.b64decode(value) if isinstance(value, str) else bytes(value)
        else:
            data = self.encode(kind, value)
        return varint(number << 3 | 2) + varint(len(data)) + data

    def decode(self, message, data):
        value, known = {}, {}
        for number, name, kind in self.fields(message):
            known[number] = (name, kind)
            if kind.startswith("map<"):
                value[name] = {}
            elif kind.endswith("[]"):
                value[name] = []
            elif kind == "string":
                value[name] = ""
            elif kind == "bytes":
                value[name] = b""
            elif kind == "bool":
                value[name] = False
            elif self.is_number(kind):
                value[name] = 0
        for number, wire, raw in fields_of(data):
            if number not in known:
                continue
            name, kind = known[number]
            if pair := re.fullmatch(r"map<(\w+),([\w.]+)>", kind):
                entry = {n: self.scalar(pair[n], r) for n, _, r in fields_of(raw)}
                value[name][entry.get(1, "")] = entry.get(2, 0)
            elif kind.endswith("[]"):
                kind = kind[:-2]
                if self.is_number(kind) and wire == 2:
                    value[name] += [self.scalar(kind, item) for item in varints(raw)]
                else:
                    value[name].append(self.scalar(kind, raw))
            else:
                value[name] = self.scalar(kind.rstrip("?"), raw)
        return value

    def scalar(self, kind, raw):
        if kind == "bool":
            return bool(raw)
        if kind in ("int32", "int64"):
            return raw - (1 << 64) if raw >> 63 else raw
        if self.is_number(kind):
            return raw
        if kind == "string":
            return raw.decode()
        return bytes(raw) if kind == "bytes" else self.decode(kind, raw)


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return number, at


def varints(data):
    at = 0
    while at < len(data):
        number, at = read_varint(data, at)
        yield number


def fields_of(data):
    """Yields (number, wire type, value) of each field in a message's bytes."""
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = read_varint(data, at)
        elif wire == 2:
            length, at = read_varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            size = {1: 8, 5: 4}[wire]
            value, at = data[at : at + size], at + size
        yield key >> 3, wire, value


# ttrpc: frames, and calls that may be answered in any order.


class Guest:
    """A connection to an agent. Calls may be made from several threads at once."""

    def __init__(self, stream):
        self.schema = Schema(TABLE.read_text())
        self.stream, self.lock, self.sending = stream, threading.Lock(), threading.Lock()
        self.next, self.waiting, self.end = 1, {}, None
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    def hybrid(cls, path, port=PORT):
        """Over the unix socket of a VMM that offers hybrid vsock, as Firecracker, Cloud Hypervisor and vhost-device-vsock do."""
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.settimeout(30)
            stream.connect(str(path))
            stream.sendall(f"CONNECT {port}\n".encode())
            line = b""
            while not line.endswith(b"\n"):
                byte = stream.recv(1)
                if not byte:
                    raise Unreachable(f"{path}: nothing listens on port {port} of the guest")
                line += byte
            if not line.startswith(b"OK "):
                raise Unreachable(f"{path}: {line!r} instead of OK")
            stream.settimeout(None)
        except OSError as error:
            raise Unreachable(f"{path}: {error}") from error
        return cls(stream)

    @classmethod
    def vsock(cls, cid, port=PORT):
        """Over the host kernel's vsock."""
        stream = socket.socket(socket.AF_VSOCK)
        try:
            stream.connect((cid, port))
        except OSError as error:
            raise Unreachable(f"vsock {cid}:{port}: {error}") from error
        return cls(stream)

    def begin(self, method, deadline_s=60, **request):
        """Sends a call and gives a function that waits for its answer."""
        if method not in self.schema.methods:
            raise KeyError(f"no method {method!r}; `methods` lists them")
        service, given, taken = self.schema.methods[method]
        payload = self.schema.encode(given, request)
        body = b"".join(
            varint(number << 3 | 2) + varint(len(data)) + data
            for number, data in ((1, service.encode()), (2, method.encode()), (3, payload))
            if data
        )
        if deadline_s:
            body += varint(4 << 3) + varint(int(deadline_s * 1e9))
        if len(body) > LARGEST:
            raise ValueError(f"{method}: {len(body)} bytes are more than a frame of {LARGEST} holds")
        answer = queue.Queue()
        # Ids rise on the wire; and the reader must not wait for a sender whose peer waits for the reader.
        with self.sending:
            with self.lock:
                if self.end:
                    raise Unreachable(self.end)
                stream, self.next = self.next, self.next + 2
                self.waiting[stream] = answer
            try:
                self.stream.sendall(struct.pack(">IIBB", len(body), stream, REQUEST, 0) + body)
            except OSError as error:
                raise Unreachable(str(error)) from error

        def wait():
            try:
                data = answer.get(timeout=deadline_s + 10 if deadline_s else None)
            except queue.Empty:
                raise Unreachable(f"no answer to {method}") from None
            if data is None:
                raise Unreachable(self.end)
            status, payload = {}, b""
            try:
                for number, _, value in fields_of(data):
                    if number == 1:
                        status = {n: v for n, _, v in fields_of(value)}
                    elif number == 2:
                        payload = value
            except (IndexError, KeyError) as error:
                raise Unreachable(f"the answer to {method} makes no sense: {data.hex()}") from error
            if status.get(1, 0):
                raise Refused(status[1], status.get(2, b"").decode(errors="replace"))
            return self.schema.decode(taken, payload)

        return wait

    def call(self, method, deadline_s=60, **request):
        """Makes a call and gives its answer as a dictionary. `deadline_s` seconds may pass, 0 is for ever; all else
        is a field of the request."""
        return self.begin(method, deadline_s, **request)()

    def close(self):
        """Ends the connection."""
        self.stream.close()

    def _read(self):
        try:
            while True:
                length, stream, kind, _ = struct.unpack(">IIBB", self._exactly(10))
                data = self._exactly(length)
                with self.lock:
                    answer = self.waiting.pop(stream, None)
                if kind == RESPONSE and answer:
                    answer.put(data)
        except (OSError, EOFError) as error:
            with self.lock:
                self.end = f"the agent is gone: {error}"
                for answer in self.waiting.values():
                    answer.put(None)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.stream.recv(count - len(data))
            if not piece:
                raise EOFError("the connection ended")
            data += piece
        return data


# Containers of a guest that has an image on a disk.


def container(container_id, disk, args, terminal=False):
    """A CreateContainer request: the image on `disk` read-only, and a writable layer in the guest's memory on it."""
    base = f"/run/kata-containers/{container_id}"
    made = [f"io.katacontainers.volume.overlayfs.create_directory={base}/{name}" for name in ("upper", "work")]
    layers = [f"lowerdir={base}/image", f"upperdir={base}/upper", f"workdir={base}/work"]
    image = {"driver": "blk", "source": disk, "fstype": "erofs", "options": ["ro"], "mount_point": f"{base}/image"}
    root = {
        "driver": "overlayfs", "source": "overlay", "fstype": "overlay", "options": layers,
        "driver_options": made, "mount_point": f"{base}/rootfs",
    }
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "ptmxmode=0666", "gid=5"]},
    ]
    spec = {
        "Version": "1.2.0",
        "Process": process(args, terminal),
        "Root": {"Path": f"{base}/rootfs"},
        "Mounts": mounts,
        "Linux": {"Namespaces": [{"Type": kind} for kind in ("ipc", "uts", "mount")], "CgroupsPath": f"/{container_id}"},
    }
    return {"container_id": container_id, "storages": [image, root], "OCI": spec}


def process(args, terminal=False):
    """A process of a container, as an ExecProcess request wants it."""
    return {"Args": args, "Cwd": "/", "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Terminal": terminal, "User": {}}


def read_all(guest, container_id, exec_id="", stream="ReadStdout"):
    """All that a process writes to an output until it ends."""
    out = b""
    while True:
        answer = guest.call(stream, deadline_s=0, container_id=container_id, exec_id=exec_id, len=32768)
        if not answer["data"]:
            return out
        out += answer["data"]


def life(guest, disk):
    """A pod's whole life, each step of it checked."""

    def check(what, got, wanted):
        print(f"{what}: {got!r}")
        if got != wanted:
            sys.exit(f"{what}: {got!r} instead of {wanted!r}")

    def refused(what, code, method, **request):
        try:
            answer = guest.call(method, **request)
        except Refused as error:
            check(what, error.code, code)
        else:
            sys.exit(f"{what}: {method} answered {answer!r} instead of {code}")

    check("health", guest.call("Check")["status"], 1)
    refused("a container without a sandbox", "FAILED_PRECONDITION", "CreateContainer", **container("early", disk, ["true"]))
    guest.call("CreateSandbox", sandbox_id="pod", hostname="from-python")
    # The first process: its output is asked for before it starts.
    guest.call("CreateContainer", **container("main", disk, ["sh", "-c", "echo hello from $(hostname); read line; echo got $line; exit 7"]))
    early = guest.begin("ReadStdout", deadline_s=0, container_id="main", len=100)
    waiting = guest.begin("WaitProcess", deadline_s=0, container_id="main")
    guest.call("StartContainer", container_id="main")
    check("stdout", early()["data"], b"hello from from-python\n")
    # An exec with binary data there and back.
    data = bytes(range(256)) * 400
    guest.call("ExecProcess", container_id="main", exec_id="cat", process=process(["cat"]))
    back = []
    reader = threading.Thread(target=lambda: back.append(read_all(guest, "main", "cat")))
    reader.start()
    for at in range(0, len(data), 30000):
        piece = data[at : at + 30000]
        check("written", guest.call("WriteStdin", container_id="main", exec_id="cat", data=piece)["len"], len(piece))
    guest.call("CloseStdin", container_id="main", exec_id="cat")
    reader.join()
    check("bytes came back the same", back[0] == data, True)
    check("status of cat", guest.call("WaitProcess", container_id="main", exec_id="cat")["status"], 0)
    # A terminal.
    guest.call("ExecProcess", container_id="main", exec_id="tty", process=process(["sh", "-c", "read x; stty size; exit 3"], True))
    guest.call("TtyWinResize", container_id="main", exec_id="tty", row=31, column=97)
    guest.call("WriteStdin", container_id="main", exec_id="tty", data=b"\n")
    check("size of the terminal", b"31 97" in read_all(guest, "main", "tty"), True)
    check("status of the terminal's shell", guest.call("WaitProcess", container_id="main", exec_id="tty")["status"], 3)
    # A signal.
    guest.call("ExecProcess", container_id="main", exec_id="sleep", process=process(["sleep", "1000"]))
    guest.call("SignalProcess", container_id="main", exec_id="sleep", signal=15)
    check("status after SIGTERM", guest.call("WaitProcess", container_id="main", exec_id="sleep")["status"], 143)
    guest.call("ExecProcess", container_id="main", exec_id="err", process=process(["sh", "-c", "echo to stderr >&2"]))
    check("stderr", read_all(guest, "main", "err", "ReadStderr"), b"to stderr\n")
    stats = guest.call("StatsContainer", container_id="main")["cgroup_stats"]
    check("time was used", stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0, True)
    refused("a program that is not there", "INVALID_ARGUMENT", "ExecProcess", container_id="main", exec_id="none", process=process(["/no/such/program"]))
    refused("an unknown process", "NOT_FOUND", "WaitProcess", container_id="main", exec_id="nobody")
    refused("an unknown container", "NOT_FOUND", "StatsContainer", container_id="nobody")
    # The answer to a call that was sent long ago, over the same connection.
    guest.call("WriteStdin", container_id="main", data=b"the end\n")
    check("rest of stdout", read_all(guest, "main"), b"got the end\n")
    check("status of the container", waiting()["status"], 7)
    guest.call("RemoveContainer", container_id="main")
    refused("a removed container", "NOT_FOUND", "WaitProcess", container_id="main")
    guest.call("DestroySandbox")
    print("done")


def shown(value):
    """Bytes are shown as text where they are text, else in base64."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def main():
    description = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description[0], epilog=description[2], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", metavar="PATH", help="unix socket of the guest's hybrid vsock")
    where.add_argument("--cid", metavar="N", type=int, help="the guest's context id, where the host's kernel has vsock")
    parser.add_argument("--timeout", metavar="S", type=float, default=60, help="seconds that `call` may take, 0 for ever")
    orders = parser.add_subparsers(dest="order", required=True)
    orders.add_parser("check", help="ask for health and version")
    orders.add_parser("methods", help="list the methods and their requests")
    one = orders.add_parser("call", help="make one call and print its answer as JSON")
    one.add_argument("method")
    one.add_argument("request", nargs="?", default="{}", help="JSON; bytes in base64")
    whole = orders.add_parser("life", help="run a pod's whole life and check each step")
    whole.add_argument("--disk", default="/dev/vda", help="disk of the guest with an erofs image that has a shell")
    options = parser.parse_args()
    try:
        guest = Guest.hybrid(options.socket) if options.socket else Guest.vsock(options.cid)
        if options.order == "check":
            health, version = guest.call("Check"), guest.call("Version")
            print(f"{'serving' if health['status'] == 1 else 'not serving'}, agent {version['agent_version']}")
            return 0 if health["status"] == 1 else 1
        if options.order == "methods":
            for name, (service, given, _) in guest.schema.methods.items():
                fields = ", ".join(f"{field} {kind}" for _, field, kind in guest.schema.fields(given))
                print(f"{service} {name}({fields})")
        elif options.order == "call":
            request = json.loads(options.request)
            if not isinstance(request, dict):
                raise ValueError(f"a request is a JSON object, not {options.request}")
            answer = guest.call(options.method, options.timeout, **request)
            print(json.dumps(answer, indent=2, default=shown))
        else:
            life(guest, options.disk)
        return 0
    except Refused as error:
        print(f"pith.py: {error}", file=sys.stderr)
        return 1
    except (Unreachable, AttributeError, KeyError, TypeError, ValueError) as error:
        text = error.args[0] if error.args else error
        print(f"pith.py: {text}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
