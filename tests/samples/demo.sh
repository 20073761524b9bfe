#!/bin/sh
# Runs the sample pod as a user would, command by command: start it, read curl's output, execute something in
# nginx, look at the pod, show the figures. The pod is stopped in the end.
#
#   demo.sh [--bench]     --bench measures 200 execs instead of 20
#
# ARCH=aarch64 takes the sample images for that processor.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
pith=${PITH:-$here/../../target/debug/pith}
execs=20
[ "${1:-}" != --bench ] || execs=200

pod=$here/pod.yaml
case ${ARCH:-} in
'' | x86_64) ;;
aarch64)
    # The same pod with the images beside.
    pod=$here/../../out/pod-aarch64.yaml
    sed "s,\.\./\.\./out/images/,images-aarch64/," "$here/pod.yaml" >"$pod"
    ;;
*)
    echo "demo.sh: ARCH is x86_64 or aarch64, not '$ARCH'" >&2
    exit 2
    ;;
esac

# Shows a command, then runs it.
step() {
    printf '\n\033[1m$ pith %s\033[0m\n' "$*"
    "$pith" "$@"
}

trap '"$pith" rm --force sample >/dev/null 2>&1 || true' EXIT
trap 'exit 130' INT TERM

step run --detach --keep --file "$pod"
step logs --follow sample curl
step exec sample nginx -- nginx -v
step ps
step timings --bench-exec "$execs" sample
