"""The program `pith`: its command line, and what it tells of a pod."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .endpoint import Endpoint, Hybrid, Unix, Vsock
from .errors import PithError, Unreachable

PathLike: TypeAlias = str | os.PathLike[str]


def find(program: PathLike | None) -> str:
    """The program: the one that is named, `$PITH_PROGRAM`, or `pith` of `$PATH`."""
    wanted = os.fspath(program or os.environ.get("PITH_PROGRAM") or "pith")
    found = shutil.which(wanted)
    if found is None:
        raise PithError(f"there is no program {wanted!r}: install pith, or name it in PITH_PROGRAM")
    return found


def run_arguments(
    image: str,
    command: Sequence[str],
    *,
    name: str | None,
    env: Mapping[str, str],
    volumes: Iterable[str],
    ports: Iterable[str],
    memory: str | int | None,
    cpus: int | None,
    user: str | None,
    workdir: str | None,
    entrypoint: str | None,
    interactive: bool,
    options: Iterable[str],
) -> list[str]:
    """The command line of `pith run -d`."""
    words = ["run", "--detach"]
    for option, value in (
        ("--name", name),
        ("--memory", memory),
        ("--cpus", cpus),
        ("--user", user),
        ("--workdir", workdir),
        ("--entrypoint", entrypoint),
    ):
        if value is not None:
            words.append(f"{option}={value}")
    words += [f"--env={key}={value}" for key, value in env.items()]
    words += [f"--volume={volume}" for volume in volumes]
    words += [f"--publish={port}" for port in ports]
    if interactive:
        words.append("--interactive")
    return [*words, *options, "--", image, *command]


@dataclass(frozen=True)
class Container:
    """A container of a pod, as `pith inspect` tells it."""

    #: Its name in the pod.
    name: str
    #: Its id in the agent's API.
    id: str
    #: `main`, `init` or `sidecar`.
    role: str
    #: What its further processes get: `env`, `cwd`, `uid`, `gid`, `groups`, `no_new_privileges`, `home_is_default`.
    process: dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A pod, as `pith inspect` tells it."""

    name: str
    phase: str
    endpoint: Endpoint | None
    containers: tuple[Container, ...]
    #: All that it tells.
    raw: dict[str, Any]

    @classmethod
    def parse(cls, text: bytes) -> Record:
        """Reads the output of `pith inspect POD`."""
        try:
            raw = json.loads(text)[0]
            containers = tuple(
                Container(one["name"], one["id"], one.get("role", "main"), one["process"]) for one in raw["containers"]
            )
            return cls(raw["name"], raw["phase"], _endpoint(raw.get("endpoint")), containers, raw)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise PithError(f"`pith inspect` told something unexpected: {error!r}") from error

    def reached_at(self) -> Endpoint:
        """Where the agent is. Raises `Unreachable` before the pod is up and after its end."""
        if self.endpoint is None or self.phase == "ended":
            raise Unreachable(f"pod {self.name!r} is not running; it is {self.phase}")
        return self.endpoint

    def container(self, name: str | None) -> Container:
        """The container of that name or id, or the only one that is not there for others."""
        if name is None:
            found = [one for one in self.containers if one.role == "main"]
        else:
            found = [one for one in self.containers if name in (one.name, one.id)]
        if len(found) != 1:
            names = ", ".join(one.name for one in self.containers)
            wanted = "name one of its containers" if name is None else f"it has no container {name!r}"
            raise PithError(f"pod {self.name!r}: {wanted}: {names}")
        return found[0]


def _endpoint(value: Any) -> Endpoint | None:
    if value is None:
        return None
    match value["kind"]:
        case "hybrid":
            return Hybrid(Path(value["socket"]))
        case "vsock":
            return Vsock(value["cid"])
        case "unix":
            return Unix(Path(value["socket"]))
    raise ValueError(f"an endpoint of the kind {value['kind']!r}")
