package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
)

// chosenTables makes relatedTables with views, of which one is filled from
// another one's table.
func chosenTables(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := relatedTables(t, c)
	c.Exec(t, db, `CREATE VIEW app.red AS SELECT * FROM app.item WHERE color = 'red';
		CREATE MATERIALIZED VIEW app.colors AS SELECT color, count(*) FROM app.item GROUP BY 1;
		CREATE MATERIALIZED VIEW app.empty AS SELECT 1 AS one WITH NO DATA; SELECT lo_from_bytea(4711, 'large')`)
	return db
}

// A choice of tables at the backup: their rows are in the set and no others,
// and with them comes what they need.
func TestChunksOfChosenTables(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := chosenTables(t, c)
	for name, tc := range map[string]struct {
		flags  []string
		chosen bool // tables were chosen, and not only left out
		want   []string
		check  string
	}{
		"table":         {[]string{"--table", "app.item"}, true, []string{"item 3"}, "INSERT INTO app.item(color) VALUES ('green') RETURNING id = 4"},
		"partitions":    {[]string{"--table", "app.log"}, true, []string{"log_1 2", "log_2 1"}, "SELECT count(*) = 3 FROM app.log"},
		"schema":        {[]string{"--schema", "app", "--exclude-table", "app.sale"}, true, []string{"item 3", "log_1 2", "log_2 1"}, "SELECT to_regclass('other') IS NULL"},
		"without":       {[]string{"--exclude-table", "app.log_1", "--exclude-table", "sale"}, false, []string{"item 3", "log_1 0", "log_2 1", "other 1", "sale 0"}, "SELECT count(*) = 2 FROM app.colors"},
		"large objects": {[]string{"--exclude-schema", "app"}, false, []string{"item 0", "log_1 0", "log_2 0", "other 1", "sale 0"}, "SELECT lo_get(4711) = 'large'"},
		"none of them":  {[]string{"--skip-large-objects"}, false, []string{"item 3", "log_1 2", "log_2 1", "other 1", "sale 2"}, "SELECT count(*) = 0 FROM pg_largeobject_metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, to := captured(t, c, db, append(tc.flags, "--mode", "chunked")...), c.FreeName(t)
			wantSound(t, store, 1)
			args := restoring(store, db, "--target-db", to)
			if tc.chosen {
				dbbackup(t, c.Env(), args...).want(t, exitNotFound, "some tables")
				args = restoring(store, db, "--target-db", to, "--set", onlySet(t, store))
			}
			dbbackup(t, c.Env(), args...).must(t, exitOK, exitOmissions)
			wantTables(t, c, to, tc.want...)
			if got := c.QueryString(t, to, tc.check); got != "t" {
				t.Errorf("%s: got %s", tc.check, got)
			}
		})
	}
}

// A choice at the restore: views as they are, materialized ones filled if they
// were, and only if they are asked for.
func TestChosenTablesOfChunks(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := chosenTables(t, c)
	store := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB")
	for name, tc := range map[string]struct {
		flags []string
		want  []string
		check string
	}{
		"view":              {[]string{"--table", "item", "--table", "red"}, []string{"item 3"}, "SELECT count(*) = 2 FROM app.red"},
		"materialized view": {[]string{"--table", "item", "--table", "colors"}, []string{"item 3"}, "SELECT sum(count) = 3 FROM app.colors"},
		"unfilled view":     {[]string{"--table", "app.empty"}, nil, "SELECT NOT ispopulated FROM pg_matviews"},
		"schema":            {[]string{"--schema", "public"}, []string{"other 1"}, "SELECT to_regclass('app.item') IS NULL"},
		"no owner":          {[]string{"--no-owner", "--no-acl"}, []string{"item 3", "log_1 2", "log_2 1", "other 1", "sale 2"}, "SELECT lo_get(4711) = 'large'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := c.FreeName(t)
			dbbackup(t, c.Env(), restoring(store, db, append(tc.flags, "--target-db", to)...)...).must(t, exitOK)
			wantTables(t, c, to, tc.want...)
			if got := c.QueryString(t, to, tc.check); got != "t" {
				t.Errorf("%s: got %s", tc.check, got)
			}
		})
	}
}

