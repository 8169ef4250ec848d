#!/usr/bin/env bash
# Builds the wheel of the Python package into dist/, in the release profile.
#
#   scripts/wheel.sh             builds it
#   scripts/wheel.sh install     and installs it into .venv-package, where its tests run
set -euo pipefail
cd "$(dirname "$0")/.."

# Of several there, nobody knows which is the new one.
rm -rf dist
.venv-package/bin/maturin build --release --locked --quiet --manifest-path crates/llmengine-python/Cargo.toml \
    --interpreter "$PWD/.venv-package/bin/python" --out dist
if [[ "${1:-build}" == install ]]; then
    # With pip, as everybody does; no index is asked, because it needs nothing.
    .venv-package/bin/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-index dist/*.whl
fi
printf '%s\n' dist/*.whl
