#!/usr/bin/env bash
# umoci 0.4.7 (Debian 12, package umoci 0.4.7+ds-3+b7) with archives of git
#
# One would guess that umoci unpacks every ordinary tar archive that it took as a layer. `umoci raw add-layer` takes an archive
# of git, but the image cannot be unpacked any more: git begins its archives with a global header (type g, with the id of the
# commit), which POSIX defines and other programs pass over, and umoci refuses the type.
#
# It matters to whoever makes layers straight from a repository: the image is built and pushed, and fails where it is unpacked.
#
# Output seen:
#   GNU tar: file
#   bsdtar: file
#   umoci raw add-layer: taken
#   umoci raw unpack: unpack entry: pax_global_header: unknown typeflag '\x67'
#
# Needs Debian 12 with umoci's libraries, git and libarchive-tools, and apt-get. Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq umoci=0.4.7+ds-3+b7 2>/dev/null
dpkg -x umoci_*.deb .

git init -q repository
echo content >repository/file
git -C repository add file
git -C repository -c user.name=name -c user.email=name@example.test commit -q -m first
git -C repository archive -o "$folder/layer.tar" HEAD

{
  echo "GNU tar: $(tar -tf layer.tar)"
  echo "bsdtar: $(bsdtar -tf layer.tar)"
  usr/bin/umoci init --layout image
  usr/bin/umoci new --image image:tag
  usr/bin/umoci raw add-layer --image image:tag layer.tar
  echo 'umoci raw add-layer: taken'
  if usr/bin/umoci raw unpack --image image:tag root 2>error; then echo 'umoci raw unpack: done'; else
    echo "umoci raw unpack: $(grep -o 'unpack entry: pax_global_header: unknown typeflag .*' error | tail -n 1)"
  fi
} | tee seen
diff - seen <<'SEEN'
GNU tar: file
bsdtar: file
umoci raw add-layer: taken
umoci raw unpack: unpack entry: pax_global_header: unknown typeflag '\x67'
SEEN
