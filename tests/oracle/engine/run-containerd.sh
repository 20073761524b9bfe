. /opt/common.sh
# Its shim looks for runc by that name.
PATH=/opt/fake:$PATH containerd --root /tmp/data --state /tmp/state -a /run/c.sock > /tmp/containerd.log 2>&1 &
daemon=$!
ctr="ctr -a /run/c.sock"
for _ in $(seq 60); do $ctr version > /dev/null 2>&1 && break; sleep 1; done
version=$(containerd --version | awk '{ print $3 }' | sed 's/[~+].*//')
local=
case $version in 2.*) local=--local ;; esac
$ctr image import $local --snapshotter native --base-name localhost/probe /probe.tar
image=$($ctr image ls -q | head -n 1)
ask() {
  name=containerd-$version-$1
  shift
  named "$name" "containerd $version" "ctr run $* probe box"
  timeout 20 $ctr run --snapshotter native --rm "$@" "$image" box < /dev/null
  $ctr container rm box
  $ctr snapshot --snapshotter native rm box
}
user=
ctr run --help | grep -q -e '--user value' && user='--user 33:33'
ask plain
ask privileged --privileged
ask device --device /dev/full
ask readonly --read-only
ask seccomp --seccomp
ask userns --uidmap 0:100000:65536 --gidmap 0:100000:65536
ask user $user --cwd /made --env A=1 --env A=2 --mount type=tmpfs,dst=/private,src=tmpfs,options=nosuid --seccomp
ask limits --memory-limit 67108864 --cpus 0.5 --cap-drop CAP_CHOWN --allow-new-privs=false
ask nethost --net-host
ask nopid --with-ns pid:/proc/1/ns/pid
case $version in 1.*) ;; *) ask cdi --device example.com/null=one ;; esac
kill $daemon
exit 0
