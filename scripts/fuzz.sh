#!/bin/bash
# Runs fuzz targets one after the other, each for so many seconds: `scripts/fuzz.sh SECONDS [TARGET ...]`, all targets
# if none is named. What they find lies in fuzz/artifacts/TARGET; what they learn stays in fuzz/corpus/TARGET.
#
# cargo-fuzz is installed below target/ if it is missing (a minute, once). The compiler is the stable one: the flags that
# coverage and AddressSanitizer need are let through by RUSTC_BOOTSTRAP, for this build alone.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: scripts/fuzz.sh SECONDS [TARGET ...]}
shift

tools=$PWD/target/tools
PATH=$tools/bin:$PATH
if ! command -v cargo-fuzz >/dev/null 2>&1; then
  echo "installing cargo-fuzz into target/tools" >&2
  cargo install --locked --quiet --root "$tools" cargo-fuzz
fi

cd fuzz
if [ $# -eq 0 ]; then
  # shellcheck disable=SC2046 # names of targets, without spaces
  set -- $(cargo fuzz list --fuzz-dir .)
fi

host=$(rustc -vV | sed -n 's/^host: //p')
echo "building with AddressSanitizer (some minutes the first time)" >&2
RUSTC_BOOTSTRAP=1 cargo fuzz build --fuzz-dir . --sanitizer address >&2

# Where targets put their sockets.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

failed=()
printf '| %-10s | %11s | %7s | %5s | %8s | %-8s | %10s |\n' target executions seconds edges features findings date
for target in "$@"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  log=artifacts/$target.log
  dict=()
  if [ -e "dicts/$target.dict" ]; then dict=("-dict=dicts/$target.dict"); fi
  found=none
  "target/$host/release/$target" "corpus/$target" "seeds/$target" "${dict[@]}" "-max_total_time=$seconds" \
    -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 "-artifact_prefix=artifacts/$target/" >"$log" 2>&1 ||
    { found=FOUND; failed+=("$target"); }
  last=$(grep -E '^#[0-9]+.*cov: ' "$log" | tail -1)
  number() { sed -n "s/.*$1: \([0-9]*\).*/\1/p" <<<"$last"; }
  executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  took=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$log")
  printf '| %-10s | %11s | %7s | %5s | %8s | %-8s | %10s |\n' "$target" "${executions:-?}" "${took:-?}" \
    "$(number cov)" "$(number ft)" "$found" "$(date -u +%F)"
done

for target in "${failed[@]}"; do
  printf '\n==== %s\n' "$target"
  grep -m 1 -A 2 -E 'panicked at|ERROR: ' "artifacts/$target.log" || true
  sed -n 's|.*Test unit written to |  fuzz/|p' "artifacts/$target.log"
done
[ ${#failed[@]} -eq 0 ]
