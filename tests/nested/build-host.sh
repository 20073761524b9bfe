#!/usr/bin/env bash
# Builds the host of `make nested` out of Debian packages, once, and prints the directory in the cache where it is:
#
#   root.erofs     the root file system of a Debian 12 with QEMU and the tools of our tests
#   vmlinuz        Debian's kernel
#   initrd         a busybox, a handful of that kernel's modules, and ./init
#   qemu/          QEMU 10 of Debian 13 with its libraries, which emulates that machine. Debian 12's own QEMU 7.2 hangs
#                  now and then on a busy machine when a guest uses SVM
#
# The key of the cache is the content of this script and of ./init, and the versions of the packages that matter. Packages
# are unpacked, not installed: no maintainer script runs, and no privilege is needed.
set -eu -o pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${PITH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pith}
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-0}" LC_ALL=C.UTF-8

packages=(
  # a system, as far as a script needs one
  bash coreutils util-linux mount grep sed mawk findutils diffutils hostname procps kmod busybox-static
  # what runs guests
  linux-image-amd64 qemu-system-x86 ovmf
  # what the tests call
  iproute2 e2fsprogs erofs-utils cryptsetup-bin fdisk iptables python3 python3-pip
)
# What /init loads before there is a root file system.
early=(virtio_pci virtio_blk crc32c_generic erofs overlay 9p 9pnet_virtio)
# Drivers of hardware that this machine does not have.
unneeded=(sound drivers/{gpu,media,net/wireless,net/ethernet,infiniband,iio,staging,hwmon,input,hid,usb,scsi,mtd,mfd,bluetooth,platform,power,thunderbolt,edac,leds,rtc})

say() { printf 'nested: %s\n' "$*" >&2; }

# mmdebstrap calls back here with the unpacked packages. What is made goes to ROOT/made, from where mmdebstrap takes it.
if [ "${1:-}" = --pack ]; then
  root=$2
  version=$(basename "$root"/lib/modules/*)
  modules=$root/lib/modules/$version
  for directory in "${unneeded[@]}"; do rm -rf "$modules/kernel/$directory"; done
  # The tree's own tools, by its own loader: this machine may have no kmod.
  tool() {
    "$root/lib64/ld-linux-x86-64.so.2" --library-path "$root/lib/x86_64-linux-gnu:$root/usr/lib/x86_64-linux-gnu" "$@"
  }
  tool --argv0 depmod "$root/bin/kmod" -b "$root" "$version"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT

  mkdir -p "$work/initrd"/{bin,dev,proc,sys,lower,upper,root} "$work/initrd/lib/modules/$version"
  cp "$root/bin/busybox" "$work/initrd/bin/busybox"
  cp "$here/init" "$work/initrd/init"
  cp "$modules"/modules.{dep,alias,order,builtin} "$work/initrd/lib/modules/$version/"
  tool --argv0 modprobe "$root/bin/kmod" -d "$root" -S "$version" --show-depends -a "${early[@]}" |
    sed -n "s|^insmod $root/*\([^ ]*\).*|\1|p" | sort -u | while read -r file; do
      install -D -m 644 "$root/$file" "$work/initrd/$file"
    done
  (cd "$work/initrd" && find . | LC_ALL=C sort | busybox cpio -o -H newc) >"$work/initrd.cpio" 2>/dev/null

  # Packages that are only unpacked have made neither of these.
  printf '%s\n' root:x:0:0:root:/root:/bin/bash nobody:x:65534:65534:nobody:/nonexistent:/bin/false >"$root/etc/passwd"
  printf '%s\n' root:x:0: nogroup:x:65534: >"$root/etc/group"
  ln -sf bash "$root/bin/sh"
  ln -sf mawk "$root/usr/bin/awk"
  for alternative in iptables ip6tables; do ln -sf "$alternative-nft" "$root/usr/sbin/$alternative"; done
  cp "$root/boot/vmlinuz-$version" "$work/vmlinuz"
  rm -rf "$root/boot" "$root/usr/share"/{doc,man,locale,lintian,info,bug} "$root/var"/{cache,lib/apt,log}
  # mmdebstrap has the kernel's file systems mounted here.
  mkfs.erofs --quiet --all-root -x-1 --exclude-regex='^(proc|sys|dev|run|tmp)/.+' -T "$SOURCE_DATE_EPOCH" -U 00000000-0000-0000-0000-000000000000 \
    "$work/root.erofs" "$root" >/dev/null
  mkdir "$root/made"
  mv "$work/root.erofs" "$work/vmlinuz" "$root/made/"
  mv "$work/initrd.cpio" "$root/made/initrd"
  exit
fi

for tool in mmdebstrap mkfs.erofs busybox sha256sum; do
  command -v "$tool" >/dev/null || { say "$tool is missing: run \`make setup\`"; exit 1; }
done
versions=$(apt-cache policy linux-image-amd64 qemu-system-x86 2>/dev/null | grep Candidate || true)
key=$({ cat "$0" "$here/init"; echo "$versions $SOURCE_DATE_EPOCH"; } | sha256sum | cut -c1-32)
store=$cache/nested/$key

if [ ! -d "$store" ]; then
  say "building the host from Debian packages (two to four minutes, once)"
  started=$SECONDS
  mkdir -p "$cache/nested" "$cache/work"
  work=$(mktemp -d "$cache/work/nested-XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  mkdir -p "$work/host/qemu"
  join() { local IFS=,; echo "$*"; }
  mmdebstrap --quiet --variant=extract --include="$(join "${packages[@]}")" \
    --extract-hook="'$(realpath "$0")' --pack \"\$1\"" \
    --extract-hook="download /made/root.erofs '$work/host/root.erofs'" \
    --extract-hook="download /made/initrd '$work/host/initrd'" \
    --extract-hook="download /made/vmlinuz '$work/host/vmlinuz'" \
    --format=null bookworm >&2
  say "unpacking QEMU 10"
  mmdebstrap --quiet --variant=extract --include=qemu-system-x86 --format=tar trixie "$work/qemu.tar" >&2
  tar --extract --file "$work/qemu.tar" --directory "$work/host/qemu" --no-same-owner --exclude=./dev \
    --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale' ./usr
  # The rename is what makes it appear; a faster builder's is as good as ours.
  mv -T "$work/host" "$store" 2>/dev/null || test -d "$store"
  say "built in $((SECONDS - started)) s"
fi
echo "$store"
