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
target_dir="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
export PATH="$PWD/.fuzz-tools/bin:$PATH"

# Where targets are. Those of the worker would compile llama.cpp once more, and only get random inputs.
files=(
    crates/llm-engine-wire/tests/it/fuzz.rs
    crates/llm-engine-retry/tests/it/fuzz.rs
    crates/llm-engine-limit/tests/it/fuzz.rs
    crates/llm-engine-server/tests/it/fuzz.rs
    crates/llm-engine-server/src/fuzz.rs
)

for file in "${files[@]}"; do
    package="$(cut -d/ -f2 <<<"$file")"
    mapfile -t targets < <(sed -n '/^#\[test\]/{n;s/^fn \(.*\)() {/\1/p}' "$file" | grep -- "$wanted" || true)
    for target in "${targets[@]}"; do
        printf '\n=== %s %s: %s s\n' "$package" "$target" "$seconds"
        corpus="$target_dir/corpus/$package/$target"
        mkdir -p "$corpus"
        # Safe Rust has no use for the address sanitizer, and is several times faster without.
        cargo bolero test "fuzz::$target" --package "$package" --rustc-bootstrap --sanitizer NONE \
            --target-dir "$target_dir" --corpus-dir "$corpus" -T "${seconds}s" \
            --engine-args="-max_len=8192 -rss_limit_mb=2048"
    done
done
