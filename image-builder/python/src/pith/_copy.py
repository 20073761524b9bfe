"""Files on their way into a container and out of it, as tar archives through an exec.

A container is not trusted. What comes out of one is unpacked here into a new directory, where nothing can lead elsewhere, and
is moved to its place when it is complete.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO

from ._results import Completed
from .errors import PithError

# What is unpacked appears under its name when it is complete. Whether the target is a directory is known only there.
_UNPACK = """
set -e
if [ -d "$1" ]; then exec tar -xf - -C "$1"; fi
directory=$(dirname "$1")
mkdir -p "$directory"
work=$(mktemp -d "$directory/.pith-XXXXXX")
trap 'rm -rf "$work"' EXIT
tar -xf - -C "$work"
mv "$work/$2" "$1"
"""


def pack(source: Path, archive: IO[bytes]) -> None:
    """Writes an archive of a file or a directory, under its own name."""

    def owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
        # Users of this host are nobody in a container.
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(source, arcname=_name(source), filter=owned_by_root)


def _name(source: Path) -> str:
    name = source.name or source.resolve().name
    if not name:
        raise ValueError(f"{source} has no name to be copied under")
    return name


def unpack_command(target: str, source: Path) -> list[str]:
    """The command that takes the archive."""
    if not target.startswith("/"):
        raise ValueError(f"{target!r} is not absolute; it is a path in the container")
    return ["sh", "-c", _UNPACK, "copy", target.rstrip("/") or "/", _name(source)]


def pack_command(source: str) -> list[str]:
    """The command that makes an archive of a path."""
    path = PurePosixPath(source)
    if not path.is_absolute() or path.name in ("", ".."):
        raise ValueError(f"{source!r} is no absolute path of a file or a directory in the container")
    return ["tar", "-cf", "-", "-C", str(path.parent), path.name]


def check(done: Completed, what: str) -> None:
    """Raises `PithError` for a copy that failed."""
    if done.status:
        words = done.stderr.decode(errors="replace").strip() or f"status {done.status}"
        raise PithError(f"cannot {what}: {words}")


def unpack(archive: IO[bytes], name: str, target: Path, limit: int) -> None:
    """Puts the file or the directory `name` of an archive to `target`, or into it if that is a directory. Its files may
    have `limit` bytes together."""
    place = target / name if target.is_dir() else target
    if place.is_dir() and not place.is_symlink():
        raise PithError(f"{place} is there already; remove it, or choose another target")
    work = Path(tempfile.mkdtemp(prefix=".pith-", dir=place.parent))
    try:
        with tarfile.open(fileobj=archive) as tar:
            _unpack_into(tar, work, name, limit)
        made = work / name
        if not os.path.lexists(made):
            raise PithError(f"the container sent no {name!r}")
        os.replace(made, place)
    except tarfile.TarError as error:
        raise PithError(f"the container sent no archive: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unpack_into(tar: tarfile.TarFile, work: Path, name: str, limit: int) -> None:
    # Links come last, and directories get their modes then: nothing is ever written through a link, or kept out by a mode.
    links: dict[PurePosixPath, str] = {}
    modes: list[tuple[Path, int]] = []
    for member in tar:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or path.parts[:1] != (name,):
            raise PithError(f"the container sent {member.name!r}, which is not in {name!r}")
        if any(parent in links for parent in (path, *path.parents)):
            raise PithError(f"the container sent {member.name!r}, which leads through a link")
        here = work / path
        mode = member.mode & 0o777
        if member.isdir():
            here.mkdir(parents=True, exist_ok=True)
            modes.append((here, mode | 0o700))
        elif member.issym():
            _stays(path, member.linkname)
            links[path] = member.linkname
        elif member.islnk():
            first = PurePosixPath(member.linkname)
            if first.is_absolute() or ".." in first.parts or not (work / first).is_file():
                raise PithError(f"the container sent {member.name!r} as a link to {member.linkname!r}, which it did not send")
            here.parent.mkdir(parents=True, exist_ok=True)
            os.link(work / first, here, follow_symlinks=False)
        elif member.isfile():
            limit -= member.size
            if limit < 0:
                raise PithError("the container sends more than the limit allows")
            content = tar.extractfile(member)
            assert content is not None
            here.parent.mkdir(parents=True, exist_ok=True)
            with open(here, "wb") as file:
                shutil.copyfileobj(content, file)
            os.chmod(here, mode)
        else:
            raise PithError(f"{member.name!r} is a device, a socket or a pipe, which is not copied")
    for path, link in links.items():
        if os.path.lexists(work / path):
            raise PithError(f"the container sent {str(path)!r} twice")
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(link, work / path)
    for directory, mode in modes:
        os.chmod(directory, mode)


def _stays(path: PurePosixPath, link: str) -> None:
    """Raises `PithError` for a symbolic link that leads out of what is copied."""
    # Steps up are counted at the front only: behind a name, which may be another link, they lead anywhere.
    parts = [part for part in PurePosixPath(link).parts if part != "."]
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    if ups > len(path.parts) - 2 or any(part in ("..", "/") for part in parts[ups:]):
        raise PithError(f"{str(path)!r} is a link to {link!r}, which leads out of what is copied")
