#!/usr/bin/env bash
# Boots the host of `make nested` and runs our tests in it: a Debian 12 whose /dev/kvm works, under QEMU's emulation of a
# processor with SVM. ./build-host.sh makes it, ./inside.sh is what it does, ./table.py prints what came of it.
#
#   run.sh [NEXTEST-ARGUMENT ...]      for example part of a test's name; all tests of the profiles without any
#
# NESTED_PROFILES     profiles of .config/nextest.toml, one after the other ("nested nested-legacy nested-qemu10")
# NESTED_MINUTES      when to give up (90)
# NESTED_MEMORY       MiB of the machine (6144)
#
# NESTED_CONTINUE=1   keep the results of the last run, which was of the same commit, and run only the parts that have none
#
# A profile is run in parts. Where the machine fails (QEMU's emulation of SVM does, once in an hour or two), another one goes on
# with the parts that have no result yet. The part in which it failed comes last then. It is given up when two machines have
# failed in it.
#
# Everything is in out/nested afterwards: console.log, the results of each part as JUnit, table.md. Exit status 0 when all
# passed. The machine ends with this script, however that ends.
set -eu -o pipefail

here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
cache=${PITH_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pith}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
out=$tree/out/nested
profiles=${NESTED_PROFILES:-nested nested-legacy nested-qemu10}
minutes=${NESTED_MINUTES:-90}
# How many parts a profile has: each takes some minutes. And how many machines may fail.
parts_of() { case $1 in nested) echo 10 ;; *-legacy) echo 4 ;; *) echo 2 ;; esac; }
machines=6
# How long the machine may take to its first word, and how long it may be silent then: nextest says each minute what is slow.
boot_seconds=180 silent_seconds=400

say() { printf 'nested: %s\n' "$*"; }
case "$tree$cache$out" in
  *[[:space:],]*) say "no blanks and commas, please: $tree, $cache" >&2; exit 1 ;;
esac

host=$("$here/build-host.sh")
cd "$tree"
commit=$(git rev-parse HEAD 2>/dev/null || echo none)
if [ -z "${NESTED_CONTINUE:-}" ]; then
  rm -rf "$out"
elif [ "$(cat "$out/commit" 2>/dev/null)" != "$commit" ]; then
  say "the results in $out are not of this commit; run all of it, without NESTED_CONTINUE" >&2
  exit 1
fi
mkdir -p "$out"
echo "$commit" >"$out/commit"
cargo=${CARGO:-cargo}
# Machine monitors that tests/nested/monitors.rs tries, by the registry's name, and the version.
monitor() { # PROGRAM CRATE VERSION
  [ ! -x "$cache/monitors/$2-$3/bin/$1" ] || return 0
  say "building $2 $3 (some minutes, once)"
  $cargo install --quiet --locked --root "$cache/monitors/$2-$3" --target-dir "$cache/tmp/$2" "$2" --version "$3"
  rm -rf "$cache/tmp/$2"
}
monitor alioth alioth-cli 0.12.0
say "building the tests"
$cargo nextest list --locked --workspace --profile "${profiles%% *}" --list-type binaries-only --message-format json >"$out/binaries.json"
$cargo metadata --locked --format-version 1 --filter-platform "$(rustc -vV | sed -n "s/^host: //p")" >"$out/cargo.json"
cp -L "$(command -v cargo-nextest)" "$out/cargo-nextest"
parts=()
for profile in $profiles; do
  for ((part = 1; part <= $(parts_of "$profile"); part++)); do parts+=("$profile:$part/$(parts_of "$profile")"); done
