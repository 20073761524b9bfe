"""The same as `pith`, for asyncio: an agent, a pod, and its processes.

    import asyncio
    from pith import aio

    async def main():
        async with await aio.Pod.run("alpine", ["sleep", "infinity"]) as pod:
            done = await pod.exec(["uname", "-a"])
            print(done.stdout.decode())

    asyncio.run(main())
"""

from __future__ import annotations

import asyncio
import io
import itertools
import os
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Self

from . import _copy, messages as m
from ._program import Container, PathLike, Record, find, run_arguments
from ._results import Completed, Stats
from ._ttrpc import Connection
from .errors import CommandError, OutputTooLarge, PithError, ProgramError, Refused
from .services import AsyncMethods

# How much output is asked for at once, and how much input is sent: a message must fit into one vsock packet of devices
# that take no more.
_READ = 64 << 10
_WRITE = 24 << 10
#: The largest output of a command that is kept, in bytes: a container is not trusted with this process's memory.
LIMIT = 64 << 20
#: The most that is copied out of a container at once, in bytes.
COPY_LIMIT = 16 << 30

_numbers = itertools.count(1)


class Agent(Connection, AsyncMethods):
    """A connection to the agent of a guest, with a coroutine for each of its methods.

    `await Agent.open(Hybrid("/run/pith/web/vm/vsock.sock"))` dials it. Many calls may be under way at once."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Output:
    """What a process writes. Only what is asked for is fetched: a process whose output nobody reads waits."""

    def __init__(self, process: Process, is_error: bool) -> None:
        self._process, self._is_error = process, is_error
        self._kept = bytearray()
        self._ended = False
        # A call that goes on when its reader is cancelled: what the agent answers is for the next one.
        self._call: asyncio.Task[None] | None = None
        # Two readers at once would each get half.
        self._reading = asyncio.Lock()

    async def _fetch(self) -> bool:
        """Adds the next piece to what is kept; false at the end."""
        if self._ended:
            return False
        if self._call is None:
            self._call = asyncio.create_task(self._ask())
        try:
            await asyncio.shield(self._call)
        finally:
            if self._call.done():
                self._call = None
        return not self._ended

    async def _ask(self) -> None:
        agent, request = self._process.agent, m.ReadStreamRequest(*self._process.ids, len=_READ)
        try:
            call = agent.read_stderr if self._is_error else agent.read_stdout
            piece = (await call(request, timeout=None)).data
        except Refused:
            # So agents tell of a closed terminal and a process that is gone.
            piece = b""
        self._kept += piece
        self._ended = not piece

    async def read(self, count: int = -1) -> bytes:
        """At most `count` bytes as soon as there are some, or everything up to the end. Nothing is the end."""
        async with self._reading:
            if count < 0:
                while await self._fetch():
                    pass
                count = len(self._kept)
            elif not self._kept and count:
                await self._fetch()
            data = bytes(self._kept[:count])
            del self._kept[:count]
            return data

    async def readline(self) -> bytes:
        """A line with its end; the last one may have none. Nothing is the end."""
        async with self._reading:
            seen = 0
            while (end := self._kept.find(b"\n", seen)) < 0:
                seen = len(self._kept)
                if not await self._fetch():
                    end = seen - 1
                    break
            line = bytes(self._kept[: end + 1])
            del self._kept[: end + 1]
            return line

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Line by line."""
        while line := await self.readline():
            yield line


