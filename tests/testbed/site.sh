#!/bin/bash
# A WordPress site of real containers: a database, public containers (admin disabled) and one admin container, installed.
#   site.sh up SITE URL PUBLIC    e.g. site.sh up blog http://wordpress.local:8888 3
#   site.sh more SITE URL N       one more public container, the N-th
#   site.sh down SITE
# URL is the one name under which the site knows itself. up prints "ROLE NAME HOST:PORT" for each container.
# Containers of sites whose process (label etna.testbed) is gone are removed by the next `up`.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"

DB_NAME=wordpress DB_USER=wordpress DB_PASSWORD=only-for-tests
ADMIN_USER=admin ADMIN_PASSWORD=only-for-tests-9x
OWNER=${ETNA_TESTBED_OWNER:-$PPID}

names_of() { docker ps --all --quiet --filter "label=etna.testbed.site=$1"; }

remove() { xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1 || true; }

# Sites of runs that were killed.
remove_orphans() {
  docker ps --all --filter label=etna.testbed --format '{{.ID}} {{.Label "etna.testbed"}}' | while read -r id owner; do
    [ -d "/proc/$owner" ] || printf '%s\n' "$id"
  done | remove
}

start() { # SITE NAME docker-run-arguments…
  local site=$1 name=$2
  shift 2
  docker run --detach --name "$name" --hostname "$name" \
    --label "etna.testbed=$OWNER" --label "etna.testbed.site=$site" "$@" 2>&1 >/dev/null |
    { grep -v '^WARNING: ' >&2 || true; }
}

address_of() { docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }
port_of() { docker port "$1" 80/tcp | head -n 1; }

wait_for() { # what seconds command…
  local what=$1 tries=$(($2 * 10))
  shift 2
  for _ in $(seq "$tries"); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  die "$what did not come up: docker logs says more"
}

wordpress() { # SITE URL NAME extra…
  local site=$1 url=$2 name=$3
  shift 3
  # No resolver answers at 127.0.0.1: looking up its own name fails at once, instead of after 20 seconds.
  start "$site" "$name" --dns 127.0.0.1 --publish 127.0.0.1::80 \
    --env "WORDPRESS_DB_HOST=$(address_of "$site-db"):3306" --env "WORDPRESS_DB_NAME=$DB_NAME" \
    --env "WORDPRESS_DB_USER=$DB_USER" --env "WORDPRESS_DB_PASSWORD=$DB_PASSWORD" \
    --env "WORDPRESS_CACHE_HOME=$url" "$@" "$(image wordpress)"
}

# The names of the original: `wordpress-*` and `wordpressadmin*`.
public_name() { printf 'wordpress-%s-%s' "$1" "$2"; }
admin_name() { printf 'wordpressadmin-%s' "$1"; }

alive() { curl -sf -m 2 -o /dev/null "http://$(port_of "$1")/healthz"; }

page=$(mktemp "$RUN/page.XXXXXX")
trap 'rm -f "$page"' EXIT
host_of() { local rest=${1#*://}; printf '%s' "${rest%%/*}"; }
# As a visitor who came by the site's own scheme.
ask() { local url=$1; shift; curl -sf -o "$page" -H "Host: $(host_of "$url")" -H "X-Forwarded-Proto: ${url%%:*}" "$@"; }
get() { ask "$1" -m 20 "$2"; }

install_site() { # URL HOST:PORT
  local url=$1 at=$2
  get "$url" "http://$at/wp-admin/install.php" || die "the admin container does not show the installer"
  grep -q 'name="weblog_title"' "$page" || return 0
  ask "$url" -m 60 "http://$at/wp-admin/install.php?step=2" \
    --data-urlencode 'weblog_title=Etna testbed' --data-urlencode "user_name=$ADMIN_USER" \
    --data-urlencode "admin_password=$ADMIN_PASSWORD" --data-urlencode "admin_password2=$ADMIN_PASSWORD" \
    --data-urlencode 'pw_weak=on' --data-urlencode 'admin_email=admin@example.org' \
    --data-urlencode 'blog_public=0' --data-urlencode 'language='
  grep -q 'Success!' "$page" || { cat "$page" >&2; die "WordPress was not installed"; }
}

serves_site() { get "$1" "http://$(port_of "$2")/" && grep -q '<title>Etna testbed</title>' "$page"; }

up() {
  local site=$1 url=$2 public=$3 name
  remove_orphans
  "$HERE/images.sh" >/dev/null
  local db=$site-db
  start "$site" "$db" --tmpfs /var/lib/mysql:rw,size=512m --env "MYSQL_DATABASE=$DB_NAME" --env "MYSQL_USER=$DB_USER" \
    --env "MYSQL_PASSWORD=$DB_PASSWORD" "$(image db)"
  wait_for "the database $db" 60 \
    docker exec "$db" mariadb -h127.0.0.1 "-u$DB_USER" "-p$DB_PASSWORD" "$DB_NAME" -e 'SELECT 1'
  wordpress "$site" "$url" "$(admin_name "$site")" --env WORDPRESS_ADMIN_ENABLED=true
  wait_for "$(admin_name "$site")" 30 alive "$(admin_name "$site")"
  # The tables stand before a public container can be asked for a page.
  install_site "$url" "$(port_of "$(admin_name "$site")")"
  for n in $(seq "$public"); do wordpress "$site" "$url" "$(public_name "$site" "$n")"; done
  printf 'admin %s %s\n' "$(admin_name "$site")" "$(port_of "$(admin_name "$site")")"
  for n in $(seq "$public"); do
    name=$(public_name "$site" "$n")
    wait_for "$name" 30 serves_site "$url" "$name"
    printf 'public %s %s\n' "$name" "$(port_of "$name")"
  done
}

more() {
  local name
  name=$(public_name "$1" "$3")
  wordpress "$1" "$2" "$name"
  wait_for "$name" 30 serves_site "$2" "$name"
  printf 'public %s %s\n' "$name" "$(port_of "$name")"
}

find_engine || die "no Docker engine: tests/testbed/engine.sh up"
case ${1:-} in
  up) [ $# -eq 4 ] || die "say: site.sh up SITE URL PUBLIC"; up "$2" "$3" "$4" ;;
  more) [ $# -eq 4 ] || die "say: site.sh more SITE URL N"; more "$2" "$3" "$4" ;;
  down) [ $# -eq 2 ] || die "say: site.sh down SITE"; names_of "$2" | remove ;;
  *) die "say: site.sh up SITE URL PUBLIC | more SITE URL N | down SITE" ;;
esac
