#!/bin/bash
# Measures what the optimizer is told by scripts/build.sh: builds the programs with counters, has the bench's loads run
# through the proxy, and writes proxy/profile/rustc-RELEASE.profdata.gz. Takes about twenty minutes on two cores.
#
# Counters are written while the program runs (%c), into a file for each process, so that a proxy may be killed at any
# moment; what kinds of values were seen is not counted, as that cannot be written so.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || { echo "error: no package named: make profile does" >&2; exit 2; }

cargo=${CARGO:-cargo}
release=$(rustc -vV | sed -n 's/^release: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
merge=
for tool in "$(rustc --print target-libdir)/../bin/llvm-profdata" "/usr/lib/llvm-$llvm/bin/llvm-profdata"; do
  if [ -x "$tool" ]; then merge=$tool; break; fi
done
[ -n "$merge" ] || {
  echo "error: rustc $release counts as LLVM $llvm does, and there is no llvm-profdata of that: rustup component add llvm-tools, or apt install llvm-$llvm" >&2
  exit 1
}

target=$PWD/target/profile
raw=$target/raw
rm -rf "$raw"
mkdir -p "$raw"

# The same packages together as there: other features would be other functions.
echo "Building with counters" >&2
RUSTFLAGS="-Cprofile-generate=$raw -Cllvm-args=-disable-vp -Cllvm-args=-runtime-counter-relocation" \
  LLVM_PROFILE_FILE=/dev/null "$cargo" build --release --target-dir "$target" "$@"

# Requests of all kinds, and changes, so that neither is thought rare. Figures of this run say nothing.
"$cargo" build --release --package etna-benches --bin side-by-side
LLVM_PROFILE_FILE=$raw/%p%c.profraw target/release/side-by-side --etna "$target/release/etna" --peers etna --results none \
  --rounds 1 --seconds 2 --scenarios s1,s2,s3,s5,s6-ecdsa-13,s7,s9,s10,s12,s15

mkdir -p proxy/profile
stored=proxy/profile/rustc-$release.profdata.gz
"$merge" merge --sparse --output "$target/merged.profdata" "$raw"/*.profraw
gzip -9nc "$target/merged.profdata" >"$stored"
echo "Written: $stored; make build uses it" >&2
