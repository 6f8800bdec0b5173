#!/bin/bash
# cargo-deny on what the workspace depends on: licences, duplicates, sources, and known vulnerabilities where their list
# can be fetched. cargo-deny itself is installed below target/ if it is missing (some minutes, once).
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools
PATH=$tools/bin:$PATH
if ! command -v cargo-deny >/dev/null 2>&1; then
  echo "installing cargo-deny into target/tools" >&2
  cargo install --locked --quiet --root "$tools" cargo-deny
fi

cargo deny --workspace check --hide-inclusion-graph bans licenses sources
if cargo deny fetch db >/dev/null 2>&1; then
  cargo deny --workspace check --hide-inclusion-graph --disable-fetch advisories
else
  echo "NOT CHECKED: known vulnerabilities, because their list cannot be fetched from here" >&2
fi
