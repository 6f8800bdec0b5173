#!/bin/bash
# Starts Etna, its sidekick, the admin container and public WordPress containers, or changes how many of these run.
here=$(cd "$(dirname "$0")" && pwd)
. "$here/manager.sh"

usage() {
  cat <<'TEXT'
wordpress-up.sh [--fleet | --systemd] [--public N] [--no-admin]

  --public N   how many public containers there shall be: more are started, those with a higher number are stopped
               [default: 3 on the cluster with fleet, 1 on this machine with systemd]
  --no-admin   without the admin container: with systemd, say it on all machines but one
  --fleet      program the cluster through fleetctl          [default where a fleet answers]
  --systemd    install the units and start them on this machine  [default elsewhere]

Needed before: the programs in /opt/bin and /etc/etna/wordpress.env, on every machine; see README.md.

Examples:
  wordpress-up.sh                          on a fleet: the whole site
  wordpress-up.sh --public 6               on a fleet: six public containers from now on
  sudo ./wordpress-up.sh --public 2        this machine: two public containers and the admin container
  sudo ./wordpress-up.sh --public 2 --no-admin
TEXT
}

asked='' public='' admin=yes
while [ $# -gt 0 ]; do
  case $1 in
    --fleet) asked=fleet ;;
    --systemd) asked=systemd ;;
    --no-admin) admin=no ;;
    --public) [ $# -ge 2 ] || die "--public needs a number"; public=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 64 ;;
  esac
  shift
done
choose_manager "$asked"
[ -n "$public" ] || { [ "$manager" = fleet ] && public=3 || public=1; }
[[ $public =~ ^[0-9]{1,3}$ ]] || die "--public $public: say a number from 0 to 999"

# Makes the unit files known, as they stand here.
install_units() {
  local unit name copies
  if [ "$manager" = fleet ]; then
    copies=$(mktemp -d)
    for unit in "$here"/*.service; do
      # fleet would enable a unit that has an [Install] section, which is the last one.
      sed '/^\[Install\]/,$d' "$unit" >"$copies/${unit##*/}"
    done
    fleetctl submit "$copies"/*.service
    rm -rf "$copies"
    return
  fi
  for unit in "$here"/*.service; do
    name=${unit##*/}
    cmp -s "$unit" "$system/$name" && continue
    if [ -e "$system/$name" ]; then say "changed: $name; it takes effect with: systemctl restart $name"; fi
    install -m 644 "$unit" "$system/$name"
  done
  systemctl daemon-reload
}

if [ "$manager" = systemd ]; then
  for program in /opt/bin/etna /opt/bin/etna-sidekick; do
    [ -x "$program" ] || die "$program is missing: make build, and copy it from target/release"
  done
  [ "$public" -eq 0 ] && [ "$admin" = no ] || [ -e /etc/etna/wordpress.env ] ||
    die "/etc/etna/wordpress.env is missing: copy $here/wordpress.env and fill it in"
fi

install_units
wanted=(etna.service etna-sidekick.service)
[ "$admin" = no ] || wanted+=(wordpress-admin.service)
for number in $(seq "$public"); do wanted+=("wordpress@$number.service"); done
surplus=()
for number in $(public_numbers); do
  [ "$number" -le "$public" ] || surplus+=("wordpress@$number.service")
done

say "starting with $manager: ${wanted[*]}"
start "${wanted[@]}"
if [ ${#surplus[@]} -gt 0 ]; then
  say "stopping, once they have finished what they are doing: ${surplus[*]}"
  stop "${surplus[@]}"
fi
say
if [ "$manager" = fleet ]; then
  say "The first start downloads WordPress. Watch it with:"
  say "  fleetctl list-units"
  say "  fleetctl journal -f wordpress@1.service"
else
  say "The first start downloads WordPress. Watch it with:"
  say "  systemctl list-units 'etna*' 'wordpress*'"
  say "  journalctl -f -u etna -u etna-sidekick -u 'wordpress*'"
fi
