#!/usr/bin/env bash
# zstandard 0.25.0 (a Python package) with layers of several frames, as the format zstd:chunked has them
#
# One would guess that all functions of one package read the same bytes from the same file, or that those which cannot say so.
# zstd:chunked puts each file of a layer into a zstd frame of its own, so that it can be fetched alone. Of the ways to
# decompress, stream_reader(), stream_writer() and copy_stream() read all frames. decompress(), decompressobj() and
# read_to_iter() stop after the first one, without an error.
#
# It matters because what is left is a tar archive that ends where a file ends. tarfile raises no error either, so an image
# seems to have one file.
#
# Output seen (what tarfile lists in a layer of three files):
#   copy_stream: one two three
#   stream_reader: one two three
#   stream_writer: one two three
#   decompress: one
#   decompressobj: one
#   read_to_iter: one
#
# Needs zstd, tar and python3 with venv and pip. Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check zstandard==0.25.0

# Each file in a frame of its own; the end of the archive belongs to the last.
mkdir frames
for name in one two three; do
  echo "content of $name" >"$name"
  tar -cf "frames/$name" "$name"
  [ "$name" = three ] || truncate -s 1024 "frames/$name"
done
for name in one two three; do zstd -q -c "frames/$name"; done >layer.tar.zst
[ "$(zstd -q -d -c layer.tar.zst | tar -t | paste -sd ' ')" = 'one two three' ]

cat >read.py <<'PYTHON'
import io
import tarfile

import zstandard

layer = open("layer.tar.zst", "rb").read()
enough = 1 << 20


def copy_stream(reader):
    result = io.BytesIO()
    reader.copy_stream(io.BytesIO(layer), result)
    return result.getvalue()


def stream_writer(reader):
    result = io.BytesIO()
    reader.stream_writer(result, closefd=False).write(layer)
    return result.getvalue()


ways = {
    "copy_stream": copy_stream,
    "stream_reader": lambda reader: reader.stream_reader(io.BytesIO(layer)).read(),
    "stream_writer": stream_writer,
    "decompress": lambda reader: reader.decompress(layer, max_output_size=enough),
    "decompressobj": lambda reader: reader.decompressobj().decompress(layer),
    "read_to_iter": lambda reader: b"".join(reader.read_to_iter(layer)),
}
for name, way in ways.items():
    content = way(zstandard.ZstdDecompressor())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        print(f"{name}: {' '.join(archive.getnames())}")
PYTHON
venv/bin/python read.py | tee seen
diff - seen <<'SEEN'
copy_stream: one two three
stream_reader: one two three
stream_writer: one two three
decompress: one
decompressobj: one
read_to_iter: one
SEEN
