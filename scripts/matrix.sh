#!/usr/bin/env bash
#
# matrix.sh: test backups and restores on several versions of PostgreSQL, each
# with its own client tools, and from each version into every newer one.
# `make matrix` calls it. Not part of CI: it needs root and the network once.
#
# Usage: matrix.sh [--cache DIR] [--versions LIST] [--fetch-only] [--run PATTERN]
#
#   --cache DIR      where fetched servers stay (default .cache/matrix of this tree)
#   --versions LIST  major versions, e.g. "15 18" (default "13 15 17 18")
#   --fetch-only     get the servers, print their folders of programs, test nothing
#   --run PATTERN    only the round trips whose name matches, as for go test
#
# Environment: MATRIX_MIRROR, a Debian mirror (default: the one that apt uses here).
#
# A version that is installed in /usr/lib/postgresql is used as it is. Another
# comes from the Debian release that has it: debootstrap downloads and checks
# the packages, and the server with its libraries is unpacked below the cache,
# without running a maintainer script. There is no chroot to enter: patchelf
# points every program at the loader and the libraries it was unpacked with, so
# that it runs from where it lies, as any user, on the files of this machine.
# 20 to 60 s and about 300 MB per version; a second run fetches nothing.
#
# Exit codes: 0 ok, 1 a test failed, 2 usage, 14 a server could not be had.

set -euo pipefail

# The Debian release whose main archive holds a version.
readonly -A release_of=([13]=bullseye [15]=bookworm [17]=trixie [18]=forky)
mirror=${MATRIX_MIRROR:-$(apt-get indextargets --format "\$(REPO_URI)" 'Created-By: Packages' 'Label: Debian' | head -n 1)}
readonly mirror

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
readonly here
readonly tree=${here%/scripts}
cache=$tree/.cache/matrix
versions='13 15 17 18'
fetch_only=
pattern=.

die() { # CODE TEXT
  printf 'matrix.sh: %s\n' "$2" >&2
  exit "$1"
}

say() { # TEXT
  printf '%(%H:%M:%S)T %s\n' -1 "$1" >&2
}

while (($#)); do
  case $1 in
    --cache | --versions | --run)
      (($# >= 2)) || die 2 "$1 needs a value"
      case $1 in
        --cache) cache=$2 ;;
        --versions) versions=$2 ;;
        --run) pattern=$2 ;;
      esac
      shift
      ;;
    --fetch-only) fetch_only=yes ;;
    -h | --help)
      sed -n '3,/^$/s/^# \{0,1\}//p' "$0"
      exit 0
      ;;
    *) die 2 "unknown argument $1; see --help" ;;
  esac
  shift
done
for version in $versions; do
  [[ -v release_of[$version] ]] || die 2 "no known Debian release holds PostgreSQL $version; known are ${!release_of[*]}"
done

