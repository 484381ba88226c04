#!/usr/bin/env bash
# Runs all tests with the race detector, and lists the slowest. `make test` calls it.
#
# usage: scripts/test.sh [PACKAGE...]
#
# What tests write lies in memory where that has the room: they make, sync and
# remove files by the hundred thousand, for which a disk takes three times as long.
#
# Environment: TMPDIR, a folder for what tests write, used as it is; TEST_TIMEOUT,
# the time limit of each package (default 40m).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly gotestsum=bin/tools/gotestsum
readonly room=$((6 << 30)) # bytes; the tests of one run take less than one GB at a time

# fits DIR: is it a file system in memory, with room, where programs may run?
fits() {
    local available program status=0
    [ -w "$1" ] && [ "$(stat --file-system --format=%T "$1")" = tmpfs ] || return 1
    available=$(awk '$1 == "MemAvailable:" { printf "%.0f", $2 * 1024 }' /proc/meminfo)
    ((available >= room && $(stat --file-system --format='%a * %S' "$1") >= room)) || return 1
    program=$(mktemp "$1/dbbackup-test.XXXXXX")
    printf '#!/bin/sh\n' >"$program"
    chmod 0700 "$program"
    "$program" 2>/dev/null || status=1
    rm -f "$program"
    return "$status"
}

if [ -z "${TMPDIR:-}" ] && fits /dev/shm; then
    TMPDIR=/dev/shm
fi
# What runs that were killed left would stay in memory.
find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'dbbackup-test.*' -user "$(id -u)" -mmin +720 -exec rm -rf {} +
work=$(mktemp -d "${TMPDIR:-/tmp}/dbbackup-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 0711 "$work" # servers run as the user postgres
printf 'what tests write lies in %s\n' "$work"
mkdir "$work/tmp" # beside what the tests must not find
chmod 0711 "$work/tmp"

# The tests wait more than they compute: for servers, locks and time limits.
# scrypt is left as it is: it shares nothing, and takes five times as long, and
# a gigabyte, where each of its memory accesses is recorded.
status=0
TMPDIR=$work/tmp "$gotestsum" --format pkgname-and-test-fails --format-hide-empty-pkg --jsonfile-timing-events "$work/events.json" \
    -- -race -gcflags=golang.org/x/crypto/scrypt=-race=false -parallel 6 -timeout "${TEST_TIMEOUT:-40m}" "${@:-./...}" || status=$?
printf '\nthe slowest tests:\n'
"$gotestsum" tool slowest --num 20 --jsonfile "$work/events.json"
exit "$status"
