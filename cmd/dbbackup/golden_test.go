package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// goldenStore is a copy of a store with one set of format version 1, which
// this program wrote from PostgreSQL 15. It must be readable for ever (F1, T44).
// Its databases hold the same content, one in each mode.
func goldenStore(t *testing.T) string {
	t.Helper()
	store := newStore(t)
	if err := os.CopyFS(store, os.DirFS(filepath.Join("testdata", "golden-v1"))); err != nil {
		t.Fatal(err)
	}
	return store
}

// goldenRows is what the source said of table app.item when the set was made:
// the number of rows, and the sum of their hashes.
const goldenRows = "100 39712877220104548597"

func TestT44GoldenSetOfVersion1StillRestores(t *testing.T) {
	t.Parallel()
	store := goldenStore(t)
	dbbackup(t, nil, "verify", "latest", "--store", store, "--pg-bin", pgtest.BinDir(t, 0)).want(t, exitOK)
	target := shared.Start(t)
	dbbackup(t, target.Env(), "restore", "cluster", "--store", store, "--pg-bin", target.BinDir).must(t, exitOK)
	for _, mode := range []string{"custom", "plain", "directory"} {
		db := "golden_" + mode
		for _, tt := range []struct{ what, sql, want string }{
			{"rows", "SELECT count(*) || ' ' || sum(hashtextextended(t::text, 0)) FROM app.item t", goldenRows},
			{"partitions", "SELECT string_agg(n::text, ' ' ORDER BY n) FROM (SELECT count(*) n FROM app.part GROUP BY tableoid) p", "10 90"},
			{"large object", "SELECT convert_from(lo_get(424242), 'UTF8')", "golden bytes"},
			{"owner", "SELECT datdba::regrole::text FROM pg_database WHERE datname = current_database()", "golden_owner"},
			{"comment", "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()", "golden"},
			{"setting", "SHOW timezone", "UTC"},
			{"privilege", "SELECT has_table_privilege('golden_reader', 'app.item', 'SELECT')::text", "true"},
			{"member", "SELECT pg_has_role('golden_owner', 'golden_reader', 'MEMBER')::text", "true"},
		} {
			if got := target.QueryString(t, db, tt.sql); got != tt.want {
				t.Errorf("%s of %s: got %q, want %q", tt.what, db, got, tt.want)
			}
		}
	}
}

// The second of the two sets of format versions 2 and 3 refers to the first.
func TestT44GoldenSetsOfVersions2And3StillRestore(t *testing.T) {
	t.Parallel()
	testdata := filepath.Join("..", "..", "internal", "backupset", "testdata")
	keys := t.TempDir()
	for _, name := range []string{identityFile, trustedFile} {
		writeFile(t, filepath.Join(keys, name), readFile(t, filepath.Join(testdata, "golden-v3-keys", name)), 0o600)
	}
	target := shared.Start(t)
	target.Exec(t, "postgres", "CREATE ROLE keeper")
	type content struct{ what, sql, want string }
	v2 := []content{
		{"files", "SELECT count(*)::text FROM files WHERE body = decode(md5(id::text), 'hex')", "20"},
		{"odd name", `SELECT a FROM "odd ""name""\é"`, "tab\there"},
		{"sequence", "SELECT last_value::text FROM counter", "9007199254740993"},
		{"large object", "SELECT convert_from(lo_get(40000), 'UTF8')", "large object"},
	}
	v3 := []content{
		{"log", "SELECT count(*) || ' ' || sum(id) FROM log", "300 45150"},
		{"sequence", "SELECT last_value::text FROM far", "9007199254740993"},
		{"large object", "SELECT convert_from(lo_get(424242), 'SQL_ASCII')", "golden bytes"},
	}
	for _, golden := range []struct {
		folder, set, notes string
		holds              []content
		args               []string
	}{
		{"golden-v2", "golden-20261125T084542Z", "50", v2, nil},
		{"golden-v2", "golden-20261125T084545Z", "51", v2, nil},
		{"golden-v3", "golden-20261128T201555Z", "50", v3, []string{"--keys", keys}},
		{"golden-v3", "golden-20261128T201558Z", "51", v3, []string{"--keys", keys}},
	} {
		store := newStore(t)
		if err := os.CopyFS(store, os.DirFS(filepath.Join(testdata, golden.folder))); err != nil {
			t.Fatal(err)
		}
		args := append([]string{"--store", store, "--pg-bin", target.BinDir}, golden.args...)
		dbbackup(t, nil, append([]string{"verify", golden.set}, args...)...).want(t, exitOK)
		db := strings.ReplaceAll(golden.folder, "-", "_") + "_" + golden.notes
		dbbackup(t, target.Env(), append([]string{"restore", "single", "golden", "--set", golden.set, "--target-db", db}, args...)...).must(t, exitOK)
		for _, tt := range append([]content{{"notes", "SELECT count(*)::text FROM notes", golden.notes}}, golden.holds...) {
			if got := target.QueryString(t, db, tt.sql); got != tt.want {
				t.Errorf("%s of %s: got %q, want %q", tt.what, golden.set, got, tt.want)
			}
		}
	}
}