// --data-only loads into tables that are there: chosen ones too, all or nothing,
// and never twice.
func TestDataOnlyOfChunks(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := chosenTables(t, c)
	store, to := captured(t, c, db, "--mode", "chunked"), c.FreeName(t)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--schema-only")...).must(t, exitOK)
	wantTables(t, c, to, "item 0", "log_1 0", "log_2 0", "other 0", "sale 0")
	into := func(tables ...string) []string {
		args := []string{"--target-db", to, "--data-only"}
		for _, table := range tables {
			args = append(args, "--table", table)
		}
		return restoring(store, db, args...)
	}
	dbbackup(t, c.Env(), into("item", "log_1")...).must(t, exitOK)
	wantTables(t, c, to, "item 3", "log_1 2", "log_2 0", "other 0", "sale 0")
	dbbackup(t, c.Env(), into("sale", "item")...).want(t, exitPrecondition, "app.item", "doubled")
	c.Exec(t, to, "ALTER TABLE app.sale ADD CHECK (amount < 20)")
	dbbackup(t, c.Env(), into("sale", "other")...).want(t, exitFailed, "app.sale")
	wantTables(t, c, to, "item 3", "log_1 2", "log_2 0", "other 0", "sale 0")
	c.Exec(t, to, "ALTER TABLE app.sale DROP CONSTRAINT sale_amount_check")
	dbbackup(t, c.Env(), into("sale", "other", "log_2")...).must(t, exitOK)
	wantTables(t, c, to, "item 3", "log_1 2", "log_2 1", "other 1", "sale 2")
}

// T38: a chunk is lost. What lies in others can still be had, and the
// definitions can.
func TestT38LostChunk(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, to, empty := family(t, c), c.FreeName(t), c.FreeName(t)
	store := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB")
	id := onlySet(t, store)
	lost := chunkOf(t, filepath.Join(store, id), db, "child")
	if err := os.Remove(filepath.Join(store, id, lost)); err != nil {
		t.Fatal(err)
	}
	args := func(more ...string) []string { return restoring(store, db, append(more, "--set", id)...) }
	got := inProcess(t, nil, "verify", id, "--store", store)
	if got.want(t, exitIntegrity); !strings.Contains(got.stdout, lost) || !strings.Contains(got.stdout, "public.child") {
		t.Errorf("verify: got %s, want %s and its table named", got.stdout, lost)
	}
	for _, choice := range [][]string{nil, {"--table", "child"}, {"--table", "child", "--table", "parent"}} {
		dbbackup(t, c.Env(), args(append(choice, "--target-db", to)...)...).want(t, exitIntegrity, lost, "nothing was written")
	}
	if hasDatabase(t, c, to) || unfinished(t, c, to) != "" {
		t.Errorf("databases after the refusals: %q", databasesOf(t, c))
	}
	dbbackup(t, c.Env(), args("--table", "parent", "--target-db", to)...).want(t, exitOK)
	wantTables(t, c, to, "parent 4000")
	dbbackup(t, c.Env(), args("--schema-only", "--target-db", empty)...).want(t, exitOK)
	wantTables(t, c, empty, "child 0", "parent 0")
}

// chunkOf is an object in which nothing but rows of a table lie.
func chunkOf(t testing.TB, set, db, table string) string {
	t.Helper()
	tables := map[string]map[string]bool{}
	contents := readContents(t, filepath.Join(set, "databases", db+".chunks", backupset.ContentsName))
	contents.Pieces(func(t *backupset.ChunkedTable, p *backupset.Piece) {
		if tables[p.Object] == nil {
			tables[p.Object] = map[string]bool{}
		}
		if t != nil {
			tables[p.Object][t.Name] = true
		}
	})
	for object, of := range tables {
		if len(of) == 1 && of[table] {
			return object
		}
	}
	t.Fatalf("no chunk of %s alone: %v", table, tables)
	return ""
}

// The flags of the native engine, where they make no sense and where they are capped.
func TestFlagsOfTheNativeEngine(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	for _, tc := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--mode", "chunked", "--compression", "zstd:9"}, exitOK, "6 is used"},
		{[]string{"--mode", "chunked", "--compression", "gzip:2"}, exitOK, ""},
		{[]string{"--mode", "chunked", "--compression", "none"}, exitOK, ""},
		{[]string{"--mode", "chunked", "--parallel-tables", "3"}, exitOK, ""},
		{[]string{"--mode", "chunked", "--max-connections", "5", "--jobs", "8"}, exitOK, ""},
		{[]string{"--mode", "custom", "--compression", "zstd:1"}, exitUsage, "not for mode custom"},
		{[]string{"--mode", "chunked", "--compression", "lz4"}, exitUsage, "lz4"},
		{[]string{"--mode", "chunked", "--compression", "zstd:x"}, exitUsage, "compression level x"},
		{[]string{"--mode", "chunked", "--max-connections", "4"}, exitUsage, "5 connections"},
		{[]string{"--mode", "chunked", "--chunk-size", "8000"}, exitUsage, "smaller than a page"},
		{[]string{"--mode", "chunked", "--chunk-size", "some"}, exitUsage, "chunk-size"},
		{[]string{"--mode", "chunked", "--max-rate", "-1"}, exitUsage, "max-rate"},
		{[]string{"--mode", "custom", "--incremental"}, exitUsage, "incremental"},
		{[]string{"--mode", "chonked"}, exitUsage, "chonked"},
	} {
		t.Run(strings.Join(tc.args, " "), func(t *testing.T) {
			store := newStore(t)
			got := dbbackup(t, c.Env(), append([]string{"backup", "single", db, "--store", store}, tc.args...)...)
			if got.want(t, tc.code, tc.text); tc.code == exitOK {
				wantSound(t, store, 1)
				to := c.FreeName(t)
				dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
				wantTables(t, c, to, "accounts 300", "branches 200")
			} else {
				wantEmpty(t, store)
			}
		})
	}
}

