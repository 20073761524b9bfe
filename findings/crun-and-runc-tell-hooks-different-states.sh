#!/usr/bin/env bash
# crun 1.8.1 and runc 1.1.5 (Debian 12, packages crun 1.8.1-1+deb12u1 and runc 1.1.5+ds1-1+deb12u1), OCI runtime spec 1.0.2
#
# One would guess that a hook can rely on `status` in the state that it reads from its standard input, because the runtime spec
# defines the values. For six kinds of hooks, the two runtimes agree on one. To runc a container whose program runs is still
# "created" (poststart), and to crun one that is being made is already "created" (prestart, createRuntime, createContainer).
# crun's startContainer hooks read "starting", which is not in the spec.
#
# It matters to authors of hooks that are registered for several kinds, and to runtimes that parse the state: an enumeration of
# the spec's four values cannot read crun's. A hook has to be told by an argument which kind it is.
#
# Output seen:
#   prestart: crun created, runc creating
#   createRuntime: crun created, runc creating
#   createContainer: crun created, runc creating
#   startContainer: crun starting, runc created
#   poststart: crun running, runc created
#   poststop: crun stopped, runc stopped
#
# Needs Debian 12 with the libraries of both packages, apt-get (with the package lists up to date), cpio, jq and
# qemu-system-x86: both run in a VM, so that it does not depend on the machine's control groups. Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq linux-image-6.1.0-50-cloud-amd64=6.1.176-1 busybox-static=1:1.35.0-4+deb12u1+b1 \
  crun=1.8.1-1+deb12u1 runc=1.1.5+ds1-1+deb12u1 2>/dev/null
dpkg --fsys-tarfile linux-image-*.deb | tar -x ./boot/vmlinuz-6.1.0-50-cloud-amd64
for package in busybox-static crun runc; do dpkg -x "$package"_*.deb tools; done

# The guest's files are in `real`, because the root of an initramfs cannot be left by pivot_root.
mkdir -p root/bin root/real real/bundle/rootfs
cd real
mkdir bin dev proc sys run tmp log bundle/rootfs/bin bundle/rootfs/log
cp ../tools/bin/busybox ../tools/usr/bin/crun ../tools/usr/sbin/runc bin/
ldd bin/crun bin/runc | grep -o ' /[^ ]*\|^[[:space:]]*/lib[^ ]*' | tr -d '[:blank:]' | sort -u | while read -r library; do
  mkdir -p ".$(dirname "$library")"
  cp -L "$library" ".$library"
done
ln -s busybox bin/sh
cat >hook <<'HOOK'
#!/bin/sh
# Arguments: the kind and the runtime.
state=$(cat)
echo "$1 $2 $(echo "$state" | sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p')" >>/log/states
HOOK
chmod 755 hook
cp hook bundle/rootfs/
cp bin/busybox bundle/rootfs/bin/
ln -s busybox bundle/rootfs/bin/sh
kinds='prestart createRuntime createContainer startContainer poststart poststop'
for runtime in crun runc; do
  # shellcheck disable=SC2086 # one word for each kind
  jq -n --arg runtime $runtime '{
    ociVersion: "1.0.2",
    root: {path: "rootfs"},
    process: {user: {uid: 0, gid: 0}, cwd: "/", args: ["/bin/sh", "-c", "sleep 1"], env: ["PATH=/bin"]},
    mounts: [
      {destination: "/proc", type: "proc", source: "proc"},
      {destination: "/dev", type: "tmpfs", source: "tmpfs"},
      {destination: "/log", type: "bind", source: "/log", options: ["bind"]}
    ],
    linux: {namespaces: [{type: "mount"}, {type: "pid"}]},
    hooks: ($ARGS.positional | map({(.): [{path: "/hook", args: ["hook", ., $runtime], env: ["PATH=/bin"]}]}) | add)
  }' --args $kinds >bundle/$runtime.json
done
cat >main <<'MAIN'
#!/bin/sh
/bin/busybox --install -s /bin
for runtime in crun runc; do
  cp /bundle/$runtime.json /bundle/config.json
  $runtime run --bundle /bundle $runtime </dev/null
done
sed 's/^/> /' /log/states
poweroff -f
MAIN
chmod 755 main
cd ..

cp tools/bin/busybox root/bin/
mv real root/files
cat >root/init <<'INIT'
#!/bin/busybox sh
export PATH=/bin
/bin/busybox mount -t tmpfs tmpfs /real
/bin/busybox cp -a /files/. /real
/bin/busybox mount -t devtmpfs dev /real/dev
/bin/busybox mount -t proc proc /real/proc
/bin/busybox mount -t sysfs sys /real/sys
/bin/busybox mount -t cgroup2 cgroup /real/sys/fs/cgroup
exec /bin/busybox switch_root /real /main
INIT
chmod 755 root/init
(cd root && find . | cpio -o -H newc --quiet) >initrd

timeout 300 qemu-system-x86_64 -M q35 -accel tcg -m 512 -nic none -display none -monitor none -serial stdio -no-reboot \
  -kernel boot/vmlinuz-* -initrd initrd -append 'console=ttyS0 loglevel=1 panic=-1' </dev/null >console
tr -d '\r' <console | sed -n 's/^.*> //p' >states
for kind in $kinds; do
  state() { awk -v kind="$kind" -v runtime="$1" '$1 == kind && $2 == runtime { print $3 }' states; }
  echo "$kind: crun $(state crun), runc $(state runc)"
done | tee seen
diff - seen <<'SEEN'
prestart: crun created, runc creating
createRuntime: crun created, runc creating
createContainer: crun created, runc creating
startContainer: crun starting, runc created
poststart: crun running, runc created
poststop: crun stopped, runc stopped
SEEN
