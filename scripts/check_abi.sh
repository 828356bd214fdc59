#!/usr/bin/env bash
# Holds the stand-ins for driver libraries (tests/stubs/) against the vendors' own headers: a function that has another
# signature there, or a struct of another size, is a compile error. What a header is not to be had for is skipped, loudly.
#
#   NVIDIA     nvml.h       PyPI nvidia-nvml-dev (150 kB)
#   AMD SMI    amdsmi.h     crates.io amd_smi_lib_sys, which ships ROCm's header (60 kB)
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
skip() { echo "abi: SKIPPED: $*" >&2; }

# A header is fetched once; a cached target directory keeps it.
nvml=$work/nvml
if [ ! -e "$nvml/nvidia" ] && command -v python3 >/dev/null; then
    rm -rf "$nvml" && mkdir -p "$nvml"
    if timeout 120 python3 -m pip download -q --no-deps --disable-pip-version-check -d "$nvml" nvidia-nvml-dev >"$work/pip.log" 2>&1; then
        python3 -m zipfile -e "$nvml"/*.whl "$nvml"
    fi
fi
header=$(find "$nvml" -name nvml.h 2>/dev/null | head -n 1)
if [ -n "$header" ]; then
    compile nvml "$(dirname "$header")" "NVIDIA's nvml.h"
else
    skip "NVIDIA's nvml.h could not be had; try \`pip download nvidia-nvml-dev\`"
fi

amd=$work/amd_smi
header=$(find "$amd" -name amdsmi.h 2>/dev/null | head -n 1)
if [ -z "$header" ]; then
    mkdir -p "$amd/src" && : >"$amd/src/lib.rs"
    printf '[package]\nname = "headers"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\namd_smi_lib_sys = "=0.2.1"\n' >"$amd/Cargo.toml"
    if timeout 120 cargo vendor -q --manifest-path "$amd/Cargo.toml" "$amd/vendor" >"$work/vendor.log" 2>&1; then
        header=$(find "$amd/vendor/amd_smi_lib_sys" -name amdsmi.h | head -n 1)
    fi
fi
if [ -n "$header" ]; then
    compile amd_smi "$(dirname "$header")" "AMD's amdsmi.h"
else
    skip "AMD's amdsmi.h could not be had; see $work/vendor.log"
fi

if [ -e /usr/include/rocm_smi/rocm_smi.h ]; then
    compile rocm_smi /usr/include "AMD's rocm_smi.h"
elif [ -e /opt/rocm/include/rocm_smi/rocm_smi.h ]; then
    compile rocm_smi /opt/rocm/include "AMD's rocm_smi.h"
else
    skip "AMD's rocm_smi.h is not installed; try \`apt-get install librocm-smi-dev\`"
fi
exit "$failed"
