#!/usr/bin/env bash
# containerd 1.6.20 (Debian 12, package containerd 1.6.20~ds1-1+deb12u3)
#
# One would guess that a file named by `imports` adds its keys to those of the main file. It does so between plugins, but not
# within one: a file that mentions the CRI plugin replaces all that the main file says of it. Here the imported file adds one
# runtime, and the pause image and the snapshotter of the main file are back at their defaults. The setting of another plugin,
# which the imported file does not mention, stays.
#
# It matters to whoever adds a runtime by a drop-in file: nodes lose their private registry's pause image by it.
#
# Output seen:
#   without the import:  sandbox_image = "example.test/pause:3.9" snapshotter = "native" startup_delay = "7s"
#   with the import:     sandbox_image = (the default) snapshotter = (the default) startup_delay = "7s"
#
# Needs Debian 12 and apt-get (as root, or with the package lists up to date). Exit status 1 if this changes.
set -eu -o pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -qq containerd=1.6.20~ds1-1+deb12u3 2>/dev/null
dpkg -x containerd_*.deb .

cat >main.toml <<'TOML'
version = 2
[plugins."io.containerd.gc.v1.scheduler"]
  startup_delay = "7s"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "example.test/pause:3.9"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
TOML
cat >drop-in.toml <<'TOML'
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
  runtime_type = "io.containerd.kata.v2"
TOML
{ printf 'imports = ["%s/drop-in.toml"]\n' "$folder"; cat main.toml; } >importing.toml

# What containerd says by itself, without any file, and what it says with one: the three values, in one line.
setting() { sed -n "s/^ *$1 = \(\".*\"\)$/\1/p" | sort -u; }
defaults=$(./usr/bin/containerd config default)
values() {
  local dump name value
  dump=$(./usr/bin/containerd --config "$1" config dump 2>/dev/null)
  for name in sandbox_image snapshotter startup_delay; do
    value=$(setting "$name" <<<"$dump")
    [ "$value" != "$(setting "$name" <<<"$defaults")" ] || value='(the default)'
    printf '%s = %s ' "$name" "$value"
  done
}

alone=$(values main.toml)
with_import=$(values importing.toml)
printf 'without the import:  %s\nwith the import:     %s\n' "$alone" "$with_import"
[ "$alone" = 'sandbox_image = "example.test/pause:3.9" snapshotter = "native" startup_delay = "7s" ' ]
[ "$with_import" = 'sandbox_image = (the default) snapshotter = (the default) startup_delay = "7s" ' ]
