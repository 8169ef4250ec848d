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

# What cargo-bolero does, for one test binary at a time: those without targets can't be linked with the fuzzer.
export RUSTC_BOOTSTRAP=1 BOLERO_FUZZER=libfuzzer
export RUSTFLAGS="--cfg fuzzing --cfg fuzzing_libfuzzer -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
    -Cllvm-args=-sanitizer-coverage-stack-depth"
RUSTFLAGS="${RUSTFLAGS//$'\n'/ }"
host="$(rustc -vV | sed -n 's/^host: //p')"

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
    binary=(--test it)
    if [[ "$file" == */src/* ]]; then
        binary=(--lib)
    fi
    mapfile -t targets < <(sed -n '/^#\[test\]/{n;s/^fn \(.*\)() {/\1/p}' "$file" | grep -- "$wanted" || true)
    for target in "${targets[@]}"; do
        printf '\n=== %s %s: %s s\n' "$package" "$target" "$seconds"
        corpus="$target_dir/corpus/$package/$target"
        failures="$PWD/$(dirname "$file")/__fuzz__/fuzz__$target/crashes"
        mkdir -p "$corpus" "$failures"
        BOLERO_LIBFUZZER_ARGS="$corpus -artifact_prefix=$failures/ -max_total_time=$seconds -max_len=8192 -timeout=10" \
            cargo test --target "$host" --target-dir "$target_dir" --profile fuzz --package "$package" "${binary[@]}" \
            "fuzz::$target" -- --nocapture --exact
        rmdir --ignore-fail-on-non-empty --parents "$failures" 2>/dev/null || true
    done
done
