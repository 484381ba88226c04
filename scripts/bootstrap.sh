#!/usr/bin/env bash
# Sets up a Debian machine to build, test and demonstrate dbbackup.
#
# usage: scripts/bootstrap.sh [--check]
#
#   --check   change nothing: list what is missing and exit 1 when something is
#
# Installs what is missing with apt, as root or through sudo: a PostgreSQL server
# with its contrib modules and clients, and the tools that tests and scripts use
# (Node.js runs one of the servers that tests start).
# It never starts, stops or changes a database cluster, and makes none: where
# PostgreSQL is installed here, Debian's own first cluster is kept from being
# created meanwhile, and no service is started or, where it is new, left enabled
# (pgbouncer's, sshd's). Running it again does nothing.
#
# Go is looked for, not installed: it must be at least the version in go.mod.
# With BOOTSTRAP_WITHOUT=shellcheck,strace the named commands are left out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where Debian keeps daemons, which is not in every user's PATH.
PATH=$PATH:/usr/sbin

# A command that must be there, and the Debian package that brings it.
commands=(
    "gcc build-essential" # the race detector links with it
    "git git"
    "gzip gzip"
    "jq jq" # restore-chunked.sh reads contents.json with it
    "make make"
    "node nodejs" # azurite, the Azure server that tests run, is a program for it
    "npm npm"     # installs azurite
    "pgbouncer pgbouncer"
    "psql postgresql-client"
    "sha256sum coreutils"
    "shellcheck shellcheck"
    "sshd openssh-server" # the tests of the SFTP store run it
    "strace strace"
    "zstd zstd"
)

say() { printf 'bootstrap: %s\n' "$*"; }
die() {
    printf 'bootstrap: %s\n' "$*" >&2
    exit 1
}

# has_server: are there server binaries, in Debian's place, PGTEST_BIN or PATH?
has_server() {
    [ -n "${PGTEST_BIN:-}" ] && return
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null
}

# left_out COMMAND: was it excluded by BOOTSTRAP_WITHOUT?
left_out() { case ",${BOOTSTRAP_WITHOUT:-}," in *",$1,"*) return 0 ;; *) return 1 ;; esac; }

# missing_packages: one package a line
missing_packages() {
    local entry command package
    for entry in "${commands[@]}"; do
        read -r command package <<<"$entry"
        left_out "$command" || command -v "$command" >/dev/null || printf '%s\n' "$package"
    done
    has_server || printf '%s\n' postgresql postgresql-contrib
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root: $*"
    fi
}

# without_first_cluster COMMAND...: Debian's package creates and starts a cluster
# named main unless this file says otherwise while it is installed.
without_first_cluster() {
    local file=/etc/postgresql-common/createcluster.d/dbbackup-bootstrap.conf status=0
    as_root mkdir -p "${file%/*}"
    printf 'create_main_cluster = false\n' | as_root tee "$file" >/dev/null
    "$@" || status=$?
    as_root rm -f "$file"
    return "$status"
}

# without_services COMMAND...: packages start what they bring unless this policy
# stands there meanwhile (Debian Policy, invoke-rc.d). A machine's own is kept.
without_services() {
    local file=/usr/sbin/policy-rc.d status=0
    if [ -e "$file" ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$file" >/dev/null
    as_root chmod 755 "$file"
    "$@" || status=$?
    as_root rm -f "$file"
    return "$status"
}

# not_enabled PACKAGE...: a server that nobody had here is not to run from the next
# boot on. Only its program is wanted: tests start it themselves.
not_enabled() {
    case " $* " in *" openssh-server "*) ;; *) return 0 ;; esac
    command -v systemctl >/dev/null || return 0
    as_root systemctl --quiet disable ssh.service
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q "$@"; }

install_packages() {
    command -v apt-get >/dev/null || die "no apt-get here; install these yourself: $*"
    say "installing: $*"
    apt update
    without_services without_first_cluster apt install -y --no-install-recommends "$@"
    not_enabled "$@"
}

check_go() {
    local need have
    need=$(awk '$1 == "go" { print $2 }' go.mod)
    command -v go >/dev/null || die "Go $need or newer is needed: see https://go.dev/doc/install"
    have=$(go env GOVERSION)
    have=${have#go}
    [ "$(printf '%s\n%s\n' "$need" "$have" | sort -V | head -n 1)" = "$need" ] ||
        die "Go $need or newer is needed, this is $have: see https://go.dev/doc/install"
}

main() {
    local check=false
    case "${1:-}" in
    "") ;;
    --check) check=true ;;
    -h | --help)
        sed -n '2,/^set -e/s/^# \{0,1\}//p' scripts/bootstrap.sh
        return
        ;;
    *)
        printf 'usage: scripts/bootstrap.sh [--check]\n' >&2
        exit 2
        ;;
    esac
    check_go
    local packages
    mapfile -t packages < <(missing_packages)
    if [ ${#packages[@]} -eq 0 ]; then
        say "everything is there"
    elif $check; then
        die "missing: ${packages[*]}"
    else
        install_packages "${packages[@]}"
    fi
}

main "$@"
