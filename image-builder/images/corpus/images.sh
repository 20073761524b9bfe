#!/bin/sh
# Makes the corpus of images: one small image, saved in every way that the tools of the world have.
#
#   sudo image-builder/images/corpus/images.sh       writes image-builder/corpus/images
#
# Not run by CI. NAME.tar.zst holds what was saved: the archive itself if NAME ends with "-archive", a directory named
# "image" otherwise. IMAGES.md has the tools' versions and the commands.
# Needs umoci, skopeo, podman, buildah, containerd with ctr, zstd; dockerd and buildx as below.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$here/images
work=$(mktemp -d)
end() {
    for pid in ${daemons:-}; do kill "$pid" || true; done
    sleep 2
    for mounted in $(awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r); do umount -l "$mounted" || true; done
    rm -rf "$work"
}
daemons=
trap end EXIT
export LC_ALL=C.UTF-8 TZ=UTC SOURCE_DATE_EPOCH=1700000000
rm -rf "$out"
mkdir "$out"
cd "$work"

# Two layers: one that is changed by the other.
mkdir -p one/etc one/bin two
printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:7:8::/srv:/bin/sh\n' >one/etc/passwd
printf '#!/bin/hello\n' >one/bin/hello
chmod 755 one/bin/hello
echo gone >one/gone
echo new >two/new
find one two -exec touch -h -d @1700000000 {} +
umoci init --layout base
umoci new --image base:first
umoci config --image base:first --os linux --architecture amd64 --config.cmd /bin/hello --config.user web \
    --config.workingdir /srv --config.stopsignal SIGRTMIN+3 --config.volume /data --created 2023-11-14T22:13:20Z
umoci insert --image base:first --tag first one /
umoci insert --image base:first --tag second two /new-dir
umoci insert --image base:second --tag second --whiteout /gone
umoci gc --layout base
images='base:first base:second'

table=$work/table
# keep NAME VERSION COMMAND...: runs a command that makes "image" (a directory) or "image.tar".
keep() {
    name=$1 version=$2
    shift 2
    rm -rf image image.tar
    sh -c "$*" >&2
    test ! -e image.tar || chmod 644 image.tar
    if [ -e image.tar ]; then zstd -q -19 image.tar -o "$out/$name.tar.zst"; else
        tar --sort=name --mtime=@1700000000 --owner=0 --group=0 -cf - image | zstd -q -19 -o "$out/$name.tar.zst"
    fi
    command=$(echo $* | sed 's/|/\\|/g')
    printf '| `%s` | %s | `%s` |\n' "$name" "$version" "$command" >>"$table"
}

skopeo=$(skopeo --version | sed 's/ version//')
keep umoci-layout "$(umoci --version | sed 's/ version//')" 'cp -r base image'
keep skopeo-oci "$skopeo" 'skopeo copy -q oci:base:second oci:image:name:1 && skopeo copy -q oci:base:first oci:image:other:1'
keep skopeo-oci-archive "$skopeo" 'skopeo copy -q oci:base:second oci-archive:image.tar:name:1'
keep skopeo-docker-archive "$skopeo" 'skopeo copy -q oci:base:second docker-archive:image.tar:zz:latest --additional-tag dk:latest'
keep skopeo-dir "$skopeo" 'skopeo copy -q oci:base:second dir:image'
# Debian 12's never ends with this format; SKOPEO is a later one.
if [ -n "${SKOPEO:-}" ]; then
    keep skopeo-zstd-chunked "$("$SKOPEO" --version | sed 's/ version//')" \
        '$SKOPEO copy -q --dest-compress-format zstd:chunked oci:base:second oci:image:name:1'
fi
podman="podman --root $work/p/root --runroot $work/p/run --storage-driver vfs --cgroup-manager cgroupfs"
version="podman $(podman --version | sed 's/.* //')"
skopeo copy -q oci:base:second oci-archive:second.tar:zz:latest
skopeo copy -q oci:base:first oci-archive:first.tar:bb:1
$podman load -q -i second.tar && $podman load -q -i first.tar
$podman tag localhost/zz:latest localhost/dk:latest
alias=$podman
export alias
keep podman-docker-archive "$version" '$alias save -q -o image.tar zz:latest dk:latest'
keep podman-multi-archive "$version" '$alias save -q -m -o image.tar zz:latest bb:1'
keep podman-oci-archive "$version" '$alias save -q --format oci-archive -o image.tar zz:latest'
keep podman-oci-dir "$version" '$alias save -q --format oci-dir -o image zz:latest'
keep podman-docker-dir "$version" '$alias save -q --format docker-dir -o image zz:latest'
keep podman-export-archive "$version" '$alias create -q --name cc zz:latest && $alias export -o image.tar cc'
version="buildah $(buildah --version | awk '{ print $3 }')"
keep buildah-oci-archive "$version" "buildah ${podman#podman} push -q zz:latest oci-archive:image.tar:zz:latest" || true
# start_containerd NAME [PATH]: starts the containerd of that PATH with the image in it, sets version.
start_containerd() {
    mkdir "$1"
    PATH=${2:+$2:}$PATH
    containerd --root "$work/$1/root" --state "$work/$1/state" --address "$work/$1/sock" >"$1/log" 2>&1 &
    daemons="$daemons $!"
    sleep 5
    export CONTAINERD_ADDRESS=$work/$1/sock
    version="containerd $(containerd --version | awk '{ print $3 }')"
    ctr images import --no-unpack --base-name zz second.tar >&2
    name=$(ctr images ls -q | head -n1)
    ctr images tag --force "$name" docker.io/library/zz:latest && ctr images tag "$name" docker.io/library/dk:latest
}
both='docker.io/library/zz:latest docker.io/library/dk:latest'
start_containerd ctr
keep containerd-archive "$version" "ctr images export image.tar $both"
# Directories into which Debian's packages of containerd 1.7 and 2.x were unpacked, and ctr-remote of stargz-snapshotter.
if [ -n "${CONTAINERD17:-}" ]; then
    path=$PATH
    start_containerd ctr17 "$CONTAINERD17/usr/bin"
    keep containerd17-archive "$version" "ctr images export image.tar $both"
    ctr_remote="$CTR_REMOTE images convert --estargz --oci docker.io/library/zz:latest docker.io/library/zz:esgz"
    keep estargz-archive "stargz-snapshotter, $version" "$ctr_remote && ctr images export image.tar docker.io/library/zz:esgz"
    PATH=$path
