# Runs every bundle with every runtime, in a root that can be pivoted, and prints what came of it.
#
# Everything of one run is at /run/b, so that paths are the same in each. What a run has left behind is printed too.

case ${1:-} in
  '')
    # No mount of it is the guest's: pivot_root wants the root's parent not to be shared.
    exec unshare -m /bin/sh "$0" apart
    ;;
  apart)
    mkdir -p /run/new
    mount -o rbind / /run/new
    # Moved onto the root it is one itself: in a mere chroot the kernel makes no user namespaces.
    cd /run/new || exit 1
    mount -o move . /
    exec chroot . /bin/sh "$0" inside
    ;;
esac

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022

# A volume with a mount below, and namespaces to join.
mkdir -p /run/volume/below /run/ns
echo content > /run/volume/file
mount -t tmpfs -o size=64k below /run/volume/below
for kind in net ipc uts user; do : > /run/ns/$kind; done
unshare -n -i -u sleep 100000 &
holder=$!
unshare -U sleep 100000 &
owner=$!
sleep 1
for kind in net ipc uts; do mount --bind /proc/$holder/ns/$kind /run/ns/$kind; done
echo 0 100000 65536 > /proc/$owner/uid_map
echo 0 200000 65536 > /proc/$owner/gid_map
mount --bind /proc/$owner/ns/user /run/ns/user

# What hooks of engines call, with words of theirs in argv[0]: a link to busybox would look for a program of that name.
rm -f /bin/true
printf '#!/bin/sh\ncat > /dev/null\n' > /bin/true
chmod 755 /bin/true

root() {
  mkdir -p bin etc proc sys dev tmp var
  cp /bin/busybox /oracle/probe bin/
  ln -s busybox bin/sh
  ln -s busybox bin/cat
  ln -s busybox bin/false
  printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n' > etc/passwd
  printf 'root:x:0:\nweb:x:33:\n' > etc/group
}

# Cgroups below ours, mounts, and processes that are no threads of the kernel: those have brackets around their name. Left out
# are the programs of this script. The `timeout` of a run that has ended stays for up to a second.
left() {
  find /sys/fs/cgroup/oracle /sys/fs/cgroup/box -mindepth 1 -type d 2>/dev/null
  echo "mounts $(wc -l < /proc/self/mountinfo)"
  ps -o args | cut -c1-60 > /run/processes
  grep -v -e '^COMMAND' -e '^\[' -e run.sh -e '^ps ' -e '^cut ' -e '^timeout ' /run/processes | sort | uniq -c
}

left > /run/left.before
ls -l /proc/self/ns | sed -n 's/.* \([a-z]*\) -> \(.*\)/@@namespace \1 \2/p'
for kind in net ipc uts user; do
  echo "@@joined $kind $(stat -L -c %i /run/ns/$kind)"
done
cd /oracle/bundle || exit 1
for name in *; do
  for runtime in jail $(cat /oracle/more 2> /dev/null) crun runc; do
    rm -rf /run/b /run/hooks
    # One of them gives the guest's own away, to the user of a container.
    chown 0:0 /dev/null
    mkdir -p /run/b/rootfs
    cp /oracle/bundle/$name/config.json /run/b/
    (cd /run/b/rootfs && root && sh /oracle/bundle/$name/prepare)
    case $runtime in
      jail) set -- /oracle/jail run /run/b --id box ;;
      moved) set -- /oracle/jail run --no-pivot /run/b --id box ;;
      crun) set -- crun --cgroup-manager=cgroupfs run --bundle /run/b box ;;
      runc) set -- runc run --bundle /run/b box ;;
    esac
    (cd /run/b && exec timeout -s KILL 60 "$@") > /run/out 2> /run/err < /dev/null
    status=$?
    echo "@@begin $name $runtime $status"
    cat /run/out
    echo
    echo "@@said"
    head -c 2000 /run/err
    echo
    echo "@@after"
    (cd /run/b && sh /oracle/bundle/$name/after) 2>&1
    echo "@@left"
    # The kernel takes a cgroup's last process away in its own time.
    left > /run/left.after
    cmp -s /run/left.before /run/left.after || { sleep 1; left > /run/left.after; }
    diff /run/left.before /run/left.after | grep '^[<>]'
    case $runtime in
      crun) crun --cgroup-manager=cgroupfs delete -f box 2> /dev/null ;;
      runc) runc delete -f box 2> /dev/null ;;
    esac
    find /sys/fs/cgroup/oracle /sys/fs/cgroup/box -depth -type d -exec rmdir {} + 2> /dev/null
    echo "@@end"
  done
done
kill $holder $owner
echo "@@done"
