#!/usr/bin/env bash
# Holds the stand-ins for driver libraries (tests/stubs/) against the vendors' own headers: a function that has another
# signature there, or a struct of another size, is a compile error. What a header is not to be had for is skipped, loudly.
#
#   NVIDIA     nvml.h       wheel nvidia-nvml-dev (150 kB)
#   AMD SMI    amdsmi.h     crate amd_smi_lib_sys, which ships ROCm's header (60 kB)
#   ROCm SMI   rocm_smi.h   Debian librocm-smi-dev (1 MB with the library)
#   Intel      is checked where libze-dev is installed, by the tests themselves
set -euo pipefail
cd "$(dirname "$0")/.."
work=target/abi
mkdir -p "$work"
failed=0

compile() { # compile STUB INCLUDE_DIRECTORY WHAT
    if cc -shared -fPIC -O1 -Wall -Wextra -Werror -DWITH_HEADER -I"$2" -o "$work/$1.so" "tests/stubs/$1.c" -ldl; then
        echo "abi: tests/stubs/$1.c agrees with $3"
    else
        echo "abi: tests/stubs/$1.c DISAGREES with $3" >&2
        failed=1
    fi
}
first() { # first DIRECTORY FILE: where the file lies below the directory, if it does
    { find "$1" -name "$2" 2>/dev/null || true; } | head -n 1
}
skip() { echo "abi: SKIPPED: $*" >&2; }

# A header is fetched once; a cached target directory keeps it.
nvml=$work/nvml
if [ ! -e "$nvml/nvidia" ] && command -v python3 >/dev/null; then
    rm -rf "$nvml" && mkdir -p "$nvml"
    if timeout 120 python3 -m pip download -q --no-deps --disable-pip-version-check -d "$nvml" nvidia-nvml-dev >"$work/pip.log" 2>&1; then
        python3 -m zipfile -e "$nvml"/*.whl "$nvml"
    fi
fi
header=$(first "$nvml" nvml.h)
if [ -n "$header" ]; then
    compile nvml "$(dirname "$header")" "NVIDIA's nvml.h"
else
    skip "NVIDIA's nvml.h could not be had; try \`pip download nvidia-nvml-dev\`"
fi

amd=$work/amd_smi
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
header=$(first "$sources" amdsmi.h)
if [ -z "$header" ]; then
    # Of what it needs to build nothing is wanted: an empty crate stands for it.
    mkdir -p "$amd/src" "$amd/bindgen/src" && : >"$amd/src/lib.rs" && : >"$amd/bindgen/src/lib.rs"
    printf '[package]\nname = "bindgen"\nversion = "0.72.9"\n' >"$amd/bindgen/Cargo.toml"
    cat >"$amd/Cargo.toml" <<-'END'
	[package]
	name = "headers"
	version = "0.0.0"
	[workspace]
	[dependencies]
	amd_smi_lib_sys = "=0.2.1"
	[patch.crates-io]
	bindgen = { path = "bindgen" }
	END
    # Fetched, never built: its build script wants libclang.
    timeout 120 cargo fetch -q --manifest-path "$amd/Cargo.toml" >"$work/fetch.log" 2>&1 || true
    header=$(first "$sources" amdsmi.h)
fi
if [ -n "$header" ]; then
    compile amd_smi "$(dirname "$header")" "AMD's amdsmi.h"
else
    skip "AMD's amdsmi.h could not be had; see $work/fetch.log"
fi

if [ -e /usr/include/rocm_smi/rocm_smi.h ]; then
    compile rocm_smi /usr/include "AMD's rocm_smi.h"
elif [ -e /opt/rocm/include/rocm_smi/rocm_smi.h ]; then
    compile rocm_smi /opt/rocm/include "AMD's rocm_smi.h"
else
    skip "AMD's rocm_smi.h is not installed; try \`apt-get install librocm-smi-dev\`"
fi
exit "$failed"
