#!/bin/sh
# Prints what tests/devices saw work: the notes that its tests left in out/devices.
set -eu
cd "$(dirname "$0")/../.."
test -d out/devices || { echo "no test of a device has left a note: run \`make devices\`" >&2; exit 1; }
printf '\nStorages and devices, each on the real thing in a guest:\n\n'
cat out/devices/* | sort | awk -F '\t' '
    { kind[NR] = $1; how[NR] = $2; test[NR] = $3; if (length($1) > a) a = length($1); if (length($2) > b) b = length($2) }
    END { for (i = 1; i <= NR; i++) printf "  %-" a "s  %-" b "s  %s\n", kind[i], how[i], test[i]; printf "\n%d rows\n", NR }'
