#!/usr/bin/env bash
# Installs energylens and its service, or removes them.
#   sudo bash scripts/install.sh                    into /usr, enables nothing
#   sudo bash scripts/install.sh --uninstall        recordings and changed options stay
#   DESTDIR=/tmp/image PREFIX=/usr bash scripts/install.sh      into an image: touches nothing outside of it
#   BINARY=path/to/energylens                       which program (default: target/release/energylens)
# Doing it twice is the same as doing it once.
set -euo pipefail
cd "$(dirname "$0")/.."

DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr}
BINARY=${BINARY:-target/release/energylens}
case $PREFIX in /*) ;; *) echo "install.sh: PREFIX is $PREFIX; expected an absolute path" >&2; exit 2 ;; esac
PREFIX=${PREFIX%/}

# systemd looks for these under /usr only, wherever the program lies.
unit=$DESTDIR/usr/lib/systemd/system/energylens-agent.service
sysusers=$DESTDIR/usr/lib/sysusers.d/energylens.conf
tmpfiles=$DESTDIR/usr/lib/tmpfiles.d/energylens.conf
env=$DESTDIR/etc/energylens/agent.env
program=$DESTDIR$PREFIX/bin/energylens
doc=$DESTDIR$PREFIX/share/doc/energylens
man=$DESTDIR$PREFIX/share/man/man1
bash_completion=$DESTDIR$PREFIX/share/bash-completion/completions/energylens
zsh_completion=$DESTDIR$PREFIX/share/zsh/site-functions/_energylens
fish_completion=$DESTDIR$PREFIX/share/fish/vendor_completions.d/energylens.fish

# On the running system only, and only where systemd runs it.
is_live() { [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; }

uninstall() {
    if is_live; then systemctl disable --now energylens-agent.service 2>/dev/null || true; fi
    rm -f "$program" "$unit" "$sysusers" "$tmpfiles"
    rm -f "$man/energylens.1" "$man"/energylens-*.1 "$bash_completion" "$zsh_completion" "$fish_completion"
    rm -rf "$doc"
    # Options that somebody wrote stay.
    if [ -f "$env" ] && cmp -s systemd/agent.env "$env"; then rm -f "$env"; rmdir "${env%/*}" 2>/dev/null || true; fi
    if is_live; then systemctl daemon-reload; fi
    echo "removed; recordings in $DESTDIR/var/lib/energylens and the user energylens stay"
}

case ${1:-} in
    --uninstall) uninstall; exit 0 ;;
    '') ;;
    *) echo "install.sh: $1 is unknown; expected --uninstall or nothing" >&2; exit 2 ;;
esac

if [ ! -x "$BINARY" ]; then
    echo "install.sh: there is no program at $BINARY; build it with: cargo build --release" >&2
    exit 1
fi

install -D -m 0755 "$BINARY" "$program"
install -d "${unit%/*}"
unit_text=$(sed -e "s#/usr/bin/energylens#$PREFIX/bin/energylens#" \
    -e "s#file:/usr/share/doc#file:$PREFIX/share/doc#" systemd/energylens-agent.service)
printf '%s\n' "$unit_text" > "$unit"
chmod 0644 "$unit"
install -D -m 0644 systemd/energylens.sysusers "$sysusers"
install -D -m 0644 systemd/energylens.tmpfiles "$tmpfiles"
if [ ! -e "$env" ]; then install -D -m 0644 systemd/agent.env "$env"; fi
install -d "$doc"
install -m 0644 README.md LICENSE CHANGELOG.md docs/*.md "$doc"


# The program writes its own manual and completions; one that does not run here (another machine's) is installed without.
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
if "$BINARY" man -o "$made/man" >/dev/null 2>&1 && [ -s "$made/man/energylens.1" ]; then
    install -d "$man"
    install -m 0644 "$made"/man/*.1 "$man"
    for shell in bash zsh fish; do "$BINARY" completions "$shell" > "$made/$shell"; done
    install -D -m 0644 "$made/bash" "$bash_completion"
    install -D -m 0644 "$made/zsh" "$zsh_completion"
    install -D -m 0644 "$made/fish" "$fish_completion"
else
    echo "install.sh: $BINARY does not run here; the manual and the completions are left out" >&2
fi

if is_live; then
    systemd-sysusers "$sysusers"
    systemd-tmpfiles --create "$tmpfiles"
    systemctl daemon-reload
    echo "installed; start it with: systemctl enable --now energylens-agent"
else
    echo "installed into ${DESTDIR:-/}; where systemd runs: systemd-sysusers, systemd-tmpfiles --create, then" \
        "systemctl enable --now energylens-agent"
fi
