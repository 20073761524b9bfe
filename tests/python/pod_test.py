#!/usr/bin/env python3
"""Drives a pod with the package as it is installed: pod_test.py IMAGE DIRECTORY. Exit status 0 if all is as it should be."""

import asyncio
import pathlib
import sys
import threading

import pith
from pith import Agent, CommandError, OutputTooLarge, PithError, Pod, ProgramError, Refused, Unreachable, aio, messages


def check(what, got, wanted=True):
    print(f"{what}: {got!r}", flush=True)
    if got != wanted:
        sys.exit(f"{what}: {got!r} instead of {wanted!r}")


def refused(what, kind, words, work):
    try:
        got = work()
    except kind as error:
        check(f"{what}: {error}", words in str(error))
    else:
        sys.exit(f"{what}: {got!r} instead of {kind.__name__}")


SCRIPT = "echo one; echo two >&2; trap 'exit 3' TERM; while :; do sleep 1; done"


def waiting(image, here):
    run = dict(name="python", memory="320m", env={"A": "a $(b)"}, workdir="/tmp", user="1000:1000")
    with Pod.run(image, ["sh", "-c", SCRIPT], **run) as pod:
        check("name", pod.name, "python")
        check("health", pod.agent.check().status, messages.ServingStatus.SERVING)
        # What a command has by default is what its container has.
        done = pod.exec(["sh", "-c", "echo $A; pwd; id -u; cat; echo oops >&2; exit 7"], input=b"typed\n")
        check("exec", (done.status, done.stdout, done.stderr), (7, b"a $(b)\n/tmp\n1000\ntyped\n", b"oops\n"))
        done = pod.exec(["sh", "-c", "echo $A $B; pwd; whoami"], env={"A": "x"}, cwd="/", user="root", check=True)
        check("exec otherwise", done.stdout, b"x\n/\nroot\n")
        refused("check", CommandError, "ended with status 1: no", lambda: pod.exec(["sh", "-c", "echo no >&2; exit 1"], check=True))
        refused("no program", Refused, "/no/such", lambda: pod.exec(["/no/such/program"]))
        refused("no container", PithError, "no container 'x'", lambda: pod.exec(["true"], container="x"))
        refused("too much", OutputTooLarge, "1000 bytes", lambda: pod.exec(["cat", "/dev/zero"], limit=1000))
        # Streams, in both directions at once.
        data = bytes(range(256)) * 1000
        with pod.start(["cat"]) as process:
            feed = threading.Thread(target=lambda: (process.stdin.write(data), process.stdin.close()))
            feed.start()
            back = process.stdout.read()
            feed.join()
            check("bytes came back the same", back == data)
            check("status", process.wait(), 0)
        with pod.start(["sh", "-c", "echo a; echo b; sleep 1000"]) as process:
            check("lines", [process.stdout.readline(), process.stdout.readline()], [b"a\n", b"b\n"])
            process.signal(15)
            check("status after SIGTERM", process.wait(), 143)
        with pod.start(["sh", "-c", "read x; stty size; exit 3"], tty=True, size=(31, 97)) as process:
            process.stdin.write(b"\n")
            check("size of the terminal", b"31 97" in process.stdout.read())
            check("status of its shell", process.wait(), 3)
        copies(pod, here)
        stats = pod.stats()
        check("stats", stats.cpu_ns > 0 and stats.memory_bytes > 0 and stats.processes > 0)
        check("logs", sorted(pod.logs().split()), [b"one", b"two"])
        check("the last line", pod.logs(tail=1).count(b"\n"), 1)
        check("followed", next(iter(pod.follow())) in (b"one\n", b"two\n"))
        with Pod.connect("python") as again:
            check("another connection", again.exec(["echo", "hi"]).stdout, b"hi\n")
        check("it goes on", pod.inspect().phase, "running")
        refused("the name is taken", ProgramError, "is running already", lambda: Pod.run(image, name="python"))
        # The other ways to the same agent.
        endpoint = pod.record.reached_at()
        with Agent(endpoint) as agent:
            refused("an unknown container", Refused, "NOT_FOUND", lambda: agent.process("nobody").wait())
            refused("no deadline is kept", pith.DeadlineExceeded, "", lambda: agent.get_oom_event(timeout=0.5))
        ended = []
        waiter = threading.Thread(target=lambda: ended.append(pod.wait()))
        waiter.start()
        pod.stop()
        waiter.join()
        check("status of the pod", ended, [3])
        check("its record", pod.inspect().phase, "ended")
        refused("it is gone", Unreachable, "", lambda: pod.exec(["true"]))
        refused("and cannot be connected to", Unreachable, "it is ended", lambda: Pod.connect("python"))
    refused("nothing is left", ProgramError, "python", lambda: Pod.connect("python"))
    refused("nobody there", Unreachable, "/nowhere", lambda: Agent(pith.Hybrid("/nowhere")))
    refused("no image", ProgramError, "", lambda: Pod.run("./no/such/image", name="none"))