class Input:
    """What a process reads."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def write(self, data: bytes) -> None:
        """Writes all of it. Raises `BrokenPipeError` if the process does not take it any more."""
        at = 0
        while at < len(data):
            request = m.WriteStreamRequest(*self._process.ids, data=data[at : at + _WRITE])
            try:
                taken = (await self._process.agent.write_stdin(request, timeout=None)).len
            except Refused as error:
                raise BrokenPipeError(str(error)) from error
            if not taken:
                raise BrokenPipeError("the process takes nothing")
            at += taken

    async def close(self) -> None:
        """Ends the input. It may have ended before."""
        try:
            await self._process.agent.close_stdin(m.CloseStdinRequest(*self._process.ids))
        except Refused:
            pass


class Process:
    """A process in a container. The empty exec id is the container's first process."""

    def __init__(self, agent: Agent, container_id: str, exec_id: str) -> None:
        self.agent = agent
        #: The container's id, and the exec id.
        self.ids = (container_id, exec_id)
        self.stdin = Input(self)
        self.stdout = Output(self, False)
        self.stderr = Output(self, True)

    async def wait(self) -> int:
        """Waits for its end and gives its exit status: 128 plus the number of the signal that ended it, if one did."""
        return (await self.agent.wait_process(m.WaitProcessRequest(*self.ids), timeout=None)).status

    async def signal(self, number: int) -> None:
        """Sends a signal. Raises `Refused` with `NOT_FOUND` if it has ended."""
        await self.agent.signal_process(m.SignalProcessRequest(*self.ids, signal=number))

    async def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal."""
        await self.agent.tty_win_resize(m.TtyWinResizeRequest(*self.ids, row=rows, column=columns))

    async def communicate(self, data: bytes = b"", *, limit: int = LIMIT) -> Completed:
        """Feeds it, closes its input, and gives its output and its status. An output of more than `limit` bytes is an
        `OutputTooLarge`; the process is killed then."""
        stdout = io.BytesIO()
        status, stderr = await self._pump(io.BytesIO(data), stdout, limit)
        return Completed(status, stdout.getvalue(), stderr)

    async def _pump(self, source: IO[bytes], sink: IO[bytes], limit: int) -> tuple[int, bytes]:
        """Feeds it what a file has, and writes its output into another one; gives its status and its errors."""

        async def feed() -> None:
            try:
                while piece := source.read(_READ):
                    await self.stdin.write(piece)
            except BrokenPipeError:
                # As subprocess does: its status says more.
                pass
            await self.stdin.close()

        async def collect(output: Output, target: IO[bytes]) -> None:
            total = 0
            while piece := await output.read(_READ):
                total += len(piece)
                if total > limit:
                    raise OutputTooLarge(f"the process wrote more than {limit} bytes")
                target.write(piece)

        stderr = io.BytesIO()
        try:
            async with asyncio.TaskGroup() as group:
                for work in (feed(), collect(self.stdout, sink), collect(self.stderr, stderr)):
                    group.create_task(work)
        except BaseExceptionGroup as errors:
            # Not by `except*`: Python 3.11.2 puts what is raised there into another group.
            first = next((error for error in errors.exceptions if isinstance(error, OutputTooLarge)), errors.exceptions[0])
            if isinstance(first, OutputTooLarge):
                await self.__aexit__(None, None, None)
            raise first from None
        return await self.wait(), stderr.getvalue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills it if it still runs."""
        try:
            await self.signal(9)
        except PithError:
            pass


