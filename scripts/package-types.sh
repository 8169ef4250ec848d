#!/usr/bin/env bash
# Whether the Python package's types are right: the stubs of its native part say what is in it, the rest type-checks, and
# programs that use it learn the types that they should.
set -euo pipefail
cd "$(dirname "$0")/../crates/llmengine-python"
python="$PWD/../../.venv-package/bin/python"
"$python" -m mypy --no-incremental python/llmengine
# In another folder, so that what is installed is looked at.
cd tests
"$python" -m mypy.stubtest llmengine._native
"$python" -m mypy --no-incremental --strict types_of_calls.py
