#!/bin/bash
# Stops the WordPress containers that wordpress-up.sh started, and with --all Etna and its sidekick too.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/manager.sh"

usage() {
  cat <<'TEXT'
wordpress-down.sh [--fleet | --systemd] [--all]

  --all        Etna and its sidekick too, and the unit files
  --fleet      on the whole cluster, through fleetctl   [default where a fleet answers]
  --systemd    on this machine                          [default elsewhere]

Keys in etcd: servers go by themselves; backends and the site stay, so that the next start finds what you changed there.
TEXT
}

asked='' all=no
while [ $# -gt 0 ]; do
  case $1 in
    --fleet) asked=fleet ;;
    --systemd) asked=systemd ;;
    --all) all=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
choose_manager "$asked"

# Public ones, the admin container, then what routes to them: each is still served while it drains.
names=()
for number in $(public_numbers); do names+=("wordpress@$number.service"); done
names+=(wordpress-admin.service)
if [ "$all" = yes ]; then names+=(etna-front.service etna-sidekick.service etna.service); fi
mapfile -t names < <(known "${names[@]}")

for name in "${names[@]}"; do
  say "stopping: $name"
  stop "$name"
done
[ ${#names[@]} -gt 0 ] || say "nothing runs"

if [ "$all" = yes ]; then
  if [ "$manager" = fleet ]; then
    mapfile -t names < <(known wordpress@.service)
    [ ${#names[@]} -eq 0 ] || fleetctl destroy "${names[@]}"
  else
    for unit in "$here"/*.service; do rm -f "$system/${unit##*/}"; done
    systemctl daemon-reload
  fi
fi
