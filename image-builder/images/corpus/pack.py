"""Archives by Python's tarfile, and archives made by hand for what no tool here writes.

    pack.py gnu|pax SOURCE OUT              by tarfile
    pack.py hand OUT-DIRECTORY              those made by hand
"""

import io
import os
import sys
import tarfile

FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def pack(kind, source, out):
    with tarfile.open(out, "w", format=FORMATS[kind]) as archive:
        archive.add(source, ".")


def entry(name, kind=tarfile.REGTYPE, content=b"", **more):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime, info.mode = kind, len(content), 1700000000, 0o755
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def header(info, fmt=tarfile.USTAR_FORMAT):
    return info.tobuf(fmt, "utf-8", "surrogateescape")


def archive(entries, fmt=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt, encoding="utf-8") as made:
        for info, content in entries:
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


def patched(block, at, field):
    """Puts a field into a header and mends the checksum."""
    block = bytearray(block)
    block[at : at + len(field)] = field
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


DIR, LINK, HARD, FIFO = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE
END = bytes(1024)


def hand():
    file = lambda name, **more: header(entry(name, content=b"", **more)[0])
    data = header(entry("data", content=b"data")[0]) + b"data".ljust(512, b"\0")
    yield "sizes-of-types-without-content", (
        patched(header(entry("dir", DIR)[0]), 124, b"00000001274\0")
        + patched(header(entry("link", LINK, linkname="dir")[0]), 124, b"00000001274\0")
        + patched(header(entry("fifo", FIFO)[0]), 124, b"00000001274\0")
        + data + END
    )
    yield "blank-numbers", (
        patched(file("blank-mode"), 100, b" " * 8) + patched(file("nul-owner"), 108, bytes(16))
        + patched(file("blank-time"), 136, b" " * 12) + END
    )
    minus = lambda number, width: (number % (1 << 8 * width)).to_bytes(width, "big")
    yield "base-256", (
        patched(file("uid-minus-2"), 108, minus(-2, 8)) + patched(file("time-minus-2"), 136, minus(-2, 12))
        + patched(file("gid"), 116, b"\x80" + (3_000_000).to_bytes(7, "big")) + END
    )
    yield "uid-minus-1", patched(file("f"), 108, minus(-1, 8)) + END
    yield "pax-empty-values", archive([entry("f", pax_headers={"path": "", "mtime": "", "uid": "", "size": ""})])
    yield "pax-size", (
        archive([entry("f", pax_headers={"comment": "x", "size": "4"})])[:1024]
        + file("f") + b"data".ljust(512, b"\0") + END
    )
    yield "pax-nul-in-path", archive([entry("f", pax_headers={"path": "a\0b"})])
    yield "after-one-zero-block", data + bytes(512) + data + END
    yield "after-two-zero-blocks", data + END + data
    yield "no-end", data
    yield "marks-of-directories", (
        header(entry("old/", tarfile.AREGTYPE)[0]) + header(entry("new/")[0]) + END
    )
    yield "dots-inside", archive([entry("./x/../y", content=b"y"), entry("a/./b//c", content=b"c")])
    yield "dots-outside", archive([entry("../y", content=b"y")])
    yield "below-a-dangling-link", archive([
        entry("var", DIR), entry("var/run", LINK, linkname="/run"), entry("var/run/lock/f", content=b"f"),
        entry("up", LINK, linkname="../../deep/er"), entry("up/g", content=b"g"),
    ])
    yield "below-a-file", archive([entry("f", content=b"f"), entry("f/g", content=b"g")])
    yield "below-a-loop", archive([entry("l", LINK, linkname="l"), entry("l/g", content=b"g")])
    yield "hard-link-to-nothing", archive([entry("h", HARD, linkname="f")])
    yield "hard-link-to-itself", archive([entry("h", content=b"h"), entry("h", HARD, linkname="h")])
    yield "hard-link-to-a-link", archive([entry("l", LINK, linkname="f"), entry("h", HARD, linkname="l")])
    yield "empty-link", archive([entry("l", LINK, linkname="")])
    yield "contiguous", archive([entry("f", tarfile.CONTTYPE, b"data")])
    yield "unknown-type", archive([entry("f", b"Z")])
    yield "replaced", archive([
        entry("d", DIR), entry("d/f", content=b"f"), entry("d", content=b"now a file"),
        entry("l", LINK, linkname="d"), entry("l", DIR, mode=0o700), entry("l/f", content=b"f"),
    ])
    lower = archive([
        entry("gone", content=b"x"), entry("kept", content=b"x"), entry("d", DIR), entry("d/x", content=b"x"),
        entry("d/y", DIR), entry("d/y/z", content=b"z"), entry("e", DIR), entry("e/x", content=b"x"),
    ])
    upper = archive([
        entry(".wh.gone"), entry("d/n", content=b"n"), entry("d/.wh..wh..opq"), entry("e", DIR, mode=0o711),
        entry("e/.wh.x"), entry("e/x", content=b"new"), entry(".wh.absent"), entry(".wh..wh.plnk"),
    ])
    yield "whiteouts", lower, upper


if __name__ == "__main__":
    if sys.argv[1] == "hand":
        for name, *layers in hand():
            for number, layer in enumerate(layers, 1):
                with open(os.path.join(sys.argv[2], f"hand-{name}.{number}.tar"), "wb") as out:
                    out.write(layer)
    else:
        pack(*sys.argv[1:])
