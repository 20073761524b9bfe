. /opt/common.sh
version=$(podman --version | sed 's/.* //')
options="--cgroup-manager=cgroupfs --runtime /opt/fake/runc --storage-driver vfs"
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > /etc/containers/policy.json
printf 'root:1:65536\ncontainers:100000:65536\n' > /etc/subuid
cp /etc/subuid /etc/subgid
podman $options import -q -c 'CMD ["/bin/probe"]' -c 'ENV PATH=/usr/bin:/bin' /rootfs.tar localhost/probe:1
ask() {
  name=podman-$version-$1
  shift
  named "$name" "podman $version" "podman run $* probe"
  podman $options create --pull never --network none --name box "$@" localhost/probe:1
  podman $options start box
  podman $options rm -f box
}
usual
ask userns --uidmap 0:100000:65536 --gidmap 0:100000:65536
ask cdi --device example.com/null=one
exit 0
