package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// keyless makes a database of tables without keys, with rows that are there twice,
// whose restore waits in every hundredth row for as long as test.wait says, and in
// its last index while test.slow is on.
func keyless(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := slowDatabase(t, c)
	c.Exec(t, db, `CREATE FUNCTION wait(x int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN PERFORM pg_sleep(coalesce(nullif(current_setting('test.wait', true), '')::float, 0)); RETURN true; END $$;
		CREATE TABLE a(id int CHECK (id % 100 <> 0 OR wait(id)), note text); CREATE TABLE b (LIKE a INCLUDING ALL);
		INSERT INTO a SELECT g / 2, (SELECT string_agg(md5((g / 2 * 1000 + i)::text), '') FROM generate_series(1, 30) i) FROM generate_series(1, 3000) g;
		INSERT INTO b SELECT id, reverse(note) FROM a;
		CREATE INDEX ON a(id); CREATE TABLE c AS SELECT DISTINCT id FROM a; ALTER TABLE c ADD UNIQUE (id); ALTER TABLE b ADD FOREIGN KEY (id) REFERENCES c(id);
		CREATE MATERIALIZED VIEW sums AS SELECT sum(id) FROM b; CREATE SEQUENCE s; SELECT nextval('s'), nextval('s');
		SELECT lo_from_bytea(0, convert_to(repeat('large', 1000), 'UTF8')) FROM generate_series(1, 20)`)
	return db
}

// wantQuiet checks that nothing of the going on is left in a restored database.
func wantQuiet(t testing.TB, c *pgtest.Cluster, to string) {
	t.Helper()
	for _, sql := range []string{
		"SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'dbbackup%'",
		"SELECT count(*) FROM pg_index WHERE NOT indisvalid", "SELECT count(*) FROM pg_constraint WHERE NOT convalidated",
	} {
		if got := c.QueryString(t, to, sql); got != "0" {
			t.Errorf("%s: got %s", sql, got)
		}
	}
	if left := unfinished(t, c, to); left != "" {
		t.Errorf("database %s is left", left)
	}
}

// loaded is how many chunks a restore that is not over has loaded, as its ledger says.
func loaded(t testing.TB, c *pgtest.Cluster, to string) int {
	t.Helper()
	temporary := unfinished(t, c, to)
	if temporary == "" {
		return 0
	}
	// Before it has a ledger, an attempt that was killed is replaced, and whoever
	// looks at it is sent away.
	conn, err := c.Dial(t.Context(), temporary)
	if err != nil {
		return 0
	}
	defer func() { _ = conn.Close(t.Context()) }()
	var n int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM dbbackup_restore.ledger WHERE step LIKE 'chunk %'").Scan(&n); err != nil {
		return 0
	}
	return n
}

// T75, R3: a restore is killed again and again, and goes on until it is done. No
// row is there twice that was once, and none is missing.
func TestT75KilledRestoreGoesOn(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := keyless(t, c)
	store, to := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB"), c.FreeName(t)
	args := restoring(store, db, "--target-db", to, "--jobs", "2")
	paced := append(c.Env(), "PGOPTIONS=-c test.wait=0.05")

	made := start(t, paced, args...)
	eventually(t, "the database is made", func() bool { return unfinished(t, c, to) != "" })
	made.kill(t)
	before := 0
	for _, least := range []int{4, 15, 40} { // of about 100
		r := start(t, paced, args...)
		eventually(t, fmt.Sprintf("%d chunks are loaded", least), func() bool { return loaded(t, c, to) >= least })
		r.kill(t)
		if now := loaded(t, c, to); now < before {
			t.Errorf("%d chunks were loaded, and now %d: it began anew", before, now)
		} else {
			before = now
		}
	}
	killBetweenRowsAndLedger(t, c, to, start(t, paced, args...), before)
	for range 3 { // slower, so that none of them comes to the end
		r := start(t, append(c.Env(), "PGOPTIONS=-c test.wait=0.2"), args...)
		time.Sleep(rand.N(700 * time.Millisecond))
		r.kill(t)
	}
	indexing := start(t, append(c.Env(), slowly), args...)
	temporary := awaitSlow(t, c, to)
	indexing.kill(t)
	if left := unfinished(t, c, to); left != temporary {
		t.Fatalf("the killed restore left %q, want %q", left, temporary)
	}
	dbbackup(t, c.Env(), args...).want(t, exitOK, "going on with an interrupted restore")
	zoo.Compare(t, c, db, c, to)
	wantQuiet(t, c, to)
}

