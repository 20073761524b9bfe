#!/usr/bin/env bash
# Prints the paths of three root file systems, unpacked once into the cache from Debian packages. Needs mmdebstrap.
set -eu -o pipefail

cache=${PITH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pith}
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is not installed: apt-get install mmdebstrap" >&2; exit 1; }

# tree NAME PACKAGES
tree() {
  target=$cache/bench-trees/$1
  if [ ! -d "$target" ]; then
    echo "unpacking $2" >&2
    mkdir -p "$cache/bench-trees"
    work=$(mktemp -d "$cache/bench-trees/.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    # Unpacked, not installed: no maintainer script runs.
    mmdebstrap --quiet --variant=extract --include="$2" bookworm "$work/root" >&2
    mv -T "$work/root" "$target"
    rm -rf "$work"
  fi
  echo "$target"
}

tree web nginx-light,curl,busybox-static
tree python python3,python3-pip,python3-venv
tree compilers gcc,g++,golang-go,git,perl,vim