def copies(pod, here):
    tree = here / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "data").write_bytes(bytes(range(256)) * 300)
    (tree / "sub/link").symlink_to("../data")
    pod.copy_in(tree, "/tmp/new/place")
    pod.copy_in(tree / "data", "/tmp")
    check("copied in", pod.exec(["sh", "-c", "cd /tmp; ls new/place; wc -c < data"]).stdout, b"data\nsub\n76800\n")
    # The container runs as somebody else.
    pod.copy_in(tree / "data", "/root/data")
    check("owner", pod.exec(["stat", "-c", "%u:%g", "/root/data"], user="0").stdout, b"0:0\n")
    pod.copy_out("/tmp/new/place", here / "back")
    check("copied out", (here / "back/sub/link").read_bytes() == (tree / "data").read_bytes())
    pod.copy_out("/etc/passwd", here)
    check("a file", (here / "passwd").read_bytes().startswith(b"root:"))
    refused("a missing file", PithError, "no/such", lambda: pod.copy_out("/no/such", here))
    refused("a device", PithError, "not copied", lambda: pod.copy_out("/dev/null", here))


async def at_once(image):
    async with await aio.Pod.run(image, ["sleep", "1000"], name="python-aio", memory="320m") as pod:
        # Many calls over one connection.
        work = [pod.exec(["sh", "-c", f"sleep 1; echo {number}"]) for number in range(4)]
        done = await asyncio.gather(*work)
        check("all of them", [one.stdout for one in done], [f"{number}\n".encode() for number in range(4)])
        async with await pod.start(["sh", "-c", "while read x; do echo got $x; done"]) as process:
            await process.stdin.write(b"a\nb\n")
            check("a line", await process.stdout.readline(), b"got a\n")
            await process.stdin.close()
            check("the rest", [line async for line in process.stdout], [b"got b\n"])
            check("status", await process.wait(), 0)
        # A read that is given up loses nothing.
        async with await pod.start(["sh", "-c", "sleep 2; echo late"]) as process:
            try:
                await asyncio.wait_for(process.stdout.readline(), 0.5)
            except asyncio.TimeoutError:
                check("it came", await process.stdout.readline(), b"late\n")
        # A wait that is given up leaves the connection as good as before.
        process = await pod.start(["sleep", "1000"])
        try:
            await asyncio.wait_for(process.wait(), 1)
        except asyncio.TimeoutError:
            await process.signal(9)
        check("status after SIGKILL", await process.wait(), 137)
        check("stats", (await pod.stats()).processes > 0)


def main():
    image, here = sys.argv[1], pathlib.Path(sys.argv[2])
    check("it is the installed one", "site-packages" in (pith.__file__ or ""))
    waiting(image, here)
    asyncio.run(at_once(image))
    print("done")


if __name__ == "__main__":
    main()