// killBetweenRowsAndLedger kills a restore whose sessions have sent the rows of a
// chunk, and wait to note it: the rows must be gone with the note.
func killBetweenRowsAndLedger(t testing.TB, c *pgtest.Cluster, to string, r *running, before int) {
	t.Helper()
	eventually(t, "it has gone on", func() bool { return loaded(t, c, to) > before })
	temporary := unfinished(t, c, to)
	holder := c.Connect(t, temporary)
	if _, err := holder.Exec(t.Context(), "BEGIN; LOCK TABLE dbbackup_restore.ledger IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	waiting := " FROM pg_stat_activity WHERE datname = '" + temporary + "' AND wait_event_type = 'Lock' AND query LIKE '%ledger%'"
	eventually(t, "both sessions wait to note their chunk", func() bool { return c.QueryString(t, "postgres", "SELECT count(*)"+waiting) == "2" })
	r.kill(t)
	c.Exec(t, "postgres", "SELECT pg_terminate_backend(pid, 5000)"+waiting)
	if err := holder.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// T08, T75: a signal leaves the database to be gone on with, and says so.
func TestT08SignalledRestoreGoesOn(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := keyless(t, c)
	store, to, mark := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB"), c.FreeName(t), marker(t)
	args := restoring(store, db, "--target-db", to, "--jobs", "2")
	r := start(t, append(c.Env(), mark, "PGOPTIONS=-c test.wait=0.05"), args...)
	eventually(t, "chunks are loaded", func() bool { return loaded(t, c, to) >= 10 })
	r.wantStopped(t, syscall.SIGTERM)
	temporary := unfinished(t, c, to)
	if out := r.stderr.String(); temporary == "" || !strings.Contains(out, "kept as database "+temporary) || !strings.Contains(out, "hint: run the same restore again") {
		t.Errorf("standard error: got %s\nwant what is kept as %q, and how to go on", out, temporary)
	}
	wantNoTrace(t, c, temporary, mark)
	dbbackup(t, c.Env(), args...).want(t, exitOK, "going on with an interrupted restore")
	zoo.Compare(t, c, db, c, to)
	wantQuiet(t, c, to)
}

// A restore that asks for something else does not go on with what an interrupted
// one left, nor does one of another set.
func TestT75OtherOptionsBeginAnew(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := keyless(t, c)
	store, to := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB"), c.FreeName(t)
	r := start(t, append(c.Env(), "PGOPTIONS=-c test.wait=0.05"), restoring(store, db, "--target-db", to)...)
	eventually(t, "chunks are loaded", func() bool { return loaded(t, c, to) >= 10 })
	r.kill(t)
	got := dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--table", "b", "--table", "c")...)
	got.want(t, exitOK, "dropping what an earlier attempt left")
	if strings.Contains(got.stderr, "going on") {
		t.Error("it went on with a restore of other options")
	}
	wantTables(t, c, to, "b 3000", "c 1501")
	wantQuiet(t, c, to)
}

// The server crashes under a restore: what it has not made durable is loaded again.
func TestT75RestoreGoesOnAfterTheTargetCrashed(t *testing.T) {
	t.Parallel()
	source, c := shared.Cluster(t), shared.Start(t)
	db := keyless(t, source)
	store, to := captured(t, source, db, "--mode", "chunked", "--chunk-size", "64kB"), "back"
	args := restoring(store, db, "--target-db", to, "--jobs", "2")
	r := start(t, append(c.Env(), "PGOPTIONS=-c test.wait=0.05"), args...)
	eventually(t, "chunks are loaded", func() bool { return loaded(t, c, to) >= 20 })
	c.Kill(t)
	r.wait(t).want(t, exitFailed, "kept as database", "hint: run the same restore again")
	c.Restart(t)
	dbbackup(t, c.Env(), args...).want(t, exitOK, "going on with an interrupted restore")
	zoo.Compare(t, source, db, c, to)
	wantQuiet(t, c, to)
}

// R3 must not make anybody forget what the target refused: a restore that is run
// again begins anew, and is refused the same.
func TestRefusedRestoreOfChunksIsNotGoneOnWith(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := keyless(t, c)
	c.Exec(t, db, `CREATE FUNCTION lost() RETURNS int LANGUAGE c AS '$libdir/citext', 'citext_eq';
		UPDATE pg_proc SET prosrc = 'no_such_symbol' WHERE proname = 'lost'`)
	store, to := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB"), c.FreeName(t)
	killed := start(t, append(c.Env(), "PGOPTIONS=-c test.wait=0.05"), restoring(store, db, "--target-db", to)...)
	eventually(t, "chunks are loaded", func() bool { return loaded(t, c, to) >= 10 })
	killed.kill(t)
	for range 2 {
		r := dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--json")...)
		r.want(t, exitFailed, "no_such_symbol")
		kept := restoredResult(t, r).KeptAs
		if kept == "" || hasDatabase(t, c, to) {
			t.Fatalf("kept as %q; databases %q", kept, databasesOf(t, c))
		}
		if n := c.QueryString(t, kept, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'dbbackup%'"); n != "0" {
			t.Error("the ledger is left in the database that is kept")
		}
		if n := c.QueryString(t, kept, "SELECT count(*) FROM accounts"); n != "300" {
			t.Errorf("rows of what is kept: got %s, want 300", n)
		}
	}
	c.DropDatabase(t, unfinished(t, c, to))
}

// Security labels of large objects are captured, and asked for again. A provider
// that the target has not loaded refuses them, which is said once; the rest is there.
func TestSecurityLabelsOfLargeObjects(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, to := c.Database(t), c.FreeName(t)
	// No provider comes with PostgreSQL's packages, so the catalog is written to.
	c.Exec(t, db, `SELECT lo_from_bytea(4710 + i, 'large') FROM generate_series(1, 250) i; COMMENT ON LARGE OBJECT 4711 IS 'plain';
		SET allow_system_table_mods = on;
		INSERT INTO pg_seclabel SELECT 4710 + i, 'pg_largeobject'::regclass, 0, 'Odd "provider"', E'secret\t''\\ ' || i FROM generate_series(2, 250) i`)
	store := captured(t, c, db, "--mode", "chunked")
	got := dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...)
	got.want(t, exitFailed, `ON LARGE OBJECT 4712, and all after it: `, `security label provider "Odd "provider"" is not loaded`)
	if n := strings.Count(got.stderr, "  - SECURITY LABEL"); n > 1 {
		t.Errorf("the provider is named %d times", n)
	}
	left := unfinished(t, c, to)
	if n := c.QueryString(t, left, "SELECT count(*) || obj_description(4711, 'pg_largeobject') FROM pg_largeobject_metadata WHERE lo_get(oid) = 'large'"); n != "250plain" {
		t.Errorf("large objects that came back: got %s, want 250plain", n)
	}
}
