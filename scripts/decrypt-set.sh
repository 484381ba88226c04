#!/usr/bin/env bash
# Decrypts an encrypted backup set with age alone. What comes of it is a plain
# set: sha256sum, pg_restore, psql, restore-chunked.sh and dbbackup read it.
#
# usage: scripts/decrypt-set.sh SET OUT IDENTITY...
#
#   SET        the folder of the set, e.g. /srv/backups/cluster-20260102T030405Z;
#              the sets that it refers to lie beside it
#   OUT        a folder for the decrypted set, which must not have it yet; put
#              it where nobody else reads
#   IDENTITY   what age -i takes: an age identity file or an SSH private key. A
#              set that was encrypted with a passphrase needs none: age asks
#
# It needs age 1.1 or later and sha256sum. Of an older set that this one refers
# to only what is referred to is decrypted.
#
# To be sure who made the set, look at its signature first:
#
#   openssl pkeyutl -verify -rawin -pubin -inkey trusted.pem \
#     -sigfile SET/manifest.json.sig -in SET/manifest.json
#
# exit codes: 0 ok, 1 failed, 2 usage, 12 wrong key, 13 the set is damaged, 14 a
# program is missing, or OUT has the set already.
set -euo pipefail
export LC_ALL=C
umask 077
readonly self=$0

# die CODE TEXT
die() {
    printf 'decrypt-set: %s\n' "$2" >&2
    exit "$1"
}

# usage: prints the comment above, as far as it is one.
usage() {
    local line
    while IFS= read -r line; do
        case $line in
        '#!'*) ;;
        '#'*)
            line=${line#\#}
            printf '%s\n' "${line# }"
            ;;
        *) break ;;
        esac
    done <"$self"
}

case "${1:-}" in
-h | --help)
    usage
    exit
    ;;
esac
if [ $# -lt 2 ]; then
    usage >&2
    exit 2
fi
for program in age sha256sum; do
    command -v "$program" >/dev/null || die 14 "$program is not installed"
done
set_dir=$(cd "$1" && pwd) || die 2 "there is no set $1"
mkdir -p "$2"
out=$(cd "$2" && pwd)
id=${set_dir##*/}
shift 2
identities=()
for file in "$@"; do identities+=(-i "$file"); done
[ -e "$set_dir/manifest.json" ] || die 13 "$set_dir has no manifest.json: it is not a backup"
[ ! -e "$out/$id" ] || die 14 "$out/$id is there already"

# The stored bytes first, without any key.
(cd "$set_dir" && sha256sum -c --quiet --strict SHA256SUMS) || die 13 "$id is damaged"

# The set's own key: the newest one counts.
key=
for file in "$set_dir"/keys/*.age; do [ -e "$file" ] && key=$file; done
[ -n "$key" ] || die 13 "$id has no key in keys/"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
age -d ${identities[@]+"${identities[@]}"} -o "$work/set.key" "$key" || die 12 "$key does not open"

# decrypt KEY FROM TO
decrypt() {
    mkdir -p "${3%/*}"
    age -d -i "$1" -o "$3" "$2" || die 13 "$2 does not decrypt with the key of the set"
}

# Every file NAME.age is the NAME of the plain set.
while IFS= read -r -d '' file; do
    name=${file#"$set_dir"/}
    case $name in
    keys/* | references.key.age) continue ;;
    esac
    decrypt "$work/set.key" "$file" "$out/$id/${name%.age}"
done < <(find "$set_dir" -name '*.age' -print0)

# What older sets have of it is encrypted with their keys, which are in the set.
if [ -e "$set_dir/references.key.age" ]; then
    decrypt "$work/set.key" "$set_dir/references.key.age" "$work/references.key"
    while IFS= read -r line; do
        name=${line:66}
        case $name in
        ../*) ;;
        *) continue ;;
        esac
        to=$out/${name#../}
        to=${to%.age}
        [ -e "$to" ] || decrypt "$work/references.key" "$set_dir/$name" "$to"
    done <"$set_dir/SHA256SUMS"
fi

(cd "$out/$id" && sha256sum -c --quiet --strict SHA256SUMS) || die 13 "$id decrypts to something else than was captured"
printf '%s\n' "$out/$id"
