#!/bin/bash
# A Docker engine for the tests.
#   engine.sh up      the machine's own if it answers, else one started here; prints
#                     "running HOST" or "started HOST", HOST being for DOCKER_HOST ("default": leave it unset)
#   engine.sh restart stops the one that was started here and starts it again, while its containers go on
#   engine.sh down    stops the one that was started here, and takes away what it leaves behind
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"

DATA=$TESTBED/docker STATE=$RUN/engine
PID_FILE=$STATE/dockerd.pid CONFIG=$STATE/daemon.json
# RFC 2544's range for tests: no real network has it.
BRIDGE=198.18.0.1/24

is_ours_alive() {
  [ -f "$PID_FILE" ] && [ "$(cat "/proc/$(cat "$PID_FILE")/comm" 2>/dev/null)" = dockerd ]
}

up() {
  for program in docker dockerd; do
    command -v $program >/dev/null || die "$program is missing: make install-deps"
  done
  exclusively engine
  if find_engine; then
    printf 'running %s\n' "${DOCKER_HOST:-default}"
    return
  fi
  as_root true 2>/dev/null || die "no Docker engine answers, and starting one needs root (or sudo that asks for no password)"
  is_ours_alive || clean
  mkdir -p "$STATE"
  printf '{}' >"$CONFIG"
  start
  printf 'started %s\n' "$DOCKER_HOST"
}

start() {
  # It leaves the machine's network alone: no packet filter rules, no forwarding, no NAT. Published ports are carried
  # by docker-proxy, containers reach each other over the bridge.
  as_root setsid dockerd --host "unix://$SOCKET" --group "$(id -gn)" --config-file "$CONFIG" \
    --data-root "$DATA" --exec-root "$STATE/exec" --pidfile "$PID_FILE" \
    --bip "$BRIDGE" --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
    >>"$STATE/dockerd.log" 2>&1 </dev/null 9>&- &
  export DOCKER_HOST=unix://$SOCKET
  for _ in $(seq 150); do
    if docker version >/dev/null 2>&1; then
      return
    fi
    kill -0 $! 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$STATE/dockerd.log" >&2
  die "the Docker engine did not start: its log is $STATE/dockerd.log"
}

stop() {
  local pid
  pid=$(cat "$PID_FILE")
  as_root kill "$pid"
  for _ in $(seq 200); do
    [ -d "/proc/$pid" ] || return 0
    sleep 0.1
  done
  die "the Docker engine (process $pid) does not stop"
}

restart() {
  exclusively engine
  is_ours_alive || die "the engine was not started here: engine.sh up"
  export DOCKER_HOST=unix://$SOCKET
  let_containers_live true
  stop
  start
  let_containers_live false
}

# Whether containers outlive the engine.
let_containers_live() {
  printf '{"live-restore": %s}' "$1" >"$CONFIG"
  as_root kill -HUP "$(cat "$PID_FILE")"
  for _ in $(seq 100); do
    [ "$(docker info --format '{{.LiveRestoreEnabled}}')" != "$1" ] || return 0
    sleep 0.1
  done
  die "the Docker engine does not take its configuration: its log is $STATE/dockerd.log"
}

down() {
  exclusively engine
  if is_ours_alive; then
    stop
  fi
  clean
}

# What an engine leaves when it ends, and more so when it is killed: its bridge, mounts and empty control groups.
clean() {
  [ -d "$STATE" ] || return 0
  if [ "$(ip -4 -o addr show docker0 2>/dev/null | awk '{ print $4 }')" = "$BRIDGE" ]; then
    as_root ip link del docker0
  fi
  awk -v below="$TESTBED/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | LC_ALL=C sort -r |
    while read -r mounted; do as_root umount -l "$mounted" || true; done
  as_root rmdir /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker 2>/dev/null || true
  as_root rm -rf "$PID_FILE" "$SOCKET" "$STATE/exec"
}

case ${1:-} in
  up) up ;;
  restart) restart ;;
  down) down ;;
  *) die "say: engine.sh up | restart | down" ;;
esac
