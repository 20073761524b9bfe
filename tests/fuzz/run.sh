#!/usr/bin/env bash
# Runs fuzz targets with stable Rust: tests/fuzz/run.sh SECONDS [TARGET…]; without targets all of them, as many at a time
# as there are processors. What is found stays in out/fuzz/found: make it a file of tests/fuzz/regressions with the fix.
set -eu -o pipefail
cd "$(dirname "$0")/../.."

seconds=$1
shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  for file in tests/fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

out=out/fuzz
mkdir -p "$out/found"
rm -rf "$out/seeds"
# The whole workspace, as `make unit` builds it: with `-p` its crates would be compiled once more.
FUZZ_SEEDS=$PWD/$out/seeds cargo test --quiet --locked --workspace --lib -- outcome::golden::seeds fuzz::tests::seeds >/dev/null
[ -d "$out/seeds" ] || { echo "fuzz: the test that writes the seeds is gone" >&2; exit 1; }

triple=$(rustc -vV | sed -n 's/^host: //p')
# The pass is LLVM's own, so no nightly flag is needed. With a target named, build scripts and macros stay as they are.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --quiet --locked --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz --target "$triple"
built=target/fuzz/$triple/release

fuzz() { # TARGET
  local target=$1 seeds=() directory
  mkdir -p "$out/corpus/$target"
  for directory in "$out/seeds" tests/fuzz/corpus tests/fuzz/regressions; do
    if [ -d "$directory/$target" ]; then seeds+=("$directory/$target"); fi
  done
  "$built/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -dict="$out/seeds/dictionary" -artifact_prefix="$out/found/$target-" \
    "$out/corpus/$target" "${seeds[@]}" 2>"$out/$target.log" || {
    tail -n 40 "$out/$target.log"
    exit 1
  }
  awk -v target="$target" '
    /^stat::number_of_executed_units/ { runs = $2 }
    /^#[0-9]+.*cov: / { for (i = 1; i < NF; i++) if ($i == "cov:") coverage = $(i + 1) }
    END { printf "fuzz: %s: %d runs, %d edges, nothing found\n", target, runs, coverage }' "$out/$target.log"
}

export -f fuzz
export out built seconds
printf '%s\n' "${targets[@]}" | xargs --max-procs="$(nproc)" --replace=TARGET bash -eu -c 'fuzz TARGET'