// --max-connections holds for all sessions of a run, its watchers and pg_dump
// included.
func TestMaxConnectionsHolds(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	for i := range 3 {
		c.CreateDatabase(t, fmt.Sprintf("db%d", i))
		c.Exec(t, fmt.Sprintf("db%d", i), "CREATE TABLE t AS SELECT g, repeat('x', 1000) FROM generate_series(1, 3000) g")
	}
	r := start(t, c.Env(), "backup", "cluster", "--store", newStore(t), "--mode", "chunked", "--chunk-size", "64kB", "--max-rate", "2MB",
		"--max-connections", "7", "--parallel-databases", "4", "--jobs", "8")
	most, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		_ = r.cmd.Wait()
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
			most = max(most, len(c.Query(t, "postgres", "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'dbbackup%' AND backend_type = 'client backend'")))
		}
	}
	if r.cmd.ProcessState.ExitCode() != exitOK || most > 7 || most < 4 {
		t.Errorf("exit code %d with %d sessions at most, want 0 with some and at most 7\n%s", r.cmd.ProcessState.ExitCode(), most, r.stderr)
	}
}

// COPY's binary form wherever it means the same in another database, when it is
// asked for; chunks of the other form are not what such a run may refer to.
func TestCopyFormat(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, `CREATE TYPE color AS ENUM ('red', 'green'); CREATE TYPE pair AS (a int, b text);
		CREATE TABLE portable (i int, n numeric(12,2), d double precision, w timestamptz, t text, j jsonb, e color, a int[], r int4range, u uuid, v interval);
		INSERT INTO portable SELECT g, g / 7.0, 1.0 / g, '2020-01-01'::timestamptz + g * interval '1 day', repeat('ä', g), jsonb_build_object('k', g),
			(ARRAY['red', 'green'])[g % 2 + 1]::color, ARRAY[g, NULL], int4range(g, g + 5), md5(g::text)::uuid, g * interval '1 month 2 hours'
			FROM generate_series(1, 50) g;
		INSERT INTO portable (n, d, w) VALUES ('NaN', '-0', '-infinity');
		CREATE TABLE composite (p pair); INSERT INTO composite VALUES ((1, 'x'));
		CREATE TABLE names (r regclass); INSERT INTO names VALUES ('portable');
		CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES;
		CREATE TABLE blobs (b bytea); INSERT INTO blobs VALUES ('\x00ff')`)
	store := newStore(t)
	for _, tt := range []struct {
		flags []string
		want  map[string]string
	}{
		{nil, map[string]string{"portable": "text", "composite": "text", "names": "text", "nothing": "text", "blobs": "binary"}},
		{[]string{"--copy-format", "binary", "--incremental"}, map[string]string{"portable": "binary", "composite": "text", "names": "text", "nothing": "binary", "blobs": "binary"}},
	} {
		dbbackup(t, c.Env(), chunking(store, db, tt.flags...)...).must(t, exitOK)
		got := map[string]string{}
		ids := idsOf(t, store)
		contents := readContents(t, filepath.Join(store, ids[len(ids)-1], "databases", db+".chunks", backupset.ContentsName))
		for i := range contents.Tables {
			got[contents.Tables[i].Name] = contents.Tables[i].Format
		}
		if !maps.Equal(got, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.flags, got, tt.want)
		}
		to := c.FreeName(t)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
		for _, table := range []string{"portable", "composite", "names", "nothing", "blobs"} {
			rows := "SELECT string_agg(t::text, E'\\n' ORDER BY t::text) FROM " + table + " t"
			if got, want := c.QueryString(t, to, rows), c.QueryString(t, db, rows); got != want {
				t.Errorf("%q, table %s: got %s, want %s", tt.flags, table, got, want)
			}
		}
	}
	dbbackup(t, c.Env(), chunking(store, db, "--copy-format", "text")...).want(t, exitUsage, `no copy format "text"`, "auto or binary")
}
