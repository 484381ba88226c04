#!/usr/bin/env bash
#
# restore-chunked.sh: restore a database that was captured in chunks without
# dbbackup, by psql, pg_restore and jq, with zstd or gzip for the chunks.
#
# Usage: restore-chunked.sh SET NAME DATABASE
#
#   SET       the folder of the set, e.g. /srv/backups/cluster-20260102T030405Z;
#             the sets that it refers to stand beside it
#   NAME      the database's name in the set, as its folder below databases is
#             called, without .chunks
#   DATABASE  an empty database that exists: made by databases/NAME.create.sql
#
# It collects no statistics: run vacuumdb --analyze-only afterwards.
#
# Environment: libpq's, for the server. Check the digests first, in SET:
#   sha256sum -c SHA256SUMS
#
# Exit codes: 0 ok, 1 something was refused, 2 usage, 14 a program is missing.

set -euo pipefail

die() { # CODE TEXT
  printf 'restore-chunked.sh: %s\n' "$2" >&2
  exit "$1"
}

(($# == 3)) || die 2 'give SET, NAME and DATABASE; the comment at its top says more'
set_dir=$1 folder=$1/databases/$2.chunks database=$3
contents=$folder/contents.json
[[ -r $contents ]] || die 2 "$contents cannot be read"
for program in psql pg_restore jq; do
  command -v "$program" >/dev/null || die 14 "$program is not installed"
done

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT

# What text stands for depends on these; they are what the rows were read with.
encoding=$(jq -r .encoding "$contents")
PGCLIENTENCODING=UTF8
PGOPTIONS="${PGOPTIONS:-} -c search_path=pg_catalog -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC"
PGOPTIONS+=' -c lc_monetary=C -c array_nulls=on -c xmloption=content -c standard_conforming_strings=on -c statement_timeout=0'
export PGCLIENTENCODING PGOPTIONS

run() { psql -X -q -v ON_ERROR_STOP=1 -d "dbname='$(quote "$database")'" "$@"; }

# quote escapes a value within a connection string.
quote() { printf '%s' "$1" | sed "s/[\\\\']/\\\\&/g"; }

# piece writes a piece, a JSON object, decompressed.
piece() { # JSON
  local set object offset bytes codec
  set=$(jq -r '.set // ""' <<<"$1") object=$(jq -r .object <<<"$1") offset=$(jq -r .offset <<<"$1")
  bytes=$(jq -r .bytes <<<"$1") codec=$(jq -r .codec <<<"$1")
  local file=$set_dir/$object
  [[ -z $set ]] || file=$set_dir/../$set/$object
  { tail -c "+$((offset + 1))" -- "$file" || true; } | head -c "$bytes" | case $codec in
    zstd:*) zstd -dcq ;;
    gzip:*) gzip -dc ;;
    *) cat ;;
  esac
}

