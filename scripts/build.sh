#!/bin/bash
# Builds the three programs for use, into target/release, the optimizer told by a profile what a proxy under load does.
#
#   scripts/build.sh --package NAME …     what `make build` names
# A profile fits one release of rustc and those packages built together (their features are those of all of them).
# For another release of rustc there is none, and all is built without; `make profile` measures one.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "error: no package named: make build does" >&2; exit 2; }

release=$(rustc -vV | sed -n 's/^release: //p')
stored=proxy/profile/rustc-$release.profdata.gz
if [ -e "$stored" ]; then
  # Another profile is another name, so that cargo builds anew what was built by an older one.
  profile=$PWD/target/profile/$(sha256sum "$stored" | cut -c 1-16).profdata
  if [ ! -e "$profile" ]; then
    mkdir -p "${profile%/*}"
    gzip -dc "$stored" >"$profile.part"
    mv "$profile.part" "$profile"
  fi
  echo "Building with the profile for rustc $release" >&2
  # Value profiling, which counting was done without, would be missed with a warning for each function.
  export RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$profile -Cllvm-args=-disable-vp"
else
  echo "Building without a profile: there is none for rustc $release (make profile measures one)" >&2
fi
"${CARGO:-cargo}" build --release "$@"