fi
if [ -n "${CONTAINERD2:-}" ]; then
    path=$PATH
    start_containerd ctr2 "$CONTAINERD2/usr/bin"
    keep containerd2-archive "$version" "ctr images export image.tar $both"
    PATH=$path
fi
# docker DIRECTORY-OF-PROGRAMS: starts that docker with its containerd, sets version.
start_docker() {
    state=$work/docker-$(basename "$1")-$2 && mkdir "$state" && echo '{"features": {"containerd-snapshotter": '"$2"'}}' >"$state/config.json"
    PATH=$1/bin:$1/sbin:$1/usr/bin:$1/usr/sbin:$PATH
    containerd --root "$state/ctr" --state "$state/ctr-state" --address "$state/ctr.sock" >"$state/ctr.log" 2>&1 &
    daemons="$daemons $!"
    sleep 3
    dockerd --config-file "$state/config.json" --data-root "$state/data" --exec-root "$state/exec" --pidfile "$state/pid" \
        --host "unix://$state/sock" --containerd "$state/ctr.sock" --bridge=none --iptables=false --ip6tables=false \
        --ip-forward=false ${3:-} >"$state/log" 2>&1 &
    daemons="$daemons $!"
    export DOCKER_HOST=unix://$state/sock
    timeout 30 sh -c 'until docker version; do sleep 1; done' >/dev/null 2>&1 || tail -n 5 "$state/log" >&2
    version="docker $(docker version --format '{{.Server.Version}}')"
    docker load -q -i docker.tar >&2 && docker tag zz:latest dk:latest
}
skopeo copy -q oci:base:second docker-archive:docker.tar:zz:latest
skopeo copy -q oci:base:first docker-archive:first-docker.tar:bb:1
# DOCKER20, DOCKER26 and DOCKER28 are directories into which Debian's packages of these versions were unpacked.
if [ -n "${DOCKER20:-}" ]; then
    start_docker "$DOCKER20" false '--storage-driver vfs'
    keep docker20-archive "$version" 'docker save zz:latest dk:latest -o image.tar'
    keep docker20-export-archive "$version" 'docker create --name cc zz:latest && docker export cc -o image.tar'
fi
if [ -n "${DOCKER26:-}" ]; then
    start_docker "$DOCKER26" false '--storage-driver vfs'
    docker load -q -i first-docker.tar >&2
    docker tag bb:1 yy:1
    keep docker26-archive "$version" 'docker save zz:latest dk:latest -o image.tar'
    keep docker26-multi-archive "$version" 'docker save zz:latest bb:1 yy:1 -o image.tar'
fi
if [ -n "${DOCKER28:-}" ]; then
    start_docker "$DOCKER28" false '--storage-driver vfs'
    keep docker28-archive "$version" 'docker save zz:latest dk:latest -o image.tar'
fi
if [ -n "${BUILDX:-}" ]; then
    mkdir context && cp -r one/etc one/bin context && printf 'FROM scratch\nCOPY bin /bin\nCOPY etc /etc\nCMD ["/bin/hello"]\n' >context/Dockerfile
    start_docker "$DOCKER26" true
    version="$version, $("$BUILDX" version | cut -d' ' -f1-2)"
    keep buildkit-archive "$version" '$BUILDX build -q -t a:1 -t b:1 --provenance=true --sbom=false --output type=oci,dest=image.tar context'
fi
umoci unpack --image base:second bundle >/dev/null 2>&1
keep umoci-bundle "$(umoci --version | sed 's/ version//')" 'cp -a bundle image'
{
    echo '# The corpus of images'
    echo
    echo 'Made by `images.sh`: one image in every form. `base` is an OCI layout by umoci.'
    echo
    echo '| image | tool | command |'
    echo '|---|---|---|'
    sed "s|$work/||g; s|\$alias|podman|g" "$table"
} >"$here/IMAGES.md"
du -sh "$out"
