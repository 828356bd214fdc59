#!/usr/bin/env bash
# Makes the Python environment that some tests need, target/python-env, with exactly scripts/python-requirements.txt in it.
# A second call sees that nothing changed and does nothing. Where it cannot be made (no Python 3.11 or newer, no package
# index) it says so and succeeds: the tests that need it skip, and say so too.
set -euo pipefail
cd "$(dirname "$0")/.."
wanted=scripts/python-requirements.txt
env=target/python-env
# Written last: an environment without it is half made.
made_from=$env/requirements.txt

skip() { echo "python: SKIPPED: $*; the tests that need $env skip" >&2; exit 0; }

find_python() { # The system's own first: an environment of another's breaks when that one goes.
    local python
    for python in /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

cmp -s "$wanted" "$made_from" && "$env/bin/python" -c 'import duckdb' 2>/dev/null && exit 0
# Pip resolves nothing: the list is complete.
install() { timeout 900 "$env/bin/python" -m pip install -q --disable-pip-version-check --no-deps --retries 2 -r "$wanted"; }

python=$(find_python) || skip 'there is no Python 3.11 or newer with venv; try: apt-get install python3-venv'
echo "python: installing $wanted into $env (about 1 GB, a minute)"
if ! "$env/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$env"
    mkdir -p target
    "$python" -m venv "$env" || skip "$python cannot make a virtual environment; try: apt-get install python3-venv"
fi
rm -f "$made_from"
install || skip 'pip could not install the packages'
cp "$wanted" "$made_from"
