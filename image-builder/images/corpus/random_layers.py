"""Pairs of layers by chance: files, directories, links of both kinds and whiteouts, with few names, so that they meet.

    random_layers.py OUT-DIRECTORY COUNT
"""

import io
import os
import random
import sys
import tarfile

NAMES = "abcdefgh"


def path(chance):
    name = "/".join(chance.choice(NAMES) for _ in range(chance.choice([1, 1, 1, 2, 2])))
    form = chance.random()
    if form < 0.1:
        return "./" + name
    if form < 0.15:
        return "/" + name
    return f"{name}/../{chance.choice(NAMES)}" if form < 0.2 else name


def target(chance):
    form = chance.random()
    if form < 0.3:
        return "/" + path(chance).lstrip("/")
    return "../" + chance.choice(NAMES) if form < 0.5 else path(chance)


def layer(chance, number, files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for index in range(chance.randrange(3, 9)):
            info, content, what = tarfile.TarInfo(path(chance)), b"", chance.random()
            info.mtime, info.mode = 1700000000 + index, chance.choice([0o755, 0o700, 0o644])
            if what < 0.3:
                content = f"{number}-{index}".encode()
                files.append(info.name)
            elif what < 0.5:
                info.type = tarfile.DIRTYPE
            elif what < 0.7:
                info.type, info.linkname = tarfile.SYMTYPE, target(chance)
            elif what < 0.8 and files:
                info.type, info.linkname = tarfile.LNKTYPE, chance.choice(files)
            elif number == 2:
                directory, _, name = info.name.rpartition("/")
                hidden = ".wh..wh..opq" if chance.random() < 0.4 else ".wh." + name
                info.name = os.path.join(directory, hidden)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return out.getvalue()


for case in range(int(sys.argv[2])):
    chance, files = random.Random(case), []
    for number in (1, 2):
        with open(os.path.join(sys.argv[1], f"random-{case:02}.{number}.tar"), "wb") as out:
            out.write(layer(chance, number, files))
