#!/usr/bin/env bash
# Linux 6.1.176 (Debian 12, package linux-image-6.1.0-50-cloud-amd64 6.1.176-1), control groups version 2
#
# One would guess that a process in a frozen control group gets its signals when the group is thawed, and that only SIGKILL does
# not wait. Which signals wait depends on what the process does with them. SIGTERM, SIGHUP or SIGUSR1 end a frozen process at
# once if it has no handler for them. SIGABRT and SIGSEGV, which also end it but write a core dump, wait for the thaw, and so
# does SIGTERM if there is a handler.
#
# It matters to whoever pauses containers by the freezer. A signal that was sent to a paused container may have ended it long
# before the container is resumed, and a pause does not protect a process from `kill`.
#
# Output seen (the group stays frozen the whole time):
#   SIGKILL: ended
#   SIGTERM: ended
#   SIGHUP: ended
#   SIGUSR1: ended
#   SIGABRT: waits
#   SIGSEGV: waits
#   SIGTERM with a handler: waits
#
# Needs Debian 12, apt-get (with the package lists up to date), cpio and qemu-system-x86. Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq linux-image-6.1.0-50-cloud-amd64=6.1.176-1 busybox-static=1:1.35.0-4+deb12u1+b1 2>/dev/null
dpkg --fsys-tarfile linux-image-*.deb | tar -x ./boot/vmlinuz-6.1.0-50-cloud-amd64
mkdir -p root/bin root/dev root/proc root/sys
dpkg --fsys-tarfile busybox-static_*.deb | tar -xO ./bin/busybox >root/bin/busybox
chmod 755 root/bin/busybox

cat >root/init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
group=/sys/fs/cgroup/paused

# paused NAME SIGNAL COMMAND...: what a signal does to a process in a frozen group.
paused() {
  name=$1 signal=$2
  shift 2
  mkdir $group
  setsid "$@" &
  sleep 1
  echo $! >$group/cgroup.procs
  echo 1 >$group/cgroup.freeze
  until grep -q 'frozen 1' $group/cgroup.events; do sleep 0.1; done
  kill -$signal $!
  sleep 1
  if grep -q 'populated 0' $group/cgroup.events; then answer=ended; else answer=waits; fi
  grep -q 1 $group/cgroup.freeze && echo "> $name: $answer"
  echo 1 >$group/cgroup.kill
  wait $!
  rmdir $group
}
for signal in KILL TERM HUP USR1 ABRT SEGV; do paused SIG$signal $signal sleep 1000; done
paused 'SIGTERM with a handler' TERM sh -c 'trap exit TERM; while :; do sleep 0.1; done'
poweroff -f
INIT
chmod 755 root/init
(cd root && find . | cpio -o -H newc --quiet) >initrd

timeout 300 qemu-system-x86_64 -M q35 -accel tcg -m 256 -nic none -display none -monitor none -serial stdio -no-reboot \
  -kernel boot/vmlinuz-* -initrd initrd -append 'console=ttyS0 loglevel=1 panic=-1' </dev/null >console
tr -d '\r' <console | sed -n 's/^.*> //p' | tee seen
diff - seen <<'SEEN'
SIGKILL: ended
SIGTERM: ended
SIGHUP: ended
SIGUSR1: ended
SIGABRT: waits
SIGSEGV: waits
SIGTERM with a handler: waits
SEEN
