#!/usr/bin/env bash
# Shows a backup and its restore from beginning to end, and proves the result.
#
# usage: scripts/demo.sh [--keep]      (or: make demo)
#
#   --keep   leave the two servers and the store, and say how to end them
#
# On a Debian machine with Go it needs nothing else: what is missing is installed
# by scripts/bootstrap.sh. It starts two throwaway PostgreSQL servers on free
# ports, fills one with sample data, backs it up, restores into the other, and
# compares every role, database, table, sequence and large object. No server that
# is already here is touched. Exit code 0 only when nothing differs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# A valid database name, and to careless tools a connection to another one.
readonly odd_name='host=127.0.0.1 dbname=postgres'

keep=false
case "${1:-}" in
"") ;;
--keep) keep=true ;;
-h | --help)
    sed -n '2,/^set -e/s/^# \{0,1\}//p' scripts/demo.sh
    exit
    ;;
*)
    printf 'usage: scripts/demo.sh [--keep]\n' >&2
    exit 2
    ;;
esac

work=$(mktemp -d /tmp/dbbackup-demo.XXXXXX)
readonly work throwaway=bin/throwaway dbbackup=bin/dbbackup
readonly source=$work/source target=$work/target store=$work/store
chmod 755 "$work" # the servers run as the user postgres

# cleanup: ends what this run started, and tells when it cannot.
cleanup() {
    local status=$? dir
    trap - EXIT
    if $keep; then
        printf '\nKept. The servers end with:\n  %s stop %s; %s stop %s; rm -r %s\n' \
            "$throwaway" "$source" "$throwaway" "$target" "$work"
        exit "$status"
    fi
    for dir in "$source" "$target"; do
        if [ -e "$dir/cluster.json" ]; then
            "$throwaway" stop "$dir" || status=1
        fi
    done
    rm -rf "$work"
    if [ "$status" -ne 0 ]; then
        printf '\nThe demonstration failed (exit code %d).\n' "$status" >&2
    fi
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

tell() { printf '\n%s\n' "$*"; }

# show COMMAND...: prints a command as a user would type it
show() { printf '  $ %s\n' "$*"; }

# at DIR COMMAND...: runs a command with libpq's environment of the server in DIR
at() (
    eval "$("$throwaway" env "$1")"
    shift
    "$@"
)

# dbb DIR ARGUMENTS...: runs dbbackup against the server in DIR; the password is
# in its environment, never among its arguments
dbb() {
    local dir=$1 host port
    shift
    host=$(at "$dir" printenv PGHOST)
    port=$(at "$dir" printenv PGPORT)
    set -- "$dbbackup" "$@" --store "$store" -h "$host" -p "$port" -U postgres
    show "$@"
    at "$dir" "$@"
}

psql_quiet() { psql -X -q -o /dev/null -v ON_ERROR_STOP=1 "$@"; }

# load NAME SCRIPT: makes a database of any name and fills it
load() {
    at "$source" psql_quiet -d postgres -v name="$1" <<<'CREATE DATABASE :"name"'
    at "$source" env PGDATABASE="$1" psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -f "scripts/sample/$2"
}

databases() {
    at "$1" psql -X -A -t -d postgres -c "SELECT format('  %-32s %s', datname, pg_size_pretty(pg_database_size(oid))) FROM pg_database WHERE datname <> 'template0' ORDER BY 1"
}

main() {
    tell "Looking for what is needed on this machine."
    scripts/bootstrap.sh
    make --no-print-directory build
    go build -o "$throwaway" ./internal/pgtest/cmd/throwaway

    tell "Starting server A and filling it with roles and three databases."
    "$throwaway" start "$source"
    at "$source" psql_quiet -d postgres -f scripts/sample/roles.sql
    load shop shop.sql
    load media media.sql
    load "$odd_name" odd.sql
    databases "$source"

    tell "Backing up the whole cluster."
    dbb "$source" backup cluster

    tell "What the store holds now, and every byte of it read back."
    show "$dbbackup" list --store "$store"
    "$dbbackup" list --store "$store"
    show "$dbbackup" verify latest --store "$store"
    "$dbbackup" verify latest --store "$store"

    tell "Starting server B, which is empty, and restoring into it."
    "$throwaway" start -like "$source" "$target"
    dbb "$target" restore cluster --set latest
    databases "$target"

    tell "Comparing A with B: roles, databases, every table, sequence and large object."
    "$throwaway" compare "$source" "$target"
    tell "A and B are equal: the backup restores."
}

main
