#!/usr/bin/env bash
# Builds the Debian package from Cargo.toml's [package.metadata.deb] and looks whether all is in it.
#   bash scripts/package.sh [options of cargo deb, such as --no-build or --profile dev]
set -euo pipefail
cd "$(dirname "$0")/.."

cargo deb --version >/dev/null 2>&1 || cargo install --locked cargo-deb
# The program writes its own manual and completions, and the package takes them from target/manual.
cargo run --locked --quiet --release -- man -o target/manual >/dev/null
for shell in bash zsh fish; do cargo run --locked --quiet --release -- completions "$shell" > "target/manual/$shell"; done
deb=$(cargo deb --locked "$@" | tail -n 1)
listed=$(dpkg-deb --contents "$deb")
for file in usr/bin/energylens usr/lib/systemd/system/energylens-agent.service usr/lib/sysusers.d/energylens.conf \
    usr/lib/tmpfiles.d/energylens.conf etc/energylens/agent.env usr/share/doc/energylens/copyright \
    usr/share/bash-completion/completions/energylens; do
    grep -q " \./$file$" <<<"$listed" || { echo "package.sh: $file is not in $deb" >&2; exit 1; }
done
control=$(mktemp -d)
trap 'rm -rf "$control"' EXIT
dpkg-deb --control "$deb" "$control"
for script in postinst prerm postrm; do
    [ ! -e "$control/$script" ] || sh -n "$control/$script"
done
grep -q '^/etc/energylens/agent.env$' "$control/conffiles"
grep -q 'systemd-sysusers\|systemd-tmpfiles' "$control/postinst"
echo "$deb"
