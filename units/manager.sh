# What wordpress-up.sh and wordpress-down.sh have in common: who runs the units, fleet or this machine's systemd.
# shellcheck shell=bash
set -euo pipefail

# Where systemd looks for an administrator's units.
# shellcheck disable=SC2034 # both scripts use it
system=/etc/systemd/system

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Sets manager to fleet or systemd: what was asked for, else fleet where one answers, else systemd.
choose_manager() {
  manager=${1:-}
  if [ -z "$manager" ]; then
    manager=systemd
    if command -v fleetctl >/dev/null 2>&1 && fleetctl list-machines --no-legend >/dev/null 2>&1; then manager=fleet; fi
  fi
  case $manager in
    fleet) command -v fleetctl >/dev/null 2>&1 || die "fleetctl is missing: put it on the path, or say --systemd" ;;
    systemd)
      command -v systemctl >/dev/null 2>&1 || die "systemctl is missing: this needs systemd, or fleetctl and --fleet"
      [ -d /run/systemd/system ] || die "this machine was not booted by systemd: with a fleet elsewhere, say --fleet"
      [ "$(id -u)" -eq 0 ] || die "systemd's units belong to root: run it as root or with sudo"
      ;;
  esac
}

# Prints the numbers of the public containers that there are: on the cluster with fleet, on this machine with systemd.
public_numbers() {
  if [ "$manager" = fleet ]; then
    fleetctl list-unit-files --no-legend --fields=unit
  else
    systemctl list-units --all --plain --no-legend 'wordpress@*.service'
    systemctl list-unit-files --plain --no-legend 'wordpress@*.service'
  fi | sed -n 's/^wordpress@\([0-9][0-9]*\)\.service.*/\1/p' | sort -nu
}

# Prints which of the named units are known.
known() {
  local unit
  for unit in "$@"; do
    if [ "$manager" = fleet ]; then
      fleetctl list-unit-files --no-legend --fields=unit | grep -qxF "$unit" && printf '%s\n' "$unit"
    elif systemctl cat "$unit" >/dev/null 2>&1; then
      printf '%s\n' "$unit"
    fi
  done
  return 0
}

start() {
  if [ "$manager" = fleet ]; then
    fleetctl start --no-block "$@"
  else
    systemctl enable --quiet "$@"
    # Not waited for: Etna is only "started" once etcd has answered, WordPress once its image is there.
    systemctl start --no-block "$@"
  fi
}

# Stops them for good; a WordPress container first finishes what it is doing.
stop() {
  if [ "$manager" = fleet ]; then
    fleetctl destroy "$@"
  else
    systemctl disable --quiet "$@"
    systemctl stop "$@"
    # One that had failed is no longer shown as failed.
    systemctl reset-failed "$@" >/dev/null 2>&1 || true
  fi
}
