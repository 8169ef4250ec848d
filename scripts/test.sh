#!/usr/bin/env bash
# Everything that has to hold before a change is done, cheapest first; stops at the first failure.
# All of it in the release profile: llama.cpp is compiled once, and what is tested is what runs.
#
#   scripts/test.sh          all
#   scripts/test.sh lint     only the checks that run no test
set -euo pipefail
cd "$(dirname "$0")/.."

binary="${CARGO_TARGET_DIR:-target}/release/llm-engine"
everything=(--release --workspace --features llm-engine/worker)

step() {
    printf '\n=== %s\n' "$1"
    shift
    "$@"
}

lint() {
    step "format" cargo fmt --all --check
    step "clippy" cargo clippy "${everything[@]}" --all-targets -- -D warnings
}

# The tests are given the model; it is fetched if it isn't there yet.
build_and_fetch_model() {
    step "binary with the model runner" cargo build --release -p llm-engine --features worker
    if [[ -z "${LLM_ENGINE_TEST_GGUF:-}" ]]; then
        LLM_ENGINE_TEST_GGUF="$("$binary" fetch-model)"
    fi
    export LLM_ENGINE_TEST_GGUF
    export LLM_ENGINE_BIN="${LLM_ENGINE_BIN:-$binary}"
}

rust_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        step "Rust tests" cargo nextest run "${everything[@]}"
    else
        step "Rust tests" cargo test "${everything[@]}" --lib --bins --tests
    fi
}

lint
if [[ "${1:-all}" == lint ]]; then
    exit
fi
build_and_fetch_model
RUSTDOCFLAGS="-D warnings" step "documentation" cargo doc "${everything[@]}" --no-deps
step "gateway without the model runner" cargo check --release -p llm-engine
step "documentation tests" cargo test "${everything[@]}" --doc
rust_tests
step "Python tests" .venv/bin/python -m pytest tests
step "Node tests" node --test --test-reporter=spec tests/node/
step "Python package: wheel" scripts/wheel.sh install
step "Python package: types" scripts/package-types.sh
step "Python package: tests" .venv-package/bin/python -m pytest crates/llmengine-python/tests
# What holds for the published client holds for this one.
step "Python package: as the published client" .venv-package/bin/python -m pytest \
    tests/test_published_client.py tests/test_published_batches.py tests/test_examples.py
# Beside the published client there is only an older one.
step "OpenAI's newest client" .venv-package/bin/python -m pytest tests/test_openai_client.py tests/test_openai_deployed.py \
    tests/test_openai_batches.py
