#!/usr/bin/env bash
# The tests that take minutes: those that are ignored in Rust, and those that are marked `soak` in Python. They print what they
# measure. The first run in virtual time, all others by the real clock, and want a machine that has nothing else to do. Who needs the
# built-in model fetches it.
set -euo pipefail
cd "$(dirname "$0")/.."

export LLM_ENGINE_BIN="${LLM_ENGINE_BIN:-${CARGO_TARGET_DIR:-target}/release/llm-engine}"
# The same build as in scripts/test.sh.
executable=(--release -p llm-engine --features worker)

# One of them opens 10,000 connections.
ulimit -n "$(ulimit -H -n)"

# The tables of the admission.
cargo test --release -p llm-engine-overload --test it -- --ignored --nocapture --test-threads=1

cargo build "${executable[@]}"
# What batches are measured against.
cargo build --release -p gateway-bench
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run "${executable[@]}" --run-ignored only --no-capture
else
    cargo test "${executable[@]}" --test it -- --ignored --nocapture
fi
.venv/bin/python -m pytest tests -m soak --capture=no
scripts/wheel.sh install
.venv-package/bin/python -m pytest crates/llmengine-python/tests -m soak --capture=no
