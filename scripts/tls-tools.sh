#!/bin/bash
# Prints where sslyze is, which a drill has look at TLS listeners; from PyPI, into target/tls-tools, unless it is there
# or on the path already.
set -euo pipefail
cd "$(dirname "$0")/.."

version=6.3.1
venv=$PWD/target/tls-tools/venv

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

if command -v sslyze 2>/dev/null; then exit 0; fi
if [ -x "$venv/bin/sslyze" ]; then
  printf '%s\n' "$venv/bin/sslyze"
  exit 0
fi
command -v python3 >/dev/null 2>&1 || die "python3 is missing: install the package python3-venv"
python3 -m venv "$venv" >/dev/null 2>&1 || die "python3 makes no environment: install the package python3-venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --timeout 20 --retries 1 "sslyze==$version" >/dev/null 2>&1 ||
  die "sslyze $version cannot be installed: without a package index, put sslyze on the path"
printf '%s\n' "$venv/bin/sslyze"
