#!/usr/bin/env bash
# Runs a command with the build tools that scripts/setup.sh had to take from the Python index, if there are any.
set -euo pipefail
build_env="$(dirname "$0")/../.venv/build-env"
if [[ -e "$build_env" ]]; then
    # shellcheck source=/dev/null
    . "$build_env"
fi
exec "$@"
