#!/bin/bash
# Reads every unit here as systemd would, and rates how well our three services are confined.
#   units/check.sh
# Needs systemd-analyze 250 or newer; nothing is installed or started, and neither Docker nor Etna has to be there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# What systemd-analyze may say at most, 0 (confined) to 10 (not at all).
limit=2.0

die() { printf 'error: %s\n' "$*" >&2; exit 1; }
command -v systemd-analyze >/dev/null 2>&1 || die "systemd-analyze is missing: install the package systemd"

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# A system in miniature: the units that ours name, the programs that they start, and ours.
system=$root/etc/systemd/system
mkdir -p "$system" "$root/opt/bin" "$root/usr/bin" "$root/usr/lib"
ln -s usr/bin "$root/bin"
ln -s usr/lib "$root/lib"
for program in opt/bin/etna opt/bin/etna-sidekick usr/bin/docker usr/bin/kill usr/bin/sh; do
  printf '#!/bin/true\n' >"$root/$program"
  chmod 755 "$root/$program"
done
stand_in() { printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n%b' "$1" "${2:-}" >"$system/$1"; }
for target in sysinit basic shutdown sockets multi-user network-online nss-lookup; do stand_in "$target.target"; done
stand_in -.slice
stand_in system.slice
stand_in -.mount "[Mount]\nWhat=/dev/null\nWhere=/\n"
stand_in docker.service "[Service]\nExecStart=/usr/bin/docker\n"
cp "$here"/*.service "$here"/*.socket "$system"

failed=0
for unit in "$here"/*.service "$here"/*.socket; do
  name=$(basename "$unit")
  # An instance of a template is what systemd loads.
  loaded=${name/@./@1.}
  # It exits 0 on unknown settings: anything that it says is a fault.
  if said=$(systemd-analyze verify --man=no --root="$root" "$loaded" 2>&1) && [ -z "$said" ]; then
    printf 'verify    %-24s clean\n' "$name"
  else
    printf 'verify    %-24s NOT CLEAN\n%s\n' "$name" "$said"
    failed=1
  fi
done

for name in etna.service etna-front.service etna-sidekick.service; do
  if said=$(systemd-analyze security --no-pager --offline=true --root="$root" \
    --threshold="$(awk -v limit="$limit" 'BEGIN { print int(limit * 10) }')" "$name" 2>&1); then verdict=; else
    verdict=" MORE THAN $limit"
    failed=1
  fi
  printf 'security  %-24s %s%s\n' "$name" "$(grep -o 'exposure level.*' <<<"$said" || tail -n 1 <<<"$said")" "$verdict"
done
exit "$failed"
