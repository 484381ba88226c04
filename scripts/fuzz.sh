#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other.
#
# usage: scripts/fuzz.sh [TIME]      TIME for each target, default 60s
#
# Stops at the first target that fails; Go keeps the input below its package's
# testdata/fuzz. A module without fuzz targets is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

time=${1:-60s}
count=0
while read -r package; do
    while read -r target; do
        printf '%s %s\n' "$package" "$target"
        go test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$time"
        count=$((count + 1))
    done < <(go test "$package" -list '^Fuzz' | grep '^Fuzz' || true)
done < <(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...)

if [ "$count" -eq 0 ]; then
    printf 'fuzz.sh: no fuzz target found\n' >&2
    exit 1
fi
printf '%d fuzz targets passed, %s each\n' "$count" "$time"
