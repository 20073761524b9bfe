# What all engines are asked with. Each has a function `ask NAME OPTION...` that leaves /out/ENGINE-NAME.json and .cmd.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /etc/cdi /etc/docker /etc/containers
cat > /etc/cdi/example.json <<'J'
{"cdiVersion":"0.5.0","kind":"example.com/null","devices":[{"name":"one","containerEdits":{"env":["CDI=one"],
"deviceNodes":[{"path":"/dev/cdi0","hostPath":"/dev/full","type":"c","major":1,"minor":7}],
"mounts":[{"hostPath":"/etc/hostname","containerPath":"/etc/cdi-file","options":["ro","nosuid","bind"]}]}}]}
J
named() { # VERSION'S NAME, WHAT, COMMAND: says under which name the runtime keeps what comes
  echo "$1" > /out/name
  rm -f "/out/$1.json"
  echo "$2: $3" > "/out/$1.cmd"
}
# Those of podman and docker, which are the same words.
usual() {
  ask plain
  ask privileged --privileged
  ask device --device /dev/full:/dev/mine:rw
  ask ulimit --ulimit nofile=2048:4096 --ulimit core=0 --ulimit nproc=512
  ask init --init
  ask readonly --read-only
  ask sysctl --sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=1048576
  ask unconfined --security-opt seccomp=unconfined --security-opt no-new-privileges
  ask tmpfs --tmpfs /private --tmpfs /fresh --tmpfs /data:mode=0710,size=64k
  ask user --user web --group-add 77 --workdir /var/www --env A=1 --env A=2 --hostname here
  ask limits --memory 64m --memory-swap 128m --cpus 0.5 --cpu-shares 512 --pids-limit 50 --cap-drop ALL --cap-add CHOWN
  ask hostns --ipc host --pid host --uts host --cgroupns host
}
