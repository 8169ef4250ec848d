#!/usr/bin/env bash
# Sees to it that what building and testing need is on this machine. Quick, and silent, when nothing is missing.
#
#   scripts/setup.sh build   what `make run` needs: cargo, a C++ compiler, cmake, libclang, Python with pip
#   scripts/setup.sh lint    that, rustfmt and clippy
#   scripts/setup.sh wheel   what `make run` needs, and .venv-package with what builds and tests the Python package
#   scripts/setup.sh bench   what `make run` needs, nginx, wrk, and .venv-bench with the router that we are measured beside
#   scripts/setup.sh test    all of that, .venv with the packages of tests/requirements.txt, and those of tests/node
#
# What is missing is installed with apt-get, as root or through a sudo that asks for no password. Where that
# cannot be, cmake and libclang are taken from the Python index into .venv/tools; scripts/with-tools.sh finds
# them there. Where neither can be, the one line to type is printed and the exit code is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

# Releases that build this repository; used only where apt-get cannot be.
readonly PIP_CMAKE="cmake==3.31.6"
readonly PIP_LIBCLANG="libclang==18.1.1"
readonly TOOLS="$PWD/.venv/tools"
readonly BUILD_ENV=".venv/build-env"

say() { printf 'setup: %s\n' "$*" >&2; }