# wide loads one row in pieces: each into a temporary table, and from these the row.
wide() { # TABLE ROW
  local script=$work/wide.sql n i format into columns sources=() froms=() names=()
  into=$(jq -r "$identifiers"' if .via then .via else . end | ident(.schema) + "." + ident(.name)' <<<"$1")
  n=$(jq '.pieces | length' <<<"$2")
  printf 'BEGIN;\n' >"$script"
  for ((i = 0; i < n; i++)); do
    piece "$(jq -c ".pieces[$i]" <<<"$2")" >"$work/piece.$i"
    columns=$(jq -r "$identifiers"" .pieces[$i].columns | map(ident(.)) | join(\", \")" <<<"$2")
    format=$(jq -r ".pieces[$i].format" <<<"$2")
    printf 'CREATE TEMP TABLE piece_%d ON COMMIT DROP AS SELECT %s FROM %s WITH NO DATA;\n' "$i" "$columns" "$into" >>"$script"
    printf "\\\\encoding %s\n\\\\copy pg_temp.piece_%d from 'piece.%d' (format %s)\n\\\\encoding UTF8\n" "$encoding" "$i" "$i" "$format" >>"$script"
    names+=("$columns") froms+=("pg_temp.piece_$i")
    sources+=("$(jq -r "$identifiers"" .pieces[$i].columns | map(\"piece_$i.\" + ident(.)) | join(\", \")" <<<"$2")")
  done
  local IFS=,
  printf 'INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s;\nCOMMIT;\n' \
    "$into" "${names[*]}" "${sources[*]}" "${froms[*]}" >>"$script"
  (cd "$work" && run -f "$script") </dev/null
  rm -f "$work"/piece.*
}

# Names within SQL, by jq.
# shellcheck disable=SC2016 # $ is jq's
identifiers='def ident($name): "\"" + ($name | gsub("\""; "\"\"")) + "\"";'

large_objects() {
  piece "$(jq -c .large_objects.metadata "$contents")" >"$work/owners"
  cat >"$work/blobs.sql" <<'SQL'
BEGIN;
CREATE TEMP TABLE owners (oid oid, owner text, acl text, comment text) ON COMMIT DROP;
\copy pg_temp.owners from 'owners' (encoding 'UTF8')
DO $do$
DECLARE o record; g record;
BEGIN
  FOR o IN SELECT * FROM pg_temp.owners ORDER BY oid LOOP
    PERFORM lo_create(o.oid);
    IF o.owner <> '' THEN
      EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %I', o.oid, o.owner);
    END IF;
    IF o.acl <> '' THEN
      IF o.owner <> '' THEN
        EXECUTE format('REVOKE ALL ON LARGE OBJECT %s FROM %I', o.oid, o.owner);
      END IF;
      FOR g IN SELECT * FROM json_to_recordset(o.acl::json) AS x(grantee text, privilege text, grantable boolean) LOOP
        EXECUTE format('GRANT %s ON LARGE OBJECT %s TO ', g.privilege, o.oid)
          || CASE WHEN g.grantee = '' THEN 'PUBLIC' ELSE quote_ident(g.grantee) END
          || CASE WHEN g.grantable AND g.grantee <> o.owner THEN ' WITH GRANT OPTION' ELSE '' END;
      END LOOP;
    END IF;
    IF o.comment <> '' THEN
      EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', o.oid, o.comment);
    END IF;
  END LOOP;
END $do$;
COMMIT;
SQL
  (cd "$work" && run -f blobs.sql)
  jq -c '.large_objects.data[] | select(.rows > 0)' "$contents" | while IFS= read -r chunk; do
    piece "$chunk" >"$work/blobs"
    # shellcheck disable=SC2016 # $do$ is SQL's
    printf '%s\n' 'BEGIN; CREATE TEMP TABLE blobs (oid oid, at bigint, data bytea) ON COMMIT DROP;' \
      "\\copy pg_temp.blobs from 'blobs' (format binary)" \
      'DO $do$ BEGIN PERFORM lo_put(oid, at, data) FROM pg_temp.blobs; END $do$; COMMIT;' >"$work/put.sql"
    (cd "$work" && run -f put.sql)
    rm -f "$work/blobs"
  done
}

target="dbname='$(quote "$database")'"
pg_restore --exit-on-error --section=pre-data -d "$target" "$folder/schema.dump"

jq -c '.tables[]' "$contents" | while IFS= read -r table; do
  load=$(jq -r .load <<<"$table")
  jq -c '.chunks[]' <<<"$table" | while IFS= read -r chunk; do
    if [[ $(jq -r '(.object // "") != "" and .rows > (.wide // [] | length)' <<<"$chunk") == true ]]; then
      piece "$chunk" | PGCLIENTENCODING=$encoding run -c "$load"
    fi
    jq -c '.wide // [] | .[]' <<<"$chunk" | while IFS= read -r row; do wide "$table" "$row"; done
  done
done

if [[ $(jq '.large_objects != null' "$contents") == true ]]; then
  large_objects
fi
jq -r "$identifiers"' .sequences[] | "SELECT setval(s.oid, \(.last), \(.called)) FROM (SELECT tableoid AS oid FROM "
  + ident(.schema) + "." + ident(.name) + ") s;"' "$contents" | run -o /dev/null -f -

pg_restore --exit-on-error --section=post-data -d "$target" "$folder/schema.dump"

# Event triggers, which are there by now, are not meant for this; only a
# superuser can keep them quiet.
quiet=
if [[ $(run -A -t -c "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == t ]]; then
  quiet="SET session_replication_role = replica;"
fi
{
  printf '%s\n' "$quiet"
  jq -r "$identifiers"' .materialized_views[] | select(.populated) |
    "REFRESH MATERIALIZED VIEW " + ident(.schema) + "." + ident(.name) + ";"' "$contents"
} | run -f -
