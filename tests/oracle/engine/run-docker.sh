. /opt/common.sh
[ -e /usr/bin/docker-init ] || cp /usr/bin/tini /usr/bin/docker-init
grep -q dockremap /etc/passwd || {
  echo dockremap:x:999:999::/:/bin/false >> /etc/passwd
  echo dockremap:x:999: >> /etc/group
}
echo dockremap:100000:65536 > /etc/subuid
cp /etc/subuid /etc/subgid
begin() {
  dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs --exec-opt native.cgroupdriver=cgroupfs \
    --add-runtime keep=/opt/fake/runc --default-runtime keep "$@" > /tmp/dockerd.log 2>&1 &
  daemon=$!
  for _ in $(seq 60); do docker version > /dev/null 2>&1 && break; sleep 1; done
  docker import -c 'CMD ["/bin/probe"]' -c 'ENV PATH=/usr/bin:/bin' /rootfs.tar probe:1
}
finish() {
  kill $daemon
  wait $daemon
  rm -f /var/run/docker.pid
}
how=
ask() {
  name=docker-$version-$1
  shift
  named "$name" "docker $version" "${how}docker run $* probe"
  docker create --network none --name box "$@" probe:1
  docker start box
  docker rm -f box
}
begin
version=$(docker version -f '{{.Server.Version}}' | cut -d+ -f1)
usual
finish
case $version in
  20.*) ;;
  *)
    echo '{"features":{"cdi":true}}' > /etc/docker/daemon.json
    begin
    ask cdi --device example.com/null=one
    finish
    ;;
esac
begin --userns-remap default
how='dockerd --userns-remap default; '
ask userns
finish
exit 0
