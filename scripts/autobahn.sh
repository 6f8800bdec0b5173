#!/bin/bash
# Prints where wstest is, the Autobahn test suite's program, which a drill sends through the proxy; from PyPI, into
# target/autobahn, unless it is there or on the path already. It needs Python 2.7, which Debian has no more.
set -euo pipefail
cd "$(dirname "$0")/.."

version=25.10.1
folder=$PWD/target/autobahn
wstest=$folder/venv/bin/wstest

die() { printf 'error: %s\n' "$*" >&2; exit 1; }
quietly() { "$@" >"$folder/log" 2>&1; }

if command -v wstest 2>/dev/null; then exit 0; fi
if [ -x "$wstest" ]; then
  printf '%s\n' "$wstest"
  exit 0
fi
python=
for one in python2.7 pypy /opt/python2.7/bin/python2.7 "$HOME"/.pyenv/versions/2.7*/bin/python2.7; do
  if "$one" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' >/dev/null 2>&1; then
    python=$one
    break
  fi
done
[ -n "$python" ] || die "Python 2.7 is missing: put python2.7, pypy or wstest itself on the path"
mkdir -p "$folder"
# The last virtualenv that makes environments of Python 2.7.
quietly python3 -m venv "$folder/tool" || die "python3 makes no environment: install the package python3-venv"
pip=(install --quiet --disable-pip-version-check --timeout 20 --retries 1)
if ! { quietly "$folder/tool/bin/pip" "${pip[@]}" "virtualenv<20.22" &&
  quietly "$folder/tool/bin/virtualenv" --python "$python" "$folder/venv" &&
  quietly "$folder/venv/bin/pip" "${pip[@]}" "autobahntestsuite==$version"; }; then
  die "autobahntestsuite $version cannot be installed ($folder/log says why): put wstest on the path"
fi
printf '%s\n' "$wstest"
