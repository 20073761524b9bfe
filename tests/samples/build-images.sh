#!/bin/sh
# Builds the sample images (busybox, curl, debian, nginx) as OCI layouts out of Debian packages.
#
#   build-images.sh [--arch x86_64|aarch64] [DIRECTORY]
#
# DIRECTORY becomes a link. It defaults to out/images of the source tree, or out/images-aarch64 for that architecture; without
# --arch the images are for this host.
#
# The images live in the cache, under the digest of this script and of the packages' versions; nothing is built
# when they are there. Packages are unpacked, not installed: no maintainer script runs and no privilege is needed.
# Needs mmdebstrap and umoci.
set -eu

# Each setup gets the root file system as $1, after the packages were unpacked into it.

# A shell with everything, in every image: what one looks around with.
setup_busybox() {
    for dir in bin etc root tmp var/tmp var/log run proc sys dev; do mkdir -p "$1/$dir"; done
    chmod 1777 "$1/tmp" "$1/var/tmp"
    chmod 700 "$1/root"
    # Of another architecture it does not run here; the host's is of the same version.
    if [ "$architecture" = "$(dpkg --print-architecture)" ]; then lister="$1/bin/busybox"; else lister=busybox; fi
    "$lister" --list | while read -r applet; do
        test -e "$1/bin/$applet" || ln -s busybox "$1/bin/$applet"
    done
    printf '%s\n' root:x:0:0:root:/root:/bin/sh www-data:x:33:33:www-data:/var/www:/bin/false \
        nobody:x:65534:65534:nobody:/nonexistent:/bin/false >"$1/etc/passwd"
    printf '%s\n' root:x:0: tty:x:5: www-data:x:33: nogroup:x:65534: >"$1/etc/group"
    for dir in doc man locale lintian info bug; do rm -rf "$1/usr/share/$dir"; done
    rm -rf "$1/var/cache" "$1/var/lib/apt" "$1/var/lib/dpkg" "$1"/usr/lib/*/gconv
}

setup_curl() {
    setup_busybox "$1"
    mkdir -p "$1/etc/ssl/certs"
    find "$1/usr/share/ca-certificates" -name '*.crt' | sort | xargs cat >"$1/etc/ssl/certs/ca-certificates.crt"
}

# A Debian with the usual tools and an account beside root: what programs of sandboxes expect.
setup_debian() {
    for dir in etc tmp var/tmp run proc sys dev root home/user; do mkdir -p "$1/$dir"; done
    chmod 1777 "$1/tmp" "$1/var/tmp"
    chmod 700 "$1/root"
    test -e "$1/bin/sh" || ln -s dash "$1/bin/sh"
    printf '%s\n' root:x:0:0:root:/root:/bin/bash user:x:1000:1000::/home/user:/bin/bash \
        nobody:x:65534:65534:nobody:/nonexistent:/bin/false >"$1/etc/passwd"
    printf '%s\n' root:x:0: tty:x:5: staff:x:50:user user:x:1000: nogroup:x:65534: >"$1/etc/group"
    # bash brings a whole perl with it, which is most of the image.
    rm -rf "$1"/usr/bin/perl* "$1"/usr/bin/*perl* "$1"/usr/share/perl* "$1"/usr/lib/*/perl* "$1"/usr/lib/*/libperl*
    for dir in doc man locale lintian info bug; do rm -rf "$1/usr/share/$dir"; done
    rm -rf "$1/var/cache" "$1/var/lib/apt" "$1/var/lib/dpkg" "$1"/usr/lib/*/gconv
}

setup_nginx() {
    setup_busybox "$1"
    mkdir -p "$1/var/log/nginx" "$1/var/lib/nginx" "$1/etc/nginx"
    cat >"$1/etc/nginx/nginx.conf" <<'CONF'
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
    include mime.types;
    access_log /dev/stdout;
    server {
        listen 80 default_server;
        root /usr/share/nginx/html;
    }
}
CONF
}

# image NAME PACKAGES UMOCI-CONFIG-OPTIONS...
image() {
    name=$1 packages=$2
    shift 2
    echo "sample image $name: unpacking $packages" >&2
    mmdebstrap --quiet --variant=extract --architectures="$architecture" --include="$packages" \
        --extract-hook="'$script' --setup $name \"\$1\"" --format=tar "$suite" "$work/$name.tar" >&2
    umoci init --layout "$work/images/$name"
    umoci new --image "$work/images/$name:latest"
    umoci raw add-layer --image "$work/images/$name:latest" --history.created 1970-01-01T00:00:00Z "$work/$name.tar"
    umoci config --image "$work/images/$name:latest" --created 1970-01-01T00:00:00Z \
        --history.created 1970-01-01T00:00:00Z --architecture "$architecture" --os linux \
        --config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
    umoci gc --layout "$work/images/$name"
}

# build NAME: one of the images, below $work.
build() {
    case $1 in
    busybox) image busybox busybox-static --config.cmd /bin/sh ;;
    curl) image curl busybox-static,curl,ca-certificates --config.entrypoint curl --config.cmd --help ;;
    debian) image debian bash,coreutils,dash,findutils,grep,procps,sed,tar,gzip --config.cmd /bin/bash ;;
    nginx)
        image nginx busybox-static,nginx-light \
            --config.entrypoint nginx --config.cmd -g --config.cmd 'daemon off;' \
            --config.stopsignal SIGQUIT --config.exposedports 80/tcp
        ;;
    esac
}

script=$(realpath "$0")
suite=bookworm

# mmdebstrap calls back here, as `build-images.sh --setup NAME ROOT`; the rest of this script, as `--image NAME`.
case ${1:-} in
--setup)
    "setup_$2" "$3"
    exit
    ;;
--image)
    build "$2"
    exit
    ;;
esac

here=$(cd "$(dirname "$0")" && pwd)
architecture=$(dpkg --print-architecture)
if [ "${1:-}" = --arch ]; then
    case ${2:-} in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *)
        echo "build-images.sh: --arch is x86_64 or aarch64, not '${2:-}'" >&2
        exit 2
        ;;
    esac
    shift 2
fi
suffix=
[ "$architecture" != arm64 ] || suffix=-aarch64
target=${1:-$here/../../out/images$suffix}
cache=${PITH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pith}
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" LC_ALL=C.UTF-8

for tool in mmdebstrap umoci sha256sum busybox; do
    command -v "$tool" >/dev/null || {
        echo "build-images.sh: $tool is not installed; try: apt-get install mmdebstrap umoci coreutils busybox-static" >&2
        exit 1
    }
done

versions=$(apt-cache policy busybox-static curl nginx-light libc6 libssl3 2>/dev/null | grep Candidate || true)
key=$({ cat "$0"; echo "$suite $architecture $SOURCE_DATE_EPOCH $versions"; } | sha256sum | cut -c1-32)
store=$cache/samples/$key

if [ ! -d "$store" ]; then
    mkdir -p "$cache/samples" "$cache/work"
    work=$(mktemp -d "$cache/work/samples-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    mkdir "$work/images"
    export work architecture
    # Side by side: each is fetched and unpacked by one thread.
    printf '%s\n' busybox curl debian nginx | xargs -P 4 -n 1 "$script" --image
    # The rename is what makes them appear; a faster builder's images are as good as ours.
    mv -T "$work/images" "$store" 2>/dev/null || test -d "$store"
fi

mkdir -p "$(dirname "$target")"
ln -sfnT "$store" "$target"
echo "sample images: $target" >&2
