#!/usr/bin/env bash
# Prints the path of the kernel that Debian makes for clouds, fetched once into the cache. Installs nothing.
set -eu -o pipefail

cache=${PITH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pith}
# The package that is meant by the name without a version.
package=$(LC_ALL=C apt-cache depends --important linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
[ -n "$package" ] || { echo "apt knows no linux-image-cloud-amd64: apt-get update, on Debian" >&2; exit 1; }

target=$cache/debian-kernel/$package
if [ ! -f "$target/vmlinuz" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  chmod 755 "$work"
  (cd "$work" && apt-get download -qq "$package" >&2 && dpkg-deb --extract ./*.deb tree)
  mkdir -p "$target"
  cp "$work"/tree/boot/vmlinuz-* "$target/vmlinuz.new"
  mv "$target/vmlinuz.new" "$target/vmlinuz"
fi
echo "$target/vmlinuz"
