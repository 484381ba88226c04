#!/usr/bin/env bash
# Restores a database that was captured in chunks, without dbbackup.
#
# usage: scripts/restore-chunked.sh SET DATABASE TARGET
#
#   SET        the folder of the set, e.g. /srv/backups/cluster-20260102T030405Z;
#              the sets that it refers to lie beside it
#   DATABASE   the database's name in the set, or its folder there
#              (databases/NAME.chunks)
#   TARGET     an empty database that exists; databases/NAME.create.sql makes one
#
# It needs psql and pg_restore of the version that manifest.json names, or newer
# ones, jq, sha256sum, and zstd or gzip. The server is libpq's: PGHOST, PGPORT,
# PGUSER, ~/.pgpass and so on, without a pooler in between; the roles that own
# something in the database exist there already (globals.sql makes them). JOBS
# (1) is how many processes build indexes. TMPDIR needs room for the widest row,
# where one was too wide to be captured as a whole.
#
# Every digest is checked before anything is written, and the server counts
# what it takes. One chunk is loaded after the other, so dbbackup is faster.
# FORMAT.md specifies what is read here.
#
# exit codes: 0 ok, 1 failed (drop TARGET and begin again), 2 usage, 10 no such
# database in the set, 13 the set is damaged, 14 a program is missing, or TARGET
# is not empty; nothing was written then.
set -euo pipefail
export LC_ALL=C
readonly self=$0

say() { printf 'restore-chunked: %s\n' "$*" >&2; }

