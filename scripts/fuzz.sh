#!/usr/bin/env bash
# Drives each fuzz target by what it reaches, for so many seconds each (default 120): on stable Rust, with libFuzzer.
#
#   scripts/fuzz.sh                  all targets
#   scripts/fuzz.sh 3600             an hour each
#   scripts/fuzz.sh 60 events        those with `events` in their name
#
# Inputs that were worth keeping stay in target/fuzz-corpus, so that the next run goes on from them. One that fails is kept
# beside its target, in __fuzz__, and is tried by `make test` from then on: commit it with what mends it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-120}"
wanted="${2:-}"
corpora="$PWD/${CARGO_TARGET_DIR:-target}/fuzz-corpus"
export PATH="$PWD/.fuzz-tools/bin:$PATH"

# What each crate's targets are found by. Those of the worker would compile llama.cpp once more, and are only run at random.
packages=(llm-engine-wire llm-engine-retry llm-engine-limit llm-engine-server)

for package in "${packages[@]}"; do
    mapfile -t targets < <(cargo bolero list --package "$package" --profile release |
        sed -n 's/.*"test":"\([^"]*\)".*/\1/p' | grep -- "$wanted" || true)
    for target in "${targets[@]}"; do
        printf '\n=== %s %s: %s s\n' "$package" "$target" "$seconds"
        mkdir -p "$corpora/$package/$target"
        # Safe Rust has no use for the address sanitizer, and is several times faster without.
        cargo bolero test "$target" --package "$package" --rustc-bootstrap --profile release --sanitizer NONE \
            --corpus-dir "$corpora/$package/$target" --time "${seconds}s" \
            --engine-args="-max_len=8192 -rss_limit_mb=2048 -timeout=10 -print_final_stats=1"
    done
done
