# shellcheck shell=bash
# What the scripts of the testbed share. Sourced, never run.
#
# Everything the testbed keeps lives below one folder: the data of a Docker engine of its own (where none runs), the
# base image, logs. Removing that folder, with the engine stopped, removes it all.
set -euo pipefail

TESTBED=${ETNA_TESTBED:-${XDG_CACHE_HOME:-$HOME/.cache}/etna-testbed}
RUN=$TESTBED/run
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
mkdir -p "$RUN"

say() { printf 'testbed: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Root, or sudo that asks no questions: a test cannot answer them.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

SOCKET=$RUN/docker.sock

# The machine's engine where one answers; else ours, if it was started.
find_engine() {
  docker version >/dev/null 2>&1 && return 0
  [ -S "$SOCKET" ] || return 1
  export DOCKER_HOST=unix://$SOCKET
  docker version >/dev/null 2>&1
}

# One at a time, also among several test runs: waits for its turn.
exclusively() {
  exec 9>"$RUN/$1.lock"
  flock 9
}

# The suite of this machine: its mirrors are sure to have that one.
suite() {
  local name
  # shellcheck source=/dev/null
  name=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  [ -n "$name" ] || die "/etc/os-release names no VERSION_CODENAME: the images are made on Debian"
  printf '%s' "$name"
}

# An image's tag says what it was made of, so that a changed recipe makes a new image.
tag_of() {
  { suite; find "$HERE/images/$1" -type f | LC_ALL=C sort | while read -r file; do cat "$file"; done; } | sha256sum | cut -c1-12
}

image() {
  case $1 in
    base) printf 'etna-testbed/base:%s' "$(suite)" ;;
    *) printf 'etna-testbed/%s:%s' "$1" "$(tag_of "$1")" ;;
  esac
}
