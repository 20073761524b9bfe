#!/usr/bin/env bash
# Linux 6.1.176 (Debian 12, package linux-image-6.1.0-50-cloud-amd64 6.1.176-1) and pzstd 1.5.4 (package zstd 1.5.4+dfsg2-5)
#
# One would guess that whatever `zstd -d` reads, the kernel reads as an initramfs, as long as it has CONFIG_RD_ZSTD. It does not
# read what pzstd writes, the parallel program of the same package: its files begin with a skippable frame, and the kernel knows
# a zstd file only by the magic number of an ordinary frame. `zstd -T2` is parallel too and writes one ordinary frame.
#
# It matters to whoever makes initramfs images on many cores. The kernel says so only in its log, and goes on with what it has
# unpacked by then.
#
# Here the first part of the initramfs is not compressed and has /init, and the second part has one more file.
#
# Output seen:
#   zstd: 1 frame, 0 skippable: the file is there
#   pzstd: 1 frame, 1 skippable: no file; Initramfs unpacking failed: invalid magic at start of compressed archive
#
# Needs Debian 12, apt-get (with the package lists up to date), cpio and qemu-system-x86. Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq linux-image-6.1.0-50-cloud-amd64=6.1.176-1 busybox-static=1:1.35.0-4+deb12u1+b1 \
  zstd=1.5.4+dfsg2-5 2>/dev/null
dpkg --fsys-tarfile linux-image-*.deb | tar -x ./boot/vmlinuz-6.1.0-50-cloud-amd64
dpkg -x zstd_*.deb tools
mkdir -p root/bin root/dev root/proc more
dpkg --fsys-tarfile busybox-static_*.deb | tar -xO ./bin/busybox >root/bin/busybox
chmod 755 root/bin/busybox

cat >root/init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
if [ "$(cat /file 2>/dev/null)" = content ]; then
  echo '> the file is there'
else
  echo "> no file; $(dmesg | sed -n 's/.*\(Initramfs unpacking failed\)/\1/p')"
fi
poweroff -f
INIT
chmod 755 root/init
echo content >more/file
(cd root && find . | cpio -o -H newc --quiet) >first
(cd more && find . | cpio -o -H newc --quiet) >second
tools/usr/bin/zstd -q -T2 second -o second.zstd
tools/usr/bin/pzstd -q -p 2 second -o second.pzstd

for kind in zstd pzstd; do
  # Both are whole, and have the same content.
  tools/usr/bin/zstd -q -d -c "second.$kind" | cmp - second
  frames=$(tools/usr/bin/zstd -l "second.$kind" 2>/dev/null | awk 'NR == 2 { print $1 - $2 " frame, " $2 " skippable" }')
  cat first "second.$kind" >initrd
  timeout 300 qemu-system-x86_64 -M q35 -accel tcg -m 256 -nic none -display none -monitor none -serial stdio -no-reboot \
    -kernel boot/vmlinuz-* -initrd initrd -append 'console=ttyS0 loglevel=1 panic=-1' </dev/null >console
  printf '%s: %s: %s\n' "$kind" "$frames" "$(tr -d '\r' <console | sed -n 's/^.*> //p')"
done | tee seen
diff - seen <<'SEEN'
zstd: 1 frame, 0 skippable: the file is there
pzstd: 1 frame, 1 skippable: no file; Initramfs unpacking failed: invalid magic at start of compressed archive
SEEN