done
# What the machine is to do.
write_job() {
  printf 'cache=%q\nhost=%q\nparts=%q\narguments=(' "$cache" "$host" "${parts[*]}" >"$out/job"
  [ $# = 0 ] || printf '%q ' "$@" >>"$out/job"
  echo ')' >>"$out/job"
}

qemu=() machine='' shown=''
qemu_command() {
  local share
  qemu=(
    "$host/qemu/usr/lib64/ld-linux-x86-64.so.2" --library-path "$host/qemu/usr/lib/x86_64-linux-gnu"
    "$host/qemu/usr/bin/qemu-system-x86_64" -L "$host/qemu/usr/share/qemu" -L "$host/qemu/usr/share/seabios"
    -nodefaults -no-user-config -no-reboot -display none
    -machine q35 -accel tcg,thread=multi -cpu max,-la57 -smp 2 -m "${NESTED_MEMORY:-6144}"
    -kernel "$host/vmlinuz" -initrd "$host/initrd"
    # With hpet as the clock, everything in the machine takes twice as long.
    -append "console=ttyS0 quiet panic=-1 tsc=reliable clocksource=tsc no_timer_check mitigations=off pith.tree=$tree"
    -chardev "file,id=console,path=$out/console.log" -serial chardev:console
    -drive "if=none,id=root,format=raw,readonly=on,file=$host/root.erofs" -device virtio-blk-pci,drive=root
    -virtfs "local,path=$tree,mount_tag=tree,security_model=none,readonly=on,multidevs=remap"
    -virtfs "local,path=$cache,mount_tag=cache,security_model=none,readonly=on,multidevs=remap"
    -virtfs "local,path=$out,mount_tag=results,security_model=none,multidevs=remap"
  )
}
end_machine() {
  [ -z "$machine" ] || kill -KILL "$machine" 2>/dev/null || true
  [ -z "$machine" ] || wait "$machine" 2>/dev/null || true
  machine=''
  # What it said last is shown before its reader goes.
  [ -z "$shown" ] || sleep 0.3
  [ -z "$shown" ] || kill "$shown" 2>/dev/null || true
  shown=''
}
trap end_machine EXIT
trap 'exit 130' INT TERM HUP

# Where the result of PROFILE:PART/PARTS is, without an ending.
result_of() {
  local number=${1#*:}
  echo "$out/${1%%:*}.${number%/*}"
}

# How many parts have no result yet.
missing() {
  local part count=0
  for part in "${parts[@]}"; do [ -f "$(result_of "$part").xml" ] || count=$((count + 1)); done
  echo "$count"
}

# Boots the machine and waits for its end, which is a failure unless it switched itself off.
machine_runs() {
  [ ! -f "$out/console.log" ] || cat "$out/console.log" >>"$out/earlier.log"
  : >"$out/console.log"
  setpriv --pdeathsig KILL -- "${qemu[@]}" </dev/null 2>"$out/qemu.log" &
  machine=$!
  setpriv --pdeathsig KILL -- tail -n +1 -F "$out/console.log" 2>/dev/null &
  shown=$!
  local started=$SECONDS spoken=0 silent
  while kill -0 "$machine" 2>/dev/null; do
    sleep 1
    [ $spoken = 1 ] || ! grep -q '^nested: ' "$out/console.log" || spoken=1
    silent=$(($(date +%s) - $(stat -c %Y "$out/console.log")))
    if [ $spoken = 0 ] && [ $((SECONDS - started)) -gt $boot_seconds ]; then
      say "the machine did not come up in $boot_seconds s"
      end_machine
      return 1
    elif [ $spoken = 1 ] && [ $silent -gt $silent_seconds ]; then
      say "the machine has been silent for $silent s: it hangs"
      end_machine
      return 1
    elif [ $((SECONDS - started)) -gt $((minutes * 60)) ]; then
      say "no end after $minutes minutes (NESTED_MINUTES)"
      end_machine
      return 1
    fi
  done
  end_machine
}

# The part that the machine was at when it failed comes last, or is given up.
declare -A failures=()
given_up=()
put_back() {
  local at part rest=()
  at=$(sed -n 's/^nested: profile \([^,]*\), part \([0-9/]*\).*/\1:\2/p' "$out/console.log" | tail -n 1)
  [ -n "$at" ] && [ ! -f "$(result_of "$at").xml" ] || return 0
  for part in "${parts[@]}"; do [ "$part" = "$at" ] || rest+=("$part"); done
  failures[$at]=$((${failures[$at]:-0} + 1))
  if [ "${failures[$at]}" -ge 2 ]; then
    say "two machines failed in ${at/:/, part }: it is given up"
    given_up+=("$at")
    parts=("${rest[@]}")
  else
    parts=("${rest[@]}" "$at")
  fi
}

qemu_command
started=$SECONDS
say "booting a Debian 12 with KVM under emulation"
while [ "$(missing)" -gt 0 ]; do
  before=$(missing)
  write_job "$@"
  machine_runs || true
  cat "$out/qemu.log" >&2
  finished=$((before - $(missing)))
  put_back
  left=$(missing)
  [ "$left" -gt 0 ] || break
  machines=$((machines - 1))
  if [ $machines = 0 ] || [ $((SECONDS - started)) -gt $((minutes * 60)) ]; then break; fi
  say "$left parts are left; $finished were done by this machine: another one goes on"
done
left=$(missing)
rm -f "$out/cargo-nextest" "$out/job" "$out/qemu.log"
minutes_taken=$(((SECONDS - started + 30) / 60))
[ "$left" = 0 ] || say "$left parts have no result; see $out/console.log" >&2
[ ${#given_up[@]} = 0 ] || say "the emulator failed in ${given_up[*]}, so these have no result; see $out/earlier.log" >&2
python3 "$here/table.py" "$out" "$minutes_taken" $profiles
[ "$left" = 0 ] && [ ${#given_up[@]} = 0 ] && ! ls "$out"/*.failed >/dev/null 2>&1
