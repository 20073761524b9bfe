#!/usr/bin/env bash
# Linux 6.1.176 (Debian 12, package linux-image-6.1.0-50-cloud-amd64 6.1.176-1), control groups version 2
#
# One would guess that `oom_kill` in memory.events is the number of processes that were killed for lack of memory, which is how
# the kernel's documentation describes it. If the group has memory.oom.group set, it is one more: the process that was chosen
# first is killed and counted, and then again as one of the group. The kernel's log has two lines with its pid, too.
#
# It matters to whoever reports kills per container from this counter, since the kubelet sets memory.oom.group for containers.
#
# Output seen:
#   3 processes, memory.oom.group 1: oom_kill 4, oom_group_kill 1, lines in the log 4, of different processes 3
#   3 processes, memory.oom.group 0: oom_kill 1, oom_group_kill 0, lines in the log 1, of different processes 1
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

# Two processes sleep, and a third reads zeros into its memory until the limit is reached.
cat >root/init <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
for whole in 1 0; do
  group=/sys/fs/cgroup/whole$whole
  mkdir $group
  echo $whole >$group/memory.oom.group
  echo 40M >$group/memory.max
  dmesg -c >/before
  sh -c "echo \$\$ >$group/cgroup.procs; sleep 1000 & sleep 1000 & exec tail /dev/zero"
  sleep 1
  dmesg | sed -n 's/.*Killed process \([0-9]*\) .*/\1/p' >/killed
  echo "> 3 processes, memory.oom.group $whole: $(grep '^oom_kill ' $group/memory.events)," \
    "$(grep oom_group_kill $group/memory.events), lines in the log $(grep -c . /killed)," \
    "of different processes $(sort -u /killed | grep -c .)"
done
poweroff -f
INIT
chmod 755 root/init
(cd root && find . | cpio -o -H newc --quiet) >initrd

timeout 300 qemu-system-x86_64 -M q35 -accel tcg -m 256 -nic none -display none -monitor none -serial stdio -no-reboot \
  -kernel boot/vmlinuz-* -initrd initrd -append 'console=ttyS0 loglevel=1 panic=-1' </dev/null >console
tr -d '\r' <console | sed -n 's/^.*> //p' | tee seen
diff - seen <<'SEEN'
3 processes, memory.oom.group 1: oom_kill 4, oom_group_kill 1, lines in the log 4, of different processes 3
3 processes, memory.oom.group 0: oom_kill 1, oom_group_kill 0, lines in the log 1, of different processes 1
SEEN
