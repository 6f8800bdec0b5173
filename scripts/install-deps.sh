#!/bin/bash
# Installs what the named groups of apt-packages.txt need and this machine lacks.
#   scripts/install-deps.sh [build] [test] [bench] [check] [guard] [profile]     default: build test
# Needs apt and root or sudo only if something is missing. Services that come with
# a package (etcd, docker, nginx, …) are not started by the installation.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
groups=("${@:-build}")
[ $# -gt 0 ] || groups=(build test)

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Daemons live in sbin, which is not on everybody's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# Prints the lines of one group: package, sign, purpose.
lines_of() {
  awk -v want="[$1]" '/^\[/ { on = ($1 == want); seen = seen || on; next }
    on && NF && $1 !~ /^#/ { print } END { exit !seen }' "$here/apt-packages.txt" ||
    die "no group '$1' in scripts/apt-packages.txt"
}

is_there() {
  case $1 in
    /*) [ -e "$1" ] ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

command -v cargo >/dev/null 2>&1 ||
  die "Rust is missing: install it from https://rustup.rs (or your packages), at least the version that rust-version in Cargo.toml names"

missing=() report=()
for group in "${groups[@]}"; do
  lines=$(lines_of "$group")
  while read -r package sign purpose; do
    is_there "$sign" && continue
    missing+=("$package")
    report+=("$(printf '  %-22s %-48s %s' "$package" "$sign" "$purpose")")
  done <<<"$lines"
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  say "These are missing, and there is no apt here to install them with:"
  say ""
  printf '%s\n' "${report[@]}" >&2
  say ""
  die "install them from your system's packages (first column: Debian's name; second: what has to be there afterwards)"
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null 2>&1 || die "to install ${missing[*]} this must run as root, or sudo must be there"
  as_root=(sudo)
fi

say "Installing with apt (${groups[*]}):"
printf '%s\n' "${report[@]}" >&2

# Debian asks this file before it starts a service that it has just installed; 101 is "no".
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap '"${as_root[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
fi

apt_get() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >/dev/null; }
apt_get update || die "apt-get update failed: see above"

chosen=()
for package in "${missing[@]}"; do
  name=
  for alternative in ${package//|/ }; do
    if apt-cache show --no-all-versions "$alternative" >/dev/null 2>&1; then name=$alternative; break; fi
  done
  [ -n "$name" ] || die "apt knows no package $package: add the mirror that has it, or install it by hand"
  chosen+=("$name")
done
apt_get install -y --no-install-recommends "${chosen[@]}" || die "apt could not install ${chosen[*]}: see above"

for group in "${groups[@]}"; do
  lines=$(lines_of "$group")
  while read -r package sign purpose; do
    is_there "$sign" || die "$package is installed, but $sign ($purpose) is still not there"
  done <<<"$lines"
done
say "Installed: ${chosen[*]}. No service was started."