# die CODE TEXT
die() {
    say "$2"
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
if [ $# -ne 3 ]; then
    usage >&2
    exit 2
fi
for program in psql pg_restore jq sha256sum; do
    command -v "$program" >/dev/null || die 14 "$program is not installed"
done

# cleanup: a failure after the first statement leaves a database that is not whole.
cleanup() {
    local status=$?
    rm -rf -- "$work"
    if $touched && [ "$status" -ne 0 ]; then
        say "database $target is not whole: drop it and begin again"
    fi
    exit "$status"
}

work=$(mktemp -d)
readonly work name=$2 target=$3
touched=false
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd -P -- "$1" || die 2 "there is no folder $1"
[ -e manifest.json ] || die 13 "$1 is no backup set: it has no manifest.json"

# What every jq program below may use. name quotes a name for SQL that reaches
# the server in the database's own encoding: where jq does not write that, names
# are escaped to ASCII. A piece is given as four fields: file, offset, bytes, codec.
# shellcheck disable=SC2016 # $ is jq's
readonly lib='
def hex: [range(6) as $i | "0123456789ABCDEF"[(. / pow(16; 5 - $i) | floor) % 16:][:1]] | add;
def name($encoding):
    gsub("\""; "\"\"") |
    if $encoding == "UTF8" or $encoding == "SQL_ASCII" or all(explode[]; . < 128) then "\"" + . + "\""
    else "U&\"" + (gsub("\\\\"; "\\\\") | explode | map(if . < 128 then [.] | implode else "\\+" + hex end) | add) + "\"" end;
def table($encoding): (.schema | name($encoding)) + "." + (.name | name($encoding));
def file: if (.set // "") == "" then .object else "../" + .set + "/" + .object end;
def stored: select((.object // "") != "");
def pieces: stored, ((.wide // [])[].pieces[] | stored);
def all_pieces: (.tables[].chunks[] | pieces), (.large_objects // empty | .metadata, .data[] | pieces);
def fields: file, .offset, .bytes, .codec;
def record: map(tostring + "\u0000") | add;
'

# find_database: prints the database's folder in the set.
find_database() {
    # shellcheck disable=SC2016 # $ is jq's here, and below
    jq -j --arg name "$name" '
        if .format > 2 then error("the set needs dbbackup >= " + .needs_tool) else . end |
        [.databases[] | select(.mode == "chunked")] |
        map(select(.name == $name)) + map(select(.dump == ($name | rtrimstr("/")))) | first // empty | .dump' manifest.json
}

folder=$(find_database) || die 14 "manifest.json cannot be used"
[ -n "$folder" ] || die 10 "the set has no database $name in chunks"
readonly folder contents=$folder/contents.json archive=$folder/schema.dump

# check_digests: proves every file that is going to be read.
check_digests() {
    printf '%s\n' manifest.json "$contents" "$archive" >"$work/names"
    jq -r "$lib"'[all_pieces | file] | unique[]' "$contents" >>"$work/names" || return 1
    jq -nrR --rawfile names "$work/names" '
        ($names | split("\n") | map({(.): true}) | add | del(.[""])) as $wanted |
        inputs | select($wanted[.[66:]])' SHA256SUMS >"$work/sums" || return 1
    [ "$(wc -l <"$work/names")" -eq "$(wc -l <"$work/sums")" ] || return 1
    sha256sum --check --quiet --strict "$work/sums"
}

say "checking digests"
check_digests || die 13 "the set is damaged, or a set that it refers to is not beside it"

encoding=$(jq -r .encoding "$contents")
readonly encoding
codecs=$(jq -r "$lib"'[all_pieces | .codec] | unique[]' "$contents")
while IFS= read -r codec; do
    case $codec in
    zstd:*) command -v zstd >/dev/null || die 14 "zstd is not installed" ;;
    gzip:*) command -v gzip >/dev/null || die 14 "gzip is not installed" ;;
    none | "") ;;
    *) die 14 "the compression $codec is not known here" ;;
    esac
done <<<"$codecs"

# What text stands for depends on these: they are what the rows were read with.
# A set's own database may say something else.
export PGCLIENTENCODING=$encoding
PGOPTIONS="${PGOPTIONS:-} -c search_path=pg_catalog -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC"
PGOPTIONS+=' -c lc_monetary=C -c xmloption=content -c array_nulls=on -c standard_conforming_strings=on -c row_security=off'
PGOPTIONS+=' -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0'
PGOPTIONS+=' -c default_transaction_read_only=off -c client_min_messages=warning'
export PGOPTIONS

# A name is a value in a connection string, never the string itself.
dbname=${target//\\/\\\\}
readonly dbname="dbname='${dbname//\'/\\\'}'"

sql() { psql -X -v ON_ERROR_STOP=1 -d "$dbname" "$@"; }

check_target() {
    local empty
    # Not in the encoding of the chunks: the name came by the command line.
    empty=$(PGCLIENTENCODING=UTF8 sql -A -t -q -v target="$target" <<'SQL'
SELECT current_database() = :'target'
   AND NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)
SQL
    ) || return 1
    [ "$empty" = t ]
}

check_target || die 14 "database $target cannot be used: it must exist and be empty"

# piece FILE OFFSET BYTES CODEC: writes a COPY stream as it was captured
piece() {
    head -c "$3" < <(tail -c "+$(($2 + 1))" -- "$1") | case $4 in
    zstd:*) zstd -dcq ;;
    gzip:*) gzip -dc ;;
    *) cat ;;
    esac
}

# take N FIELD...: reads N records from the plan into the array fields
take() {
    local i
    fields=()
    for ((i = 0; i < $1; i++)); do
        IFS= read -r -d '' "fields[$i]" <&3 || return 1
    done
}

# load_rows: every chunk, and the wide rows beside it. The plan is a file, so
# that jq has ended well before the first row is loaded.
load_rows() {
    # shellcheck disable=SC2016
    jq -j --arg encoding "$encoding" "$lib"'
        def name: name($encoding);
        def list: map(name) | join(", ");
        def into: (.via // .) | table($encoding);
        def assemble($into):
            (.pieces | to_entries) as $pieces | "BEGIN;\n" +
            ($pieces | map("CREATE TEMP TABLE piece_\(.key) ON COMMIT DROP AS SELECT \(.value.columns | list) FROM \($into) WITH NO DATA;\n" +
                "\\copy pg_temp.piece_\(.key) from \u0027piece.\(.key)\u0027 (format \(.value.format))\n") | add) +
            "INSERT INTO \($into) (\([.pieces[].columns[]] | list)) OVERRIDING SYSTEM VALUE SELECT " +
            ($pieces | map(.key as $i | .value.columns[] | "piece_\($i)." + name) | join(", ")) +
            " FROM " + ($pieces | map("pg_temp.piece_\(.key)") | join(", ")) + ";\nCOMMIT;\n";
        .tables[] | . as $table | .chunks[] |
            (select(stored) | ["chunk", fields, .rows - (.wide // [] | length), $table.load] | record),
            ((.wide // [])[] | ["row", (.pieces | length), (.pieces[] | fields), assemble($table | into)] | record)' \
        "$contents" >"$work/plan"
    local kind i n tag
    local -a fields
    while IFS= read -r -d '' kind <&3; do
        case $kind in
        chunk)
            take 6
            tag=$(piece "${fields[@]:0:4}" | sql -c "${fields[5]}")
            [ "$tag" = "COPY ${fields[4]}" ] || die 1 "the server took '$tag' of a chunk of ${fields[4]} rows: ${fields[5]}"
            ;;
        row)
            take 1
            n=${fields[0]}
            for ((i = 0; i < n; i++)); do
                take 4
                piece "${fields[@]}" >"$work/piece.$i"
            done
            take 1
            printf '%s' "${fields[0]}" >"$work/row.sql"
            tag=$(cd "$work" && sql -f row.sql </dev/null)
            [[ $tag == *$'\nINSERT 0 1\n'* ]] || die 1 "a wide row did not come whole: $tag"
            rm -f -- "$work"/piece.*
            ;;
        esac
    done 3<"$work/plan"
}

# make_large_objects: those that the file owners names, some in a transaction:
# each takes a lock. psql runs it in the folder where that file is.
make_large_objects() {
    cat >"$work/owners.sql" <<'SQL'
CREATE TEMP TABLE owners (oid oid, owner text, acl text, comment text);
\copy pg_temp.owners from 'owners' (encoding 'UTF8')
DO $do$
DECLARE o record; g record; n int := 0;
BEGIN
    FOR o IN SELECT * FROM pg_temp.owners ORDER BY oid LOOP
        PERFORM lo_create(o.oid);
        IF o.owner <> '' THEN
            EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %I', o.oid, o.owner);
        END IF;
        IF o.acl <> '' AND o.owner <> '' THEN
            EXECUTE format('REVOKE ALL ON LARGE OBJECT %s FROM %I', o.oid, o.owner);
        END IF;
        IF o.acl <> '' THEN
            FOR g IN SELECT * FROM json_to_recordset(o.acl::json) x(grantee text, privilege text, grantable boolean) LOOP
                EXECUTE format('GRANT %s ON LARGE OBJECT %s TO ', g.privilege, o.oid)
                    || CASE WHEN g.grantee = '' THEN 'PUBLIC' ELSE quote_ident(g.grantee) END
                    || CASE WHEN g.grantable AND g.grantee <> o.owner THEN ' WITH GRANT OPTION' ELSE '' END;
            END LOOP;
        END IF;
        IF o.comment <> '' THEN
            EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', o.oid, o.comment);
        END IF;
        n := n + 1;
        IF n % 100 = 0 THEN
            COMMIT;
        END IF;
    END LOOP;
END $do$;
SQL
    (cd "$work" && sql -q -f owners.sql </dev/null)
}

# load_large_objects: makes them, and writes what they hold.
load_large_objects() {
    jq -j "$lib"'.large_objects // empty |
        (.metadata | stored | ["owners", fields, .rows] | record),
        (.data[] | select(.rows > 0) | ["data", fields, .rows] | record)' "$contents" >"$work/plan"
    cat >"$work/data.sql" <<'SQL'
BEGIN;
CREATE TEMP TABLE data (oid oid, at bigint, bytes bytea) ON COMMIT DROP;
\copy pg_temp.data from pstdin (format binary)
DO $do$ BEGIN PERFORM lo_put(oid, at, bytes) FROM pg_temp.data; END $do$;
COMMIT;
SQL
    local kind tag
    local -a fields
    while IFS= read -r -d '' kind <&3; do
        take 5
        if [ "$kind" = owners ]; then
            piece "${fields[@]:0:4}" >"$work/owners"
            make_large_objects
            continue
        fi
        tag=$(piece "${fields[@]:0:4}" | sql -f "$work/data.sql")
        [[ $tag == *$'\n'"COPY ${fields[4]}"$'\n'* ]] || die 1 "the server took '$tag' of ${fields[4]} pieces of large objects"
    done 3<"$work/plan"
}

set_sequences() {
    # shellcheck disable=SC2016
    jq -r --arg encoding "$encoding" "$lib"'.sequences[] |
        "SELECT setval(s.oid, \(.last), \(.called)) FROM (SELECT tableoid AS oid FROM \(table($encoding))) s;"' \
        "$contents" >"$work/sequences.sql"
    sql -q -o /dev/null -f "$work/sequences.sql" </dev/null
}

# refresh_views: event triggers are there by now, and are not meant for this.
# Only a superuser can keep them quiet.
refresh_views() {
    sql -q -A -t -o "$work/views.sql" <<'SQL'
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN 'SET event_triggers = off;'
            ELSE 'SET session_replication_role = replica;' END
  FROM pg_roles WHERE rolname = current_user AND rolsuper
SQL
    # shellcheck disable=SC2016
    jq -r --arg encoding "$encoding" "$lib"'.materialized_views[] | select(.populated) |
        "REFRESH MATERIALIZED VIEW \(table($encoding));"' "$contents" >>"$work/views.sql"
    sql -q -f "$work/views.sql" </dev/null
}

# analyze: each table by itself, less those whose statistics would be read from a
# foreign server. What cannot be analyzed is said, and no failure: the rows are
# there.
analyze() {
    psql -X -q -d "$dbname" <<'SQL'
WITH RECURSIVE parent AS (
    SELECT inhparent AS oid FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE c.relkind = 'f'
     UNION SELECT inhparent FROM pg_inherits JOIN parent ON parent.oid = inhrelid)
SELECT format('ANALYZE %I.%I', n.nspname, c.relname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm') AND c.oid >= 16384 AND c.oid NOT IN (SELECT oid FROM parent)
 ORDER BY c.oid
\gexec
SQL
}

restore_section() { pg_restore --exit-on-error --section="$1" -d "$dbname" "${@:2}" "$archive"; }

touched=true
say "making definitions"
restore_section pre-data
say "loading rows"
load_rows
load_large_objects
set_sequences
say "making indexes and constraints"
restore_section post-data --jobs="${JOBS:-1}"
refresh_views
say "collecting statistics"
analyze
say "done: database $target is restored"
