#!/usr/bin/env bash
# GNU cpio 2.13 (Debian 12, package cpio 2.13+dfsg-7.1)
#
# One would guess that `cpio --reproducible` makes the same archive of the same files in the same order, wherever they came
# from. It does not if one of them has a hard link outside the tree. cpio waits for the other names of such a file, which never
# come, and writes it at the very end, so the order of the input is not kept. The header also has the number of links.
#
# It matters to whoever builds an initramfs from a tree that `cp -al`, ostree, a package cache or a content store has made out
# of hard links: the bytes, and so a measured boot, depend on what else on the machine shares a file with it.
#
# Output seen:
#   order: . a b c
#   order with a link to "a" elsewhere: . b c a
#   the archives differ
#
# Needs Debian 12 and apt-get (with the package lists up to date). Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq cpio=2.13+dfsg-7.1 2>/dev/null
dpkg -x cpio_*.deb .

mkdir tree
for name in a b c; do echo "content of $name" >"tree/$name"; done
touch -d 2020-01-01 tree/* tree
pack() { (cd tree && printf '%s\n' . a b c | "$folder/bin/cpio" -o -H newc --reproducible --quiet) >"$1"; }
order() { bin/cpio -t --quiet <"$1" | paste -sd ' '; }

pack alone
pack again
cmp alone again
# Nothing in the tree changes by this: no name, content, mode, owner or time of modification.
ln tree/a elsewhere
pack linked

printf 'order: %s\norder with a link to "a" elsewhere: %s\n' "$(order alone)" "$(order linked)" | tee seen
if cmp -s alone linked; then echo 'the archives are equal'; else echo 'the archives differ'; fi | tee -a seen
diff - seen <<'SEEN'
order: . a b c
order with a link to "a" elsewhere: . b c a
the archives differ
SEEN
