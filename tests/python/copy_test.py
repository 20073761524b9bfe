#!/usr/bin/env python3
"""What comes out of a container is unpacked where it belongs, and nowhere else. Needs no guest. Exit status 0 if so."""

import io
import os
import pathlib
import sys
import tarfile
import tempfile

from pith import PithError, _copy


def archive(*members):
    """A tar archive of (name, type, content or link, mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, content, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mode
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                tar.addfile(info)
    out.seek(0)
    return out


FILE, DIRECTORY, SYMLINK, LINK, DEVICE = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
TREE = [("d", DIRECTORY, "", 0o555), ("d/a", FILE, b"a", 0o4755)]
HOSTILE = {
    "an absolute name": [("/etc/passwd", FILE, b"x", 0o644)],
    "a name that climbs": [("d/../../x", FILE, b"x", 0o644)],
    "another name": [("e", FILE, b"x", 0o644)],
    "a link to elsewhere": [*TREE, ("d/l", SYMLINK, "/etc/passwd", 0o777)],
    "a link that climbs": [*TREE, ("d/l", SYMLINK, "../x", 0o777)],
    "a link that climbs behind a link": [*TREE, ("d/l", SYMLINK, ".", 0o777), ("d/m", SYMLINK, "l/..", 0o777)],
    "a link in the place of all": [("d", SYMLINK, "x", 0o777)],
    "a file through a link": [*TREE, ("d/l", SYMLINK, "a", 0o777), ("d/l/x", FILE, b"x", 0o644)],
    "a link over a file": [*TREE, ("d/a", SYMLINK, "x", 0o777)],
    "a hard link to what is elsewhere": [*TREE, ("d/l", LINK, "../../etc/passwd", 0o644)],
    "a hard link to what was not sent": [*TREE, ("d/l", LINK, "d/none", 0o644)],
    "a device": [*TREE, ("d/null", DEVICE, "", 0o666)],
    "too much": [*TREE, ("d/b", FILE, b"x" * 2000, 0o644)],
    "nothing": [],
}


def main():
    with tempfile.TemporaryDirectory() as name:
        here = pathlib.Path(name)
        good = [*TREE, ("d/sub/l", SYMLINK, "../a", 0o777), ("d/h", LINK, "d/a", 0o644)]
        _copy.unpack(archive(*good), "d", here, 1000)
        _copy.unpack(archive(*good), "d", here / "named", 1000)
        for made in (here / "d", here / "named"):
            assert (made / "a").read_bytes() == b"a" and (made / "h").read_bytes() == b"a", made
            assert os.readlink(made / "sub/l") == "../a" and (made / "sub/l").read_bytes() == b"a", made
            assert (made / "a").stat().st_mode & 0o7777 == 0o755, "no set-user-id bit comes out"
        _copy.unpack(archive(("f", FILE, b"1", 0o600)), "f", here, 1000)
        _copy.unpack(archive(("f", FILE, b"2", 0o600)), "f", here / "f", 1000)
        assert (here / "f").read_bytes() == b"2", "a file replaces a file"
        before = sorted(os.listdir(here))
        for what, members in HOSTILE.items():
            try:
                _copy.unpack(archive(*members), "d", here / "new", 1000)
            except PithError as error:
                print(f"{what}: {error}")
            else:
                sys.exit(f"{what} was taken")
            assert sorted(os.listdir(here)) == before, f"{what} leaves {sorted(os.listdir(here))}"
        for what, source, target, words in (
            ("garbage", io.BytesIO(b"x" * 2000), here / "new", "no archive"),
            ("a directory that is there", archive(*TREE), here, "is there already"),
        ):
            try:
                _copy.unpack(source, "d", target, 1000)
            except PithError as error:
                assert words in str(error), error
            else:
                sys.exit(f"{what} was taken")
    for senseless in ("relative", "/", "/a/.."):
        try:
            _copy.pack_command(senseless)
        except ValueError:
            continue
        sys.exit(f"{senseless!r} was taken")


if __name__ == "__main__":
    main()