need() { # PROGRAM: install the Debian package of that name where it is missing
  command -v "$1" >/dev/null && return
  say "installing $1"
  if ! { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$1"; } >&2; then
    die 14 "install $1: apt-get did not manage"
  fi
}

bin_dir() { # VERSION: where its programs are, or will be
  local installed=/usr/lib/postgresql/$1/bin
  if [[ -x $installed/initdb && -x $installed/postgres && -x $installed/pg_dump ]]; then
    printf '%s\n' "$installed"
  else
    printf '%s\n' "$cache/pg$1$installed"
  fi
}

# works says whether a version's programs run as the user postgres, who owns
# test servers. Absolute paths are built in: a cache that was moved is refetched.
works() { # VERSION
  local bin program
  bin=$(bin_dir "$1")
  for program in postgres initdb pg_dump pg_dumpall pg_restore psql pg_basebackup; do
    setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/$program" --version >/dev/null 2>&1 || return
  done
}

fetch() { # VERSION
  local release=${release_of[$1]} root=$cache/pg$1
  local packages=$root.packages script=()
  say "fetching PostgreSQL $1 from $release"
  rm -rf "$root" "$packages"
  # Releases that this debootstrap does not know yet are made as sid is.
  [[ -e /usr/share/debootstrap/scripts/$release ]] || script=(sid)
  if ! debootstrap --force-check-gpg --download-only --variant=minbase --include="postgresql-$1" \
    "$release" "$packages" "$mirror" "${script[@]}" >"$root.log" 2>&1; then
    tail -n 20 "$root.log" >&2
    die 14 "download PostgreSQL $1 from $mirror ($release): see $root.log"
  fi
  unpack "$1" "$packages/var/cache/apt/archives" "$root"
  rm -rf "$packages" "$root.log"
}

# unpack takes the server and all libraries, and binds the programs to them.
unpack() { # VERSION PACKAGES ROOT
  local package program loader libraries
  mkdir -p "$3"
  for package in "$2"/postgresql{,-client}-"$1"_*.deb "$2"/postgresql-"$1"-*.deb "$2"/{lib,zlib1g_}*.deb; do
    [[ ! -e $package ]] || dpkg-deb --extract "$package" "$3"
  done
  rm -rf "$3"/usr/share/{doc,locale,man,perl,i18n} "$3"/usr/lib/llvm-*
  # The link in /lib64 may be absolute; the one beside the libraries is not.
  loader=$(compgen -G "$3/usr/lib/*-linux-gnu*/ld-linux*.so.*" || compgen -G "$3/lib/*-linux-gnu*/ld-linux*.so.*") ||
    die 14 "unpack PostgreSQL $1: no dynamic loader in its packages"
  libraries=$(printf '%s:' "$3"/{usr/,}lib/*-linux-gnu*)
  for program in "$3/usr/lib/postgresql/$1/bin"/*; do
    [[ $(head -c 4 "$program") == $'\x7fELF' ]] || continue
    # A run path of the older kind also holds for what the libraries load.
    patchelf --set-interpreter "$loader" --force-rpath --set-rpath "${libraries%:}" "$program"
  done
}

fetch_all() {
  local version
  id postgres >/dev/null 2>&1 || die 14 'there is no user postgres to run servers as: apt-get install postgresql'
  mkdir -p "$cache"
  cache=$(cd "$cache" && pwd -P)
  exec 9>"$cache/lock"
  flock 9
  for version in $versions; do
    works "$version" && continue
    need debootstrap
    need patchelf
    fetch "$version"
    works "$version" || die 14 "run PostgreSQL $version as the user postgres: $(bin_dir "$version")/postgres --version does not work; can that user reach $cache?"
  done
}

[[ $EUID == 0 ]] || die 14 'needs root: debootstrap does, and test servers run as the user postgres'
fetch_all
bins=
for version in $versions; do
  bins+=${bins:+:}$(bin_dir "$version")
  say "PostgreSQL $version: $("$(bin_dir "$version")/postgres" --version)"
done
if [[ $fetch_only ]]; then
  printf '%s\n' "${bins//:/$'\n'}"
  exit
fi

cd "$tree"
failed=()
# A server that is missing must fail a test, not skip it.
export CI=1
for version in $versions; do
  say "the zoo on PostgreSQL $version"
  PGTEST_BIN=$(bin_dir "$version") go test -count=1 -timeout 20m ./internal/pgtest/zoo/ || failed+=("the zoo on $version")
done

say 'round trips'
go build -o "$cache/dbbackup" ./cmd/dbbackup
PGTEST_BIN=$bins MATRIX_VERSIONS=$versions MATRIX_DBBACKUP=$cache/dbbackup \
  go test -count=1 -timeout 60m -tags matrix -v -run "TestRoundTrips/$pattern" ./internal/pgtest/matrix/ |
  { grep -v '^=== ' || :; } || failed+=('round trips')

if ((${#failed[@]})); then
  printf 'matrix.sh: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
say 'all passed'
