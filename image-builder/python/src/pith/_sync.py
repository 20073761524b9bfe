"""The functions that wait: the coroutines of `aio`, run in a thread of this package's own."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from . import aio
from ._codec import Message
from ._program import PathLike, Record
from ._results import Completed, Stats
from .endpoint import Endpoint
from .services import Method, Methods

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_T = TypeVar("_T")
_M = TypeVar("_M", bound=Message)
# How long what need not be waited for may hold up others, in seconds.
_LEAVING = 1.0


class _Loop:
    """A thread that runs coroutines."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pith", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C, which only the main thread gets.
            future.cancel()
            raise


    def leave(self, work: Coroutine[Any, Any, None]) -> None:
        """Has something done that need not be waited for, from wherever garbage is collected or the program ends."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        if threading.current_thread() is not self._thread:
            with contextlib.suppress(Exception):
                future.result(_LEAVING)


@functools.cache
def _loop_of(process: int) -> _Loop:
    return _Loop()


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    # A fork has no thread of its parent's.
    return _loop_of(os.getpid()).run(work)


class Agent(Methods):
    """A connection to the agent of a guest, with a function for each of its methods.

    Threads may share it: many calls may be under way at once."""

    def __init__(self, endpoint: Endpoint) -> None:
        """Dials an agent. Raises `Unreachable`."""
        self._agent = _run(aio.Agent.open(endpoint))

    @classmethod
    def _of(cls, agent: aio.Agent) -> Agent:
        self = cls.__new__(cls)
        self._agent = agent
        return self

    def invoke(self, method: Method, answer: type[_M], request: Message, timeout: float | None) -> _M:
        """Makes a call that is described by its method."""
        return _run(self._agent.invoke(method, answer, request, timeout))

    def process(self, container_id: str, exec_id: str = "") -> Process:
        """A process of a container that somebody has started; without an exec id the container's first."""
        return Process(aio.Process(self._agent, container_id, exec_id))

    def close(self) -> None:
        """Ends the connection."""
        _run(self._agent.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Output(io.RawIOBase):
    def __init__(self, output: aio.Output) -> None:
        self._output = output

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = _run(self._output.read(len(view)))
        view[: len(data)] = data
        return len(data)


class Input:
    """What a process reads. Nothing is buffered here."""

    def __init__(self, target: aio.Input) -> None:
        self._input = target

    def write(self, data: bytes) -> None:
        """Writes all of it. Raises `BrokenPipeError` if the process does not take it any more."""
        _run(self._input.write(data))

    def close(self) -> None:
        """Ends the input. It may have ended before."""
        _run(self._input.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Process:
    """A process in a container. As a context manager it is killed at the end if it still runs."""

    def __init__(self, process: aio.Process) -> None:
        self._process = process
        self.stdin = Input(process.stdin)
        #: A file: `read`, `readline`, lines in a loop. A process whose output nobody reads waits.
        self.stdout = io.BufferedReader(_Output(process.stdout))
        #: Standard error, which a process with a terminal does not have.
        self.stderr = io.BufferedReader(_Output(process.stderr))

    @property
    def ids(self) -> tuple[str, str]:
        """The container's id, and the exec id."""
        return self._process.ids

    def wait(self) -> int:
        """Waits for its end and gives its exit status: 128 plus the number of the signal that ended it, if one did."""
        return _run(self._process.wait())

    def signal(self, number: int) -> None:
        """Sends a signal. Raises `Refused` with `NOT_FOUND` if it has ended."""
        _run(self._process.signal(number))

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal."""
        _run(self._process.resize(rows, columns))

    def communicate(self, data: bytes = b"", *, limit: int = aio.LIMIT) -> Completed:
        """Feeds it, closes its input, and gives its output and its status. An output of more than `limit` bytes is an
        `OutputTooLarge`; the process is killed then. Use it instead of `stdout` and `stderr`."""
        return _run(self._process.communicate(data, limit=limit))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run(self._process.__aexit__(kind, error, trace))


class Lines(Iterator[bytes]):
    """Lines of a log, as they come."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        self._lines = lines
        # Also at the end of the program, while there is somebody to do it.
        self._end = weakref.finalize(self, _end_lines, os.getpid(), lines)

    def __next__(self) -> bytes:
        line = _run(_next_line(self._lines))
        if line is None:
            raise StopIteration
        return line

    def close(self) -> None:
        """Ends it before its end."""
        self._end()


async def _next_line(lines: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(lines, None)


def _end_lines(process: int, lines: AsyncGenerator[bytes, None]) -> None:
    if process == os.getpid():
        _loop_of(process).leave(lines.aclose())


class Pod:
    """A pod in a virtual machine of its own, which the program `pith` runs on this host.

    `Pod.run` starts one from an image, `Pod.run_file` from a manifest, and `Pod.connect` takes one that runs. As a context
    manager, a pod that was started here is removed at the end; one that was connected to is left alone."""

    def __init__(self, pod: aio.Pod) -> None:
        self._pod = pod
        #: Its agent, for everything that this class has no function for.
        self.agent = Agent._of(pod.agent)

    @property
    def name(self) -> str:
        """Its name."""
        return self._pod.name

    @property
    def record(self) -> Record:
        """What was known about it when it was connected to."""
        return self._pod.record

    @classmethod
    def run(
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
        work = aio.Pod.run(
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
            program=program,
        )
        return cls(_run(work))

    @classmethod
    def run_file(cls, manifest: PathLike, *, options: Iterable[str] = (), program: PathLike | None = None) -> Pod:
        """Starts the pod of a manifest, and returns when it is ready."""
        return cls(_run(aio.Pod.run_file(manifest, options=options, program=program)))

    @classmethod
    def connect(cls, name: str, *, program: PathLike | None = None) -> Pod:
        """Takes a pod that runs."""
        return cls(_run(aio.Pod.connect(name, program=program)))

    def inspect(self) -> Record:
        """What is known about it now."""
        return _run(self._pod.inspect())

    def start(
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
        said. Its input stays open until it is closed. `size` is the terminal's, as rows and columns."""
        work = self._pod.start(command, container=container, env=env, cwd=cwd, user=user, tty=tty, size=size)
        return Process(_run(work))

    def exec(
        self,
        command: Sequence[str],
        *,
        input: bytes = b"",
        check: bool = False,
        limit: int = aio.LIMIT,
        container: str | None = None,
        env: Mapping[str, str] = {},
        cwd: str | None = None,
        user: str | None = None,
    ) -> Completed:
        """Runs a command in a container to its end. With `check`, a status other than 0 is a `CommandError`. An output of
        more than `limit` bytes is an `OutputTooLarge`, and the command is killed; read it from `start` instead."""
        work = self._pod.exec(
            command, input=input, check=check, limit=limit, container=container, env=env, cwd=cwd, user=user
        )
        return _run(work)

    def copy_in(self, source: PathLike, target: str, *, container: str | None = None) -> None:
        """Copies a file or a directory of this host to a path of a container. Where `target` is a directory, it is put
        into it under its own name. It belongs to root there. The image needs a shell and `tar`, as busybox has."""
        _run(self._pod.copy_in(source, target, container=container))

    def copy_out(
        self, source: str, target: PathLike, *, container: str | None = None, limit: int = aio.COPY_LIMIT
    ) -> None:
        """Copies a file or a directory of a container to this host. Where `target` is a directory, it is put into it
        under its own name. The image needs `tar`. Devices, and links that lead out of what is copied, are refused."""
        _run(self._pod.copy_out(source, target, container=container, limit=limit))

    def stats(self, container: str | None = None) -> Stats:
        """What a container uses now."""
        return _run(self._pod.stats(container))

    def logs(self, container: str | None = None, *, tail: int | None = None) -> bytes:
        """What a container has written, as far as it is kept; also after its end. `tail` wants the last lines only."""
        return _run(self._pod.logs(container, tail=tail))

    def follow(self, container: str | None = None) -> Lines:
        """What a container has written and writes, line by line, until its end."""
        return Lines(self._pod.follow(container))

    def wait(self) -> int:
        """Waits until the pod has ended, and gives the exit status of its run."""
        return _run(self._pod.wait())

    def stop(self, timeout: int | None = None) -> None:
        """Stops it in order: hooks, signals, grace period. Uses force after `timeout` seconds."""
        _run(self._pod.stop(timeout))

    def remove(self) -> None:
        """Ends it if it runs, and removes its record and its logs."""
        _run(self._pod.remove())

    def close(self) -> None:
        """Ends the connection to its agent. The pod goes on."""
        _run(self._pod.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run(self._pod.__aexit__(kind, error, trace))
