#!/bin/bash
# Makes the images of the testbed from this machine's Debian mirrors; what is there already stays.
#   images.sh [base] [db] [wordpress]     default: the last two. Prints "NAME IMAGE" for each.
# Two minutes the first time, none later.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"

have() { docker image inspect "$1" >/dev/null 2>&1; }

# A root file system with apt and nothing else, as an archive in the cache and as an image.
make_base() {
  local archive image
  image=$(image base) archive=$TESTBED/base-$(suite).tar
  have "$image" && return 0
  [ -s "$archive" ] || make_archive "$archive"
  docker import --change 'ENV DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8' --change 'CMD ["/bin/bash"]' \
    "$archive" "$image" >/dev/null
}

make_archive() {
  local archive=$1 suite root sources main
  suite=$(suite)
  command -v debootstrap >/dev/null || die "debootstrap is missing: make install-deps"
  as_root true 2>/dev/null || die "making the base image needs root (or sudo that asks for no password)"
  # Every mirror apt uses for this suite, its updates and security fixes.
  # shellcheck disable=SC2016  # apt's own variables
  sources=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' | sort -u |
    awk -v suite="$suite" '$2 == suite || index($2, suite "-") == 1')
  main=$(awk -v suite="$suite" '$2 == suite { print $1; exit }' <<<"$sources")
  [ -n "$main" ] || die "apt has no mirror for $suite: run apt-get update"
  say "making the base image from $main ($suite)"
  root=$(as_root mktemp -d "$TESTBED/root.XXXXXX")
  # shellcheck disable=SC2064
  trap "as_root rm -rf '$root'" EXIT
  as_root debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$main" >"$RUN/debootstrap.log" 2>&1 ||
    { tail -n 20 "$RUN/debootstrap.log" >&2; die "debootstrap failed: its log is $RUN/debootstrap.log"; }
  awk '{ print "deb", $1, $2, "main" }' <<<"$sources" | as_root tee "$root/etc/apt/sources.list" >/dev/null
  # Nothing starts in an image that is being made; nothing is kept that only people read.
  printf '#!/bin/sh\nexit 101\n' | as_root tee "$root/usr/sbin/policy-rc.d" >/dev/null
  as_root chmod 755 "$root/usr/sbin/policy-rc.d"
  as_root tee "$root/etc/dpkg/dpkg.cfg.d/testbed" >/dev/null <<'DPKG'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
DPKG
  as_root rm -rf "$root"/usr/share/{doc,info,locale,man} "$root"/var/lib/apt/lists "$root"/var/cache/apt
  as_root mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
  as_root tar -C "$root" --numeric-owner -c . >"$archive.new"
  mv "$archive.new" "$archive"
  as_root rm -rf "$root"
  trap - EXIT
}

make_image() {
  local name=$1 image started=$SECONDS
  image=$(image "$name")
  make_base
  if ! have "$image"; then
    say "making the image $name from Debian packages"
    # apt inside needs the machine's network. The classic builder is part of every engine.
    DOCKER_BUILDKIT=0 docker build --quiet --network host --tag "$image" --build-arg "BASE=$(image base)" \
      "$HERE/images/$name" >"$RUN/image-$name.log" 2>&1 ||
      { tail -n 20 "$RUN/image-$name.log" >&2; die "the image was not made: the log is $RUN/image-$name.log"; }
    say "the image $name took $((SECONDS - started)) s"
  fi
  printf '%s %s\n' "$name" "$image"
}

find_engine || die "no Docker engine: tests/testbed/engine.sh up"
exclusively images
[ $# -gt 0 ] || set -- db wordpress
for name; do make_image "$name"; done
