#!/bin/bash
# What the host of `make nested` does once it has a root file system (./init): puts the source tree and its cache where they
# are outside, runs the tests of profiles of .config/nextest.toml in parts, and leaves the results in /shares/results. What has
# a result already is passed over.
#
#   inside.sh TREE      the rest is in /shares/results/job: cache, parts, and arguments for nextest, as shell variables
#
# Nothing that runs here changes the tree or the cache: what is written to them stays in memory.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C
set -u -o pipefail

tree=$1
results=/shares/results
off() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}
trap off EXIT
fail() {
    echo "nested: $*"
    exit 1
}

mkdir -p /tmp /run /dev/pts /dev/shm /dev/net /scratch
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /scratch
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
hostname nested
ip link set lo up || fail "no loopback"
modprobe -a kvm_amd vhost_vsock vhost_net tun || fail "the kernel's modules cannot be loaded"
[ -c /dev/kvm ] || fail "no /dev/kvm: the machine has no SVM"
[ -c /dev/vhost-vsock ] || fail "no /dev/vhost-vsock"

# shellcheck source=/dev/null
. "$results/job" || fail "no job in $results"
layer() { # SHARE DIRECTORY: the share at a directory of its own, with a layer in memory over it
    mkdir -p "$2" "/scratch/$1/up" "/scratch/$1/work"
    mount -t overlay -o "lowerdir=/shares/$1,upperdir=/scratch/$1/up,workdir=/scratch/$1/work" overlay "$2" ||
        fail "cannot layer $1"
}
layer tree "$tree"
layer cache "$cache"
export PITH_CACHE=$cache PATH=$cache/bin:$PATH
# Under emulation, and with other work beside it, everything may take this many times as long.
export PITH_PATIENCE=8
# Tests that start QEMU by themselves take KVM.
export PITH_TEST_ACCEL=kvm
for monitor in "$cache"/monitors/*/bin; do PATH=$monitor:$PATH; done
# What is known of another host, and notes of other runs.
rm -rf "$cache/kvm.json" "$tree/out/devices"
cd "$tree" || fail "no $tree"

echo "nested: Debian's kernel $(uname -r), $(nproc) processors, $(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB," \
    "nested paging $(cat /sys/module/kvm_amd/parameters/npt), clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
# The QEMU of a profile. Kata's shims give virtio devices this option on hosts that are VMs; a device in a PCI Express port
# would then be neither kind without the second one.
legacy=/run/qemu-legacy
{
    printf '#!/bin/bash\nexec qemu-system-x86_64 "$@"'
    for driver in virtio-{blk,net,scsi,serial,rng,balloon,9p}-pci; do
        printf ' -global %s.disable-modern=on -global %s.disable-legacy=off' "$driver" "$driver"
    done
    echo
} >"$legacy"
qemu10=/run/qemu-10
cat >"$qemu10" <<END
#!/bin/bash
exec $host/qemu/usr/lib64/ld-linux-x86-64.so.2 --library-path $host/qemu/usr/lib/x86_64-linux-gnu \\
    $host/qemu/usr/bin/qemu-system-x86_64 -L $host/qemu/usr/share/qemu -L $host/qemu/usr/share/seabios "\$@"
END
chmod +x "$legacy" "$qemu10"

# A pipe, not the console itself, which nextest would take for a terminal and redraw all the time.
for part in $parts; do
    profile=${part%%:*} number=${part#*:}
    result=$results/$profile.${number%/*}
    [ ! -f "$result.xml" ] || continue
    echo "nested: profile $profile, part $number"
    unset PITH_QEMU
    case $profile in
        *legacy) export PITH_QEMU=$legacy ;;
        *qemu10) export PITH_QEMU=$qemu10 ;;
    esac
    status=0 report=$tree/target/nextest/$profile/junit.xml
    rm -f "$report"
    "$tree/out/nested/cargo-nextest" nextest run --binaries-metadata "$tree/out/nested/binaries.json" \
        --cargo-metadata "$tree/out/nested/cargo.json" --profile "$profile" --partition "count:$number" --no-tests pass \
        "${arguments[@]}" </dev/null 2>&1 | cat || status=$?
    [ $status = 0 ] || echo $status >"$result.failed"
    [ ! -d "$tree/out/devices" ] || cp -r "$tree/out/devices" "$results/"
    # Last, and at once: with it the part is done.
    if [ -f "$report" ]; then
        cp "$report" "$result.new"
    else
        # No test is in this part.
        echo '<testsuites/>' >"$result.new"
    fi
    sync
    mv "$result.new" "$result.xml"
done
