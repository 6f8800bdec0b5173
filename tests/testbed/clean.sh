#!/bin/bash
# Takes away everything of the testbed: containers, images, the engine that was started here, its data.
HERE=$(cd "$(dirname "$0")" && pwd)
. "$HERE/common.sh"

if find_engine; then
  docker ps --all --quiet --filter label=etna.testbed | xargs --no-run-if-empty docker rm --force --volumes >/dev/null
  docker images --format '{{.Repository}}:{{.Tag}}' 'etna-testbed/*' | xargs --no-run-if-empty docker rmi --force >/dev/null
fi
"$HERE/engine.sh" down
as_root rm -rf "$TESTBED"
