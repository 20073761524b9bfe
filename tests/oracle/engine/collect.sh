#!/bin/sh
# Makes the specs of this directory anew, out of Debian's packages: collect.sh DIRECTORY. Takes root, mmdebstrap,
# busybox-static, umoci and some minutes. No container runs: the runtime is a script that keeps the config.json it is given.
# What is kept of the outcome is a choice: all of it would be half a megabyte of much the same.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && cd "$1"

# An image with a private directory and a user, as a tree and as an OCI layout.
[ -e probe.tar ] || {
  umoci init --layout oci && umoci new --image oci:probe && umoci unpack --image oci:probe unpacked
  tree=unpacked/rootfs
  mkdir -p $tree/bin $tree/etc $tree/proc $tree/sys $tree/dev $tree/tmp $tree/var/www $tree/data $tree/private
  chmod 1777 $tree/tmp; chmod 700 $tree/private
  cp /bin/busybox $tree/bin/busybox; ln -s busybox $tree/bin/sh; cp /bin/busybox $tree/bin/probe
  printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n' > $tree/etc/passwd
  printf 'root:x:0:\nweb:x:33:\n' > $tree/etc/group
  tar -C $tree -cf rootfs.tar .
  umoci repack --image oci:probe unpacked
  umoci config --image oci:probe --config.cmd /bin/probe --config.env PATH=/usr/bin:/bin
  tar -C oci -cf probe.tar .
}

packages=podman,docker.io,containerd,crun,runc,conmon,iptables,ca-certificates,tini,catatonit
for release in bookworm trixie forky; do
  root=root-$release
  more=; [ $release = bookworm ] || more=,docker-cli
  # The engine of another release is of use long after its package lists have expired.
  [ -d $root ] || mmdebstrap --aptopt='Acquire::Check-Valid-Until "false"' --variant=apt --include=$packages$more $release $root
  mkdir -p $root/out $root/opt/fake
  cp probe.tar rootfs.tar $root/
  cp "$here/runtime.sh" $root/opt/fake/runc; chmod 755 $root/opt/fake/runc
  for engine in podman docker containerd; do
    cp "$here/run-$engine.sh" "$here/common.sh" $root/opt/
    # In a root that can be pivoted, with a cgroup v2 that says it has all controllers.
    unshare -m -p -f --propagation private sh -c "
      mount --bind $root $root
      mount -t proc proc $root/proc; mount -t sysfs sysfs $root/sys; mount --rbind /dev $root/dev
      mount -t tmpfs tmpfs $root/run; mount -t tmpfs tmpfs $root/tmp; mount -t cgroup2 none $root/sys/fs/cgroup
      echo cpuset cpu io memory hugetlb pids rdma misc > $root/run/controllers
      mount --bind $root/run/controllers $root/sys/fs/cgroup/cgroup.controllers
      mount --bind $root/run/controllers $root/sys/fs/cgroup/cgroup.subtree_control
      cd $root; mount --move . /; exec chroot . /bin/sh /opt/run-$engine.sh"
  done
done
python3 "$here/keep.py" root-bookworm root-trixie root-forky
