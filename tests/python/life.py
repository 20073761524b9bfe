#!/usr/bin/env python3
"""Runs a pod's whole life by the agent's methods alone, and checks each step. Needs the package `pith`.

    life.py --socket RUN/vsock.sock
    life.py --cid N

The guest has a disk with an erofs image that has a shell, at /dev/vda. Exit status 0 if all is as it should be.
"""

import argparse
import concurrent.futures
import sys
import threading

from pith import Agent, Hybrid, Refused, Vsock
from pith.services import DEADLINE, METHODS


class Guest:
    """An agent whose methods are called by name, with the fields of the request as keywords."""

    def __init__(self, agent):
        self.agent = agent
        self.threads = concurrent.futures.ThreadPoolExecutor()

    def call(self, method, timeout=DEADLINE, **request):
        known = METHODS[method]
        return self.agent.invoke(known, known.answer, known.request.from_dict(request), timeout)

    def begin(self, method, timeout=DEADLINE, **request):
        """Sends a call, and gives a function that waits for its answer."""
        return self.threads.submit(self.call, method, timeout, **request).result


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
        data = guest.call(stream, timeout=None, container_id=container_id, exec_id=exec_id, len=32768).data
        if not data:
            return out
        out += data


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

    check("health", guest.call("Check").status, 1)
    refused("a container without a sandbox", "FAILED_PRECONDITION", "CreateContainer", **container("early", disk, ["true"]))
    guest.call("CreateSandbox", sandbox_id="pod", hostname="from-python")
    # The first process: its output is asked for before it starts.
    guest.call("CreateContainer", **container("main", disk, ["sh", "-c", "echo hello from $(hostname); read line; echo got $line; exit 7"]))
    early = guest.begin("ReadStdout", timeout=None, container_id="main", len=100)
    waiting = guest.begin("WaitProcess", timeout=None, container_id="main")
    guest.call("StartContainer", container_id="main")
    check("stdout", early().data, b"hello from from-python\n")
    # An exec with binary data there and back.
    data = bytes(range(256)) * 400
    guest.call("ExecProcess", container_id="main", exec_id="cat", process=process(["cat"]))
    back = []
    reader = threading.Thread(target=lambda: back.append(read_all(guest, "main", "cat")))
    reader.start()
    for at in range(0, len(data), 30000):
        piece = data[at : at + 30000]
        check("written", guest.call("WriteStdin", container_id="main", exec_id="cat", data=piece).len, len(piece))
    guest.call("CloseStdin", container_id="main", exec_id="cat")
    reader.join()
    check("bytes came back the same", back[0] == data, True)
    check("status of cat", guest.call("WaitProcess", container_id="main", exec_id="cat").status, 0)
    # A terminal.
    guest.call("ExecProcess", container_id="main", exec_id="tty", process=process(["sh", "-c", "read x; stty size; exit 3"], True))
    guest.call("TtyWinResize", container_id="main", exec_id="tty", row=31, column=97)
    guest.call("WriteStdin", container_id="main", exec_id="tty", data=b"\n")
    check("size of the terminal", b"31 97" in read_all(guest, "main", "tty"), True)
    check("status of the terminal's shell", guest.call("WaitProcess", container_id="main", exec_id="tty").status, 3)
    # A signal.
    guest.call("ExecProcess", container_id="main", exec_id="sleep", process=process(["sleep", "1000"]))
    guest.call("SignalProcess", container_id="main", exec_id="sleep", signal=15)
    check("status after SIGTERM", guest.call("WaitProcess", container_id="main", exec_id="sleep").status, 143)
    guest.call("ExecProcess", container_id="main", exec_id="err", process=process(["sh", "-c", "echo to stderr >&2"]))
    check("stderr", read_all(guest, "main", "err", "ReadStderr"), b"to stderr\n")
    stats = guest.call("StatsContainer", container_id="main").cgroup_stats
    check("time was used", stats.cpu_stats.cpu_usage.total_usage > 0, True)
    refused("a program that is not there", "INVALID_ARGUMENT", "ExecProcess", container_id="main", exec_id="none", process=process(["/no/such/program"]))
    refused("an unknown process", "NOT_FOUND", "WaitProcess", container_id="main", exec_id="nobody")
    refused("an unknown container", "NOT_FOUND", "StatsContainer", container_id="nobody")
    # The answer to a call that was sent long ago, over the same connection.
    guest.call("WriteStdin", container_id="main", data=b"the end\n")
    check("rest of stdout", read_all(guest, "main"), b"got the end\n")
    check("status of the container", waiting().status, 7)
    guest.call("RemoveContainer", container_id="main")
    refused("a removed container", "NOT_FOUND", "WaitProcess", container_id="main")
    guest.call("DestroySandbox")
    print("done")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", metavar="PATH", help="the Unix socket of the guest's hybrid vsock")
    where.add_argument("--cid", metavar="N", type=int, help="the guest's context id")
    options = parser.parse_args()
    with Agent(Hybrid(options.socket) if options.socket else Vsock(options.cid)) as agent:
        life(Guest(agent), "/dev/vda")


if __name__ == "__main__":
    main()