class Pod:
    """A pod in a virtual machine of its own, which the program `pith` runs on this host.

    `Pod.run` starts one from an image, `Pod.run_file` from a manifest, and `Pod.connect` takes one that runs. As a context
    manager, a pod that was started here is removed at the end; one that was connected to is left alone."""

    def __init__(self, program: str, record: Record, agent: Agent, is_ours: bool) -> None:
        self._program, self._is_ours = program, is_ours
        #: What was known about it when it was connected to.
        self.record = record
        #: Its agent, for everything that this class has no function for.
        self.agent = agent

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @classmethod
    async def run(
        cls,
        image: str,
        command: Sequence[str] = (),
        *,
        name: str | None = None,
        env: Mapping[str, str] = {},
        volumes: Iterable[str] = (),
        ports: Iterable[str] = (),
        memory: str | int | None = None,
        cpus: int | None = None,
        user: str | None = None,
        workdir: str | None = None,
        entrypoint: str | None = None,
        interactive: bool = False,
        options: Iterable[str] = (),
        program: PathLike | None = None,
    ) -> Pod:
        """Starts a pod of one container, and returns when it is ready: `pith run --detach`.

        The parameters are the options of `pith run`; `options` are further ones, as they are. Raises `ProgramError` with
        what `pith` says."""
        arguments = run_arguments(
            image,
            command,
            name=name,
            env=env,
            volumes=volumes,
            ports=ports,
            memory=memory,
            cpus=cpus,
            user=user,
            workdir=workdir,
            entrypoint=entrypoint,
            interactive=interactive,
            options=options,
        )
        return await cls._started(find(program), arguments)

    @classmethod
    async def run_file(
        cls, manifest: PathLike, *, options: Iterable[str] = (), program: PathLike | None = None
    ) -> Pod:
        """Starts the pod of a manifest, and returns when it is ready."""
        return await cls._started(find(program), ["run", "--detach", *options, "--file", os.fspath(manifest)])

    @classmethod
    async def connect(cls, name: str, *, program: PathLike | None = None) -> Pod:
        """Takes a pod that runs."""
        found = find(program)
        return await cls._connected(found, name, False)

    @classmethod
    async def _started(cls, program: str, arguments: list[str]) -> Pod:
        name = (await _call(program, *arguments)).decode().split()[-1]
        try:
            return await cls._connected(program, name, True)
        except BaseException:
            await _call(program, "rm", "--force", name)
            raise

    @classmethod
    async def _connected(cls, program: str, name: str, is_ours: bool) -> Pod:
        record = Record.parse(await _call(program, "inspect", name))
        return cls(program, record, await Agent.open(record.reached_at()), is_ours)

    async def inspect(self) -> Record:
        """What is known about it now."""
        return Record.parse(await _call(self._program, "inspect", self.name))

    async def start(
        self,
        command: Sequence[str],
        *,
        container: str | None = None,
        env: Mapping[str, str] = {},
        cwd: str | None = None,
        user: str | None = None,
        tty: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Process:
        """Starts a process in a container, with that container's environment, directory and user where nothing else is
        said. Its input stays open until it is closed."""
        if isinstance(command, (str, bytes)):
            raise TypeError('a command is a list of words, such as ["sh", "-c", "echo hello"]')
        where = self.record.container(container)
        exec_id = f"python-{os.getpid()}-{time.time_ns()}-{next(_numbers)}"
        request = m.ExecProcessRequest(
            container_id=where.id, exec_id=exec_id, process=_process(where, command, env, cwd, user, tty, size)
        )
        if user is not None:
            uid, _, gid = user.partition(":")
            request.string_user = m.StringUser(uid=uid, gid=gid)
        await self.agent.exec_process(request)
        return Process(self.agent, where.id, exec_id)

    async def exec(
        self,
        command: Sequence[str],
        *,
        input: bytes = b"",
        check: bool = False,
        limit: int = LIMIT,
        container: str | None = None,
        env: Mapping[str, str] = {},
        cwd: str | None = None,
        user: str | None = None,
    ) -> Completed:
        """Runs a command in a container to its end. With `check`, a status other than 0 is a `CommandError`. An output of
        more than `limit` bytes is an `OutputTooLarge`, and the command is killed; read it from `start` instead."""
        process = await self.start(command, container=container, env=env, cwd=cwd, user=user)
        async with process:
            done = await process.communicate(input, limit=limit)
        if check and done.status:
            raise CommandError(list(command), done.status, done.stderr)
        return done

    async def copy_in(self, source: PathLike, target: str, *, container: str | None = None) -> None:
        """Copies a file or a directory of this host to a path of a container. Where `target` is a directory, it is put
        into it under its own name. It belongs to root there. The image needs a shell and `tar`, as busybox has."""
        path = Path(source)
        command = _copy.unpack_command(target, path)
        with tempfile.TemporaryFile() as archive:
            await asyncio.to_thread(_copy.pack, path, archive)
            archive.seek(0)
            done = await self._through(command, archive, io.BytesIO(), LIMIT, container)
        _copy.check(done, f"copy {source} to {target}")

    async def copy_out(
        self, source: str, target: PathLike, *, container: str | None = None, limit: int = COPY_LIMIT
    ) -> None:
        """Copies a file or a directory of a container to this host. Where `target` is a directory, it is put into it
        under its own name. The image needs `tar`. Devices, and links that lead out of what is copied, are refused."""
        command = _copy.pack_command(source)
        with tempfile.TemporaryFile() as archive:
            done = await self._through(command, io.BytesIO(), archive, limit, container)
            _copy.check(done, f"copy {source} to {target}")
            archive.seek(0)
            name = PurePosixPath(source).name
            await asyncio.to_thread(_copy.unpack, archive, name, Path(target), limit)

    async def _through(
        self, command: list[str], source: IO[bytes], sink: IO[bytes], limit: int, container: str | None
    ) -> Completed:
        try:
            # Whoever the container runs as: a copy is its owner's.
            process = await self.start(command, container=container, user="0")
        except Refused as error:
            raise PithError(f"cannot copy: {error.message}; the image needs a shell and `tar`") from error
        async with process:
            status, stderr = await process._pump(source, sink, limit)
        return Completed(status, b"", stderr)

    async def stats(self, container: str | None = None) -> Stats:
        """What a container uses now."""
        request = m.StatsContainerRequest(container_id=self.record.container(container).id)
        return Stats.of(await self.agent.stats_container(request))

    async def logs(self, container: str | None = None, *, tail: int | None = None) -> bytes:
        """What a container has written, as far as it is kept; also after its end. `tail` wants the last lines only."""
        words = ["logs", *([] if tail is None else [f"--tail={tail}"]), self.name]
        return await _call(self._program, *words, *([] if container is None else [container]))

    async def follow(self, container: str | None = None) -> AsyncGenerator[bytes, None]:
        """What a container has written and writes, line by line, until its end."""
        words = ["logs", "--follow", self.name, *([] if container is None else [container])]
        command = await asyncio.create_subprocess_exec(
            self._program, *words, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
        assert command.stdout is not None
        try:
            async for line in command.stdout:
                yield line
        finally:
            if command.returncode is None:
                command.terminate()
            await command.wait()

    async def wait(self) -> int:
        """Waits until the pod has ended, and gives the exit status of its run."""
        return int(await _call(self._program, "wait", self.name))

    async def stop(self, timeout: int | None = None) -> None:
        """Stops it in order: hooks, signals, grace period. Uses force after `timeout` seconds."""
        await _call(self._program, "stop", *([] if timeout is None else [f"--timeout={timeout}"]), self.name)

    async def remove(self) -> None:
        """Ends it if it runs, and removes its record and its logs."""
        await self.agent.close()
        await _call(self._program, "rm", "--force", self.name)

    async def close(self) -> None:
        """Ends the connection to its agent. The pod goes on."""
        await self.agent.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.remove() if self._is_ours else self.close())


def _process(
    where: Container,
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: str | None,
    user: str | None,
    tty: bool,
    size: tuple[int, int] | None,
) -> m.Process:
    defaults = where.process
    variables = dict(variable.partition("=")[::2] for variable in defaults["env"])
    if user is not None and defaults.get("home_is_default"):
        # Another user has another home, which the guest finds.
        variables.pop("HOME", None)
    if tty:
        variables.setdefault("TERM", "xterm")
    variables.update(env)
    # The agent looks up a user that is named; that of the container is known.
    known = m.User() if user is not None else m.User(defaults["uid"], defaults["gid"], list(defaults["groups"]))
    return m.Process(
        Terminal=tty,
        ConsoleSize=m.Box(Height=size[0], Width=size[1]) if tty and size else None,
        User=known,
        Args=list(command),
        Env=[f"{name}={value}" for name, value in variables.items()],
        Cwd=cwd or defaults["cwd"],
        NoNewPrivileges=defaults["no_new_privileges"],
    )


async def _call(program: str, *words: str) -> bytes:
    """Runs `pith` to its end, and gives what it printed."""
    command = await asyncio.create_subprocess_exec(
        program,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await command.communicate()
    except BaseException:
        if command.returncode is None:
            command.terminate()
            await command.wait()
        raise
    if command.returncode:
        raise ProgramError(["pith", *words], command.returncode, err.decode(errors="replace"))
    return out
