#!/bin/bash
# Runs all tests and the quick drills, then says how many tests ran on real parts. Arguments go to cargo test; with any,
# no drill runs.
set -euo pipefail
cd "$(dirname "$0")/.."

report=$(mktemp) output=$(mktemp)
trap 'rm -f "$report" "$output"' EXIT
status=0
ETNA_TEST_REPORT=$report cargo test --workspace --no-fail-fast "$@" | tee "$output" || status=$?
if [ $# -eq 0 ]; then
  printf '\nDrills, shortened, at a lower rate (make drills runs them all at full length):\n'
  cargo run --quiet --package etna-tests --bin drills -- --short | tee -a "$output" || status=$?
fi

count() { grep -cxF "$1" "$report" || true; }
# The end-to-end tests say what they ran on. The store's acceptance suite has a module for each engine.
etcd=$(($(count 'ran etcd') + $(grep -cE '^test etcd[a-z_]*::.* ok$' "$output" || true)))
skipped=$(grep -c '^skipped ' "$report" || true)
if grep -q '^measured ' "$report"; then
  printf '\nMeasured, by programs built without optimisation:\n'
  sed -n 's/^measured /  /p' "$report"
fi
printf '\nOn real parts: etcd: %s tests, docker: %s tests, wordpress: %s tests, skipped: %s\n' \
  "$etcd" "$(count 'ran docker')" "$(count 'ran wordpress')" "$skipped"
if [ "$skipped" -gt 0 ]; then
  printf '\n'
  printf '*****************************************************************************\n'
  printf '  %s tests did NOT run: no Docker engine answers here, and none could be\n' "$skipped"
  printf '  started. Nothing was tested on containers or on WordPress. Start Docker, or\n'
  printf '  run as root (or with sudo that asks for no password), and test again.\n'
  printf '*****************************************************************************\n'
fi
if [ "$status" -ne 0 ]; then
  printf '\nFAILED (more of each above):\n'
  # A failed test's line, where it panicked and the line after that, and a failed drill's line.
  sed -nE 's/^test (.*) \.\.\. FAILED$/  \1/p; / panicked at /{N;s/^/  /;s/\n/\n    /;p}; s/^[A-Z][0-9]+ .*  FAIL  /  &/p' "$output" |
    cut -c1-500
fi
exit "$status"
