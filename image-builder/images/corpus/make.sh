#!/bin/sh
# Makes the corpus of layers: archives of the same files by the tools of the world, and the tree that umoci makes of each.
#
#   sudo image-builder/images/corpus/make.sh       writes image-builder/corpus/layers
#
# Not run by CI, which has neither all tools nor root: the files that it makes are kept. For each layer NAME there is
# NAME.1.tar.zst (and .2 for a second layer on top of it), and NAME.tree: the list of what umoci unpacked (see files.py), or
# "refused: " and umoci's words. CORPUS.md has the tools' versions and the commands.
# Needs umoci, GNU tar, bsdtar (libarchive-tools), busybox, node with the package tar (NODE_PATH), python3, git, zstd, attr-capable
# /tmp.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$here/layers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C.UTF-8 TZ=UTC SOURCE_DATE_EPOCH=1700000000
rm -rf "$out"
mkdir "$out" "$work/tars" "$work/files" "$work/more"
python3 "$here/files.py" make "$work/files"
python3 "$here/files.py" more "$work/more"

table=$work/table
# layer NAME VERSION COMMAND...: runs a command that writes to "$tar" from "$files" or "$more", named so in the list.
layer() {
    name=$1 version=$2
    shift 2
    tar=$work/tars/$name.1.tar files=$work/files more=$work/more sh -c "$*" >&2
    command=$(echo $* | sed 's/|/\\|/g')
    printf '| `%s` | %s | `%s` |\n' "$name" "$version" "$command" >>"$table"
}

gnu="GNU tar $(tar --version | sed -n '1s/.* //p')"
for format in v7 ustar oldgnu gnu posix; do
    # What a format cannot hold, GNU tar leaves out with status 2.
    layer "gnutar-$format" "$gnu" "tar --format=$format --sort=name -cf \$tar -C \$files . || test \$? = 2"
done
layer gnutar-oldgnu-sparse "$gnu" 'tar --format=oldgnu --sparse --sort=name -cf $tar -C $files .'
layer gnutar-gnu-sparse "$gnu" 'tar --format=gnu --sparse --sort=name -cf $tar -C $files .'
for version in 0.0 0.1 1.0; do
    layer "gnutar-posix-sparse-$version" "$gnu" \
        "tar --format=posix --sparse --sparse-version=$version --sort=name -cf \$tar -C \$files ."
done
layer gnutar-gnu-more "$gnu" 'tar --format=gnu --sort=name -cf $tar -C $more .'
layer gnutar-posix-more "$gnu" "tar --format=posix --sparse --xattrs --xattrs-include='*' --sort=name -cf \$tar -C \$more ."
bsd=$(bsdtar --version | cut -d' ' -f1-2)
for format in v7 ustar gnutar pax; do
    layer "bsdtar-$format" "$bsd" "bsdtar --format $format -cf \$tar -C \$files . || true"
done
layer bsdtar-pax-more "$bsd" 'bsdtar --format pax --xattrs -cf $tar -C $more .'
layer bsdtar-pax-dense "$bsd" 'bsdtar --format pax --no-read-sparse -cf $tar -C $files .'
node="node-tar $(node -p 'require("tar/package.json").version')"
layer node-tar "$node" "node $here/node-tar.cjs \$files \$tar no"
layer node-tar-portable "$node" "node $here/node-tar.cjs \$files \$tar yes"
python=$(python3 --version)
for format in gnu pax; do
    layer "python-$format" "$python" "python3 $here/pack.py $format \$files \$tar"
done
layer python-pax-more "$python" "python3 $here/pack.py pax \$more \$tar"
layer busybox "$(busybox | head -n1 | cut -d' ' -f1-2)" 'busybox tar -cf $tar -C $files .'
layer git-archive "$(git --version)" '
    git init -q $files.git && cd $files.git && echo text >file && git add file
    git -c user.name=a -c user.email=a@b commit -qm x --date=2023-11-14T22:13:20Z
    git archive --mtime=2023-11-14T22:13:20Z -o $tar HEAD; rm -rf $files.git'
umoci=$(umoci --version | sed 's/ version//')
# Go's archive/tar, as umoci writes it.
go_layer='
    umoci init --layout $files.oci && umoci new --image $files.oci:a && umoci insert --image $files.oci:a $files / &&
    manifest=$(jq -r .manifests[0].digest $files.oci/index.json | tr : /) &&
    gzip -dc $files.oci/blobs/$(jq -r .layers[-1].digest $files.oci/blobs/$manifest | tr : /) >$tar; rm -rf $files.oci'
layer umoci "$umoci" "$go_layer"
layer umoci-more "$umoci" "$(echo "$go_layer" | sed 's/\$files/$more/g')"
python3 "$here/pack.py" hand "$work/tars"
printf '| `hand-*` | by hand | `pack.py hand` |\n' >>"$table"
python3 "$here/random_layers.py" "$work/tars" 60
printf '| `random-*` | by chance | `random_layers.py` |\n' >>"$table"

for first in "$work"/tars/*.1.tar; do
    name=$(basename "$first" .1.tar)
    rm -rf "$work/image" "$work/root"
    umoci init --layout "$work/image"
    umoci new --image "$work/image:a"
    refused=
    for tar in "$work/tars/$name".[12].tar; do
        test -e "$tar" || continue
        umoci raw add-layer --image "$work/image:a" "$tar"
        zstd -q -19 --no-check "$tar" -o "$out/$(basename "$tar").zst"
    done
    since=$(date +%s)
    if umoci raw unpack --image "$work/image:a" "$work/root" >"$work/log" 2>&1; then
        python3 "$here/files.py" list "$work/root" "$since" >"$out/$name.tree"
    else
        sed -n "s|$work||g; \$s/^[^a-z]*/refused: /p" "$work/log" >"$out/$name.tree"
    fi
done
{
    echo '# The corpus of layers'
    echo
    echo 'Made by `make.sh`; every `.tree` is what' "$umoci" 'unpacked. `$files` and `$more` are what `files.py` makes.'
    echo
    echo '| layer | tool | command |'
    echo '|---|---|---|'
    sed "s|$here/||g" "$table"
} >"$here/CORPUS.md"
du -sh "$out"
