#!/usr/bin/env bash
#
# bench.sh: measure dbbackup beside what a user would take instead, pg_dump with
# pigz or with its own formats, on a throwaway server. `make bench` calls it.
#
# Usage: bench.sh [--write] [--binary FILE] [--plain-runs N] [--archive-runs N]
#                 [--native-runs N] [--native-only] [--stores-only]
#
#   --write           also put the tables into docs/benchmarks.md
#   --binary FILE     the dbbackup to measure (default: bin/dbbackup, built anew)
#   --plain-runs N    turns in plain mode (default 3)
#   --archive-runs N  turns in custom and in directory mode (default 2)
#   --native-runs N   turns of the native engine (default 3)
#   --native-only     measure the native engine only
#   --stores-only     measure remote stores and encryption only
#
# Environment: BENCH_SCALE, full (default: 2.4 GB, about 45 minutes on two
# cores) or tenth (about 8); TMPDIR, where the server and all outputs lie, on
# one file system. Installs pigz and rclone with apt-get where they are missing. For numbers
# that mean something the machine must have nothing else to do.
#
# A missed target is printed and changes nothing of the exit code.
# Exit codes: 0 ok, 1 something did not run, 2 usage, 14 precondition.

set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
readonly here
readonly tree=${here%/scripts}
readonly scale=${BENCH_SCALE:-full}
binary=$tree/bin/dbbackup
arguments=(--scale "$scale")

die() { # CODE TEXT
  printf 'bench.sh: %s\n' "$2" >&2
  exit "$1"
}

while (($#)); do
  case $1 in
    --write) arguments+=(--write "$tree/docs/benchmarks.md") ;;
    --native-only | --stores-only) arguments+=("$1") ;;
    --binary | --plain-runs | --archive-runs | --native-runs)
      (($# >= 2)) || die 2 "$1 needs a value"
      if [[ $1 == --binary ]]; then binary=$(realpath "$2"); else arguments+=("$1" "$2"); fi
      shift
      ;;
    -h | --help)
      sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) die 2 "unknown argument $1; see --help" ;;
  esac
  shift
done

# The database, its log and the largest output, with room to spare.
case $scale in
  full) needed=16 ;;
  tenth) needed=4 ;;
  *) die 2 "BENCH_SCALE is $scale: full or tenth is known" ;;
esac
free=$(($(stat --file-system --format='%a * %S' "${TMPDIR:-/tmp}") / 1000000000))
((free >= needed)) || die 14 "${TMPDIR:-/tmp} has $free GB free and $needed are needed: set TMPDIR to a folder with more"

for program in pigz rclone; do
  command -v "$program" >/dev/null && continue
  apt-get install -qq -y --no-install-recommends "$program" >&2 || die 14 "$program is needed, and apt-get could not install it"
done

cd "$tree"
[[ $binary != "$tree/bin/dbbackup" ]] || make --no-print-directory -C "$tree" build >&2 # an old one measures nothing
make --no-print-directory tools >&2 # the S3 server
arguments+=(--versitygw "$tree/bin/tools/versitygw")
bench=$(mktemp --directory)
trap 'rm -rf "$bench"' EXIT
go build -o "$bench/bench" ./scripts/bench
# Not by exec, so that the trap runs. An interrupt from the terminal reaches both.
"$bench/bench" --binary "$binary" "${arguments[@]}"
