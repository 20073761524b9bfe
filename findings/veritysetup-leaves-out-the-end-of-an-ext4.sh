#!/usr/bin/env bash
# veritysetup 2.6.1 (Debian 12, package cryptsetup-bin 2:2.6.1-4~deb12u2) with mkfs.ext4 1.47.0 (package e2fsprogs 1.47.0-2+b2)
#
# One would guess that `veritysetup format` covers the whole image, pads it, or refuses one that does not fit. It counts whole
# blocks of 4 KiB and leaves out the rest of the file, without a warning and with exit status 0. mkfs.ext4 makes such images by
# itself: below 512 MiB its blocks are of 1 KiB, so any size in KiB is a valid one.
#
# It matters to whoever builds small disks with dm-verity. The mapped device is shorter than the file system on it. ext4 does
# not mount there, and the error ("bad geometry") comes from the guest's kernel, far from the program that cut it.
#
# Output seen:
#   file system: 4195328 bytes
#   covered: 4194304 bytes
#   e2fsck of the file: 0
#   e2fsck of what is covered: The filesystem size (according to the superblock) is 4097 blocks
#
# Needs Debian 12 with the libraries of both packages, and apt-get (with the package lists up to date). Exit status 1 if this
# changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq cryptsetup-bin=2:2.6.1-4~deb12u2 e2fsprogs=1.47.0-2+b2 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done

MKE2FS_CONFIG=etc/mke2fs.conf sbin/mkfs.ext4 -q disk 4097K >/dev/null 2>&1
sbin/veritysetup format disk hashes >table
blocks=$(sed -n 's/^Data blocks:[[:space:]]*//p' table)
size=$(sed -n 's/^Data block size:[[:space:]]*//p' table)
head -c $((blocks * size)) disk >covered
{
  echo "file system: $(stat -c %s disk) bytes"
  echo "covered: $((blocks * size)) bytes"
  status=0
  sbin/e2fsck -fn disk >/dev/null 2>&1 || status=$?
  echo "e2fsck of the file: $status"
  echo "e2fsck of what is covered: $(sbin/e2fsck -n covered 2>/dev/null | grep -m 1 superblock)"
} | tee seen
diff - seen <<'SEEN'
file system: 4195328 bytes
covered: 4194304 bytes
e2fsck of the file: 0
e2fsck of what is covered: The filesystem size (according to the superblock) is 4097 blocks
SEEN