stop() {
    say "$1"
    shift
    (($# == 0)) || printf '    %s\n' "$@" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

exists() { [[ -e "$1" ]]; }

# --- What is there -------------------------------------------------------------------------------------------

have_compiler() { have cc && { have c++ || [[ -n "${CXX:-}" ]]; }; }

have_cmake() { have "${CMAKE:-cmake}"; }

# Looks where the bindings' generator looks: only in LIBCLANG_PATH if that is set, else in the usual folders.
have_libclang() {
    local folder file
    local folders=(/usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/local/llvm*/lib* /usr/local/lib* /usr/local/lib*/*
        /usr/lib* /usr/lib*/* /usr/lib*/*/*)
    if [[ -n "${LIBCLANG_PATH:-}" ]]; then
        folders=("$LIBCLANG_PATH" "${LIBCLANG_PATH%/*}")
    fi
    for folder in "${folders[@]}"; do
        for file in "$folder"/libclang.so* "$folder"/libclang-*.so*; do
            if exists "$file" && [[ "$file" != *-cpp.* ]]; then
                return 0
            fi
        done
    done
    return 1
}

# libclang needs the headers that come with clang; with the Python index's libclang, the C compiler's are named.
have_clang_headers() { have clang || [[ -n "${BINDGEN_EXTRA_CLANG_ARGS:-}" ]]; }

# One start of Python for all of its questions.
missing_python_modules() {
    python3 -c 'import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))' "$@"
}

# Debian packages for what is missing, one a line.
missing_packages() {
    have_compiler || echo g++
    have_cmake || echo cmake
    have_libclang || echo libclang-dev
    have_clang_headers || echo clang
    if [[ "$level" == bench ]]; then
        have nginx || echo nginx-light
        have wrk || echo wrk
    fi
    if ! have python3; then
        printf '%s\n' python3 python3-pip python3-venv
        return
    fi
    local module
    for module in $(missing_python_modules "${python_modules[@]}"); do
        case "$module" in
            pip) echo python3-pip ;;
            *) echo python3-venv ;;
        esac
    done
}

# --- Getting what is missing ---------------------------------------------------------------------------------

# Sets `as_root`; false where apt-get cannot be used without asking.
may_apt() {
    have apt-get || return 1
    if [[ "$(id -u)" == 0 ]]; then
        as_root=()
    elif have sudo && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        return 1
    fi
}

apt_install() {
    local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive
        apt-get install --yes --quiet --no-install-recommends -o DPkg::Lock::Timeout=120 "$@")
    say "installing with apt-get: $*"
    # The lists of a fresh machine are empty or old.
    "${install[@]}" >&2 || { "${as_root[@]}" apt-get update --quiet >&2 && "${install[@]}" >&2; }
}

# cmake and libclang from the Python index, and the file that says where they are.
pip_install_tools() {
    local wanted=() lines=("# Written by scripts/setup.sh")
    have_cmake || wanted+=("$PIP_CMAKE")
    have_libclang || wanted+=("$PIP_LIBCLANG")
    if ((${#wanted[@]} > 0)); then
        have python3 && [[ -z "$(missing_python_modules pip)" ]] || return 1
        say "installing from the Python index into .venv/tools: ${wanted[*]}"
        python3 -m pip install --quiet --disable-pip-version-check --upgrade --only-binary :all: \
            --target "$TOOLS" "${wanted[@]}" >&2 || return 1
    fi
    if [[ -x "$TOOLS/cmake/data/bin/cmake" ]]; then
        lines+=("export PATH=\"$TOOLS/cmake/data/bin:\$PATH\"")
    fi
    if exists "$TOOLS/clang/native/libclang.so"; then
        lines+=("export LIBCLANG_PATH=\"$TOOLS/clang/native\"")
    fi
    # A libclang without clang has no headers of its own: those of the C compiler do.
    if ! have_clang_headers && have cc; then
        lines+=("export BINDGEN_EXTRA_CLANG_ARGS=\"-isystem $(cc -print-file-name=include)\"")
    fi
    mkdir -p .venv
    printf '%s\n' "${lines[@]}" >"$BUILD_ENV"
    read_build_env
}

read_build_env() {
    if exists "$BUILD_ENV"; then
        # shellcheck source=/dev/null
        . "./$BUILD_ENV"
    fi
}

get_packages() {
    local missing line
    mapfile -t missing < <(missing_packages | sort -u)
    ((${#missing[@]} > 0)) || return 0

    if [[ -n "${LIBCLANG_PATH:-}" ]] && ! have_libclang; then
        stop "there is no libclang in LIBCLANG_PATH ($LIBCLANG_PATH); correct or unset it"
    fi
    if may_apt && apt_install "${missing[@]}"; then
        mapfile -t missing < <(missing_packages | sort -u)
    elif pip_install_tools; then
        mapfile -t missing < <(missing_packages | sort -u)
    fi
    ((${#missing[@]} > 0)) || return 0

    line="sudo apt-get update && sudo apt-get install -y ${missing[*]}"
    if have apt-get; then
        stop "still missing: ${missing[*]}; type this, then make again:" "$line"
    fi
    stop "install these by your system's means, then make again (the names are Debian's): ${missing[*]}"
}

get_rust_components() {
    local tools missing=()
    tools="$(rustc --print sysroot)/bin"
    exists "$tools/rustfmt" || missing+=(rustfmt)
    exists "$tools/cargo-clippy" || missing+=(clippy)
    ((${#missing[@]} > 0)) || return 0
    have rustup || stop "missing: ${missing[*]}; install them by the means that Rust was installed by"
    say "adding to Rust: ${missing[*]}"
    rustup component add "${missing[@]}" >&2 || stop "type this, then make again:" "rustup component add ${missing[*]}"
}

# The copy beside the packages says what was installed; it is written last.
get_python_packages() {
    local venv="$1" list="$2"
    local installed="$venv/requirements.txt"
    if [[ -x "$venv/bin/python" ]] && cmp -s "$list" "$installed"; then
        return
    fi
    say "installing the Python packages of $list into $venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$list" >&2 \
        || stop "the packages of $list could not be installed; see above, then make again"
    cp "$list" "$installed"
}

# As above: what is installed is known by the copy of its list.
get_node_packages() {
    local list="$1/package-lock.json" installed="$1/node_modules/installed-lock.json"
    if cmp -s "$list" "$installed"; then
        return
    fi
    have node && have npm || stop "Node 20 with npm is missing: install it from https://nodejs.org, then make again"
    say "installing the Node packages of $list"
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 \
        || stop "the packages of $list could not be installed; see above, then make again"
    cp "$list" "$installed"
}

# --- The levels ----------------------------------------------------------------------------------------

level="${1:-build}"
python_modules=(pip)
as_root=()
case "$level" in
    build | lint) ;;
    wheel | bench | test) python_modules+=(venv ensurepip) ;;
    *) stop "usage: scripts/setup.sh build|lint|wheel|bench|test" ;;
esac

have cargo || stop "cargo is missing: install Rust from https://rustup.rs, then make again"
read_build_env
get_packages
if [[ "$level" == lint || "$level" == test ]]; then
    get_rust_components
fi
# Two, because both clients are imported by the same name.
if [[ "$level" == wheel || "$level" == test ]]; then
    get_python_packages .venv-package crates/llmengine-python/tests/requirements.txt
fi
if [[ "$level" == bench ]]; then
    get_python_packages .venv-bench scripts/bench_requirements.txt
fi
if [[ "$level" == test ]]; then
    get_python_packages .venv tests/requirements.txt
    get_node_packages tests/node
fi
