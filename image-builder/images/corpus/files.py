"""Makes the files that every tool of the corpus archives, and lists what a layer unpacked to.

    files.py make DIRECTORY             makes the files (as root)
    files.py list DIRECTORY SINCE       lists a directory; times after SINCE (seconds since 1970) were not in the layer

A line of a list has these fields, with tabs between them: path, type, mode, uid:gid, size (or the device's number), the first
16 digits of the content's SHA-256, target, mtime, extended attributes, the first path of the same inode.
"""

import hashlib
import os
import stat
import sys

DAY = 1700000000


def make(top):
    def at(name):
        return os.path.join(top, name)

    def file(name, content, mode=0o644, owner=(0, 0), time=DAY):
        with open(at(name), "wb") as out:
            out.write(content)
        finish(name, mode, owner, time)

    def finish(name, mode, owner=(0, 0), time=DAY):
        os.chown(at(name), *owner, follow_symlinks=False)
        if not os.path.islink(at(name)):
            os.chmod(at(name), mode)
        nanoseconds = int(time * 1_000_000_000)
        os.utime(at(name), ns=(nanoseconds, nanoseconds), follow_symlinks=False)

    os.makedirs(at("dir/sub"))
    file("dir/sub/file", b"in a directory\n", 0o640, (1000, 1001))
    file("empty", b"")
    file("setuid", b"#!/bin/sh\n", 0o4751)
    file("fraction", b"of a second\n", time=DAY + 0.25)
    file("n" * 120, b"long name\n")
    os.makedirs(at("p" * 90 + "/" + "q" * 90))
    file("p" * 90 + "/" + "q" * 90 + "/" + "r" * 90, b"long path\n")
    file("n\u00e4me", b"UTF-8\n")
    file("hard-1", b"two names\n")
    os.link(at("hard-1"), at("hard-2"))
    for name, target in [("link", "dir/sub/file"), ("long-link", "t" * 150), ("outside", "/etc/hostname")]:
        os.symlink(target, at(name))
        finish(name, 0o777)
    os.mkfifo(at("pipe"))
    finish("pipe", 0o600)
    os.mknod(at("null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    finish("null", 0o666)
    os.mknod(at("disk"), stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    finish("disk", 0o660, (0, 6))
    # Data in the middle, and a hole at the end.
    with open(at("sparse"), "wb") as out:
        out.seek(65536)
        out.write(b"data")
        out.truncate(200_000)
    finish("sparse", 0o600)
    # A hole at the beginning, and six stretches of data: more than the four of GNU tar's old header.
    with open(at("sparse-more"), "wb") as out:
        for number in range(1, 7):
            out.seek(number * 32768)
            out.write(b"%d" % number)
    finish("sparse-more", 0o644)
    finish("dir/sub", 0o2755, (1000, 1001))
    finish("dir", 0o1777)
    finish("p" * 90 + "/" + "q" * 90, 0o755)
    finish("p" * 90, 0o755)
    finish(".", 0o755)


def more(top):
    """What not every format can hold."""
    make(top)

    def at(name):
        return os.path.join(top, name)

    for name, time, owner in [("large-owner", DAY, (3_000_000, 4_000_000_000)), ("before-1970", -1.5, (0, 0))]:
        with open(at(name), "wb") as out:
            out.write(name.encode())
        os.chown(at(name), *owner)
        nanoseconds = int(time * 1_000_000_000)
        os.utime(at(name), ns=(nanoseconds, nanoseconds))
    os.setxattr(at("setuid"), "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.setxattr(at("fraction"), "user.text", b"a=b\nc\0d")
    os.setxattr(at("dir"), "user.empty", b"")
    os.setxattr(at("dir"), "trusted.note", b"\xff\xfe")
    os.utime(at("."), ns=(DAY * 10**9, DAY * 10**9))
    os.utime(at("dir"), ns=(DAY * 10**9, DAY * 10**9))


def show(raw):
    return os.fsencode(raw).decode("utf-8", "backslashreplace").replace("\t", "\\t").replace("\n", "\\n")


def listing(top, since):
    first = {}
    paths = ["."]
    for directory, names, files in os.walk(top):
        paths += [os.path.relpath(os.path.join(directory, name), top) for name in names + files]
    paths.sort(key=os.fsencode)
    for path in paths:
        whole = os.path.join(top, path)
        found = os.lstat(whole)
        kind = {
            stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo",
            stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket",
        }[stat.S_IFMT(found.st_mode)]
        size, digest, target = "-", "-", "-"
        if kind == "file":
            size = str(found.st_size)
            with open(whole, "rb") as content:
                digest = hashlib.sha256(content.read()).hexdigest()[:16]
        elif kind == "link":
            target = show(os.readlink(whole))
        elif kind in ("char", "block"):
            size = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        mode = "-" if kind == "link" else f"{stat.S_IMODE(found.st_mode):04o}"
        seconds, rest = divmod(found.st_mtime_ns, 10**9)
        time = "-" if seconds >= since else f"{seconds}.{rest:09}"
        attributes = [
            f"{name}={os.getxattr(whole, name, follow_symlinks=False).hex()}"
            for name in sorted(os.listxattr(whole, follow_symlinks=False))
        ]
        same = "-"
        if kind != "dir" and found.st_nlink > 1:
            same = first.setdefault(found.st_ino, show(path))
        fields = [show(path), kind, mode, f"{found.st_uid}:{found.st_gid}", size, digest, target, time]
        print("\t".join(fields + [",".join(attributes) or "-", same]))


if __name__ == "__main__":
    if sys.argv[1] == "list":
        listing(sys.argv[2], int(sys.argv[3]))
    else:
        {"make": make, "more": more}[sys.argv[1]](sys.argv[2])
