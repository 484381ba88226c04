package main

import (
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// usedDefaults runs a cluster whose user works in postgres and template1, as
// many do.
func usedDefaults(t *testing.T) *pgtest.Cluster {
	t.Helper()
	c := shared.Start(t)
	for _, db := range []string{"postgres", "template1"} {
		c.Exec(t, db, `CREATE SCHEMA mine; CREATE TABLE mine.note AS SELECT g, md5(g::text) FROM generate_series(1, 50) g;
			CREATE INDEX ON mine.note(g); SELECT lo_from_bytea(4711, 'large'); ALTER DATABASE `+db+` SET work_mem = '5MB';
			COMMENT ON DATABASE `+db+` IS 'used'; GRANT CREATE ON DATABASE `+db+` TO pg_monitor`)
	}
	return c
}

// A cluster's own postgres and template1 come back: in place on a server like
// the source, and as new databases in the place of the empty ones on one with
// another encoding.
func TestDatabasesOfInitdbComeBack(t *testing.T) {
	t.Parallel()
	source := usedDefaults(t)
	eachMode(t, func(t *testing.T, mode string) {
		store := newStore(t)
		dbbackup(t, source.Env(), "backup", "cluster", "--store", store, "--mode", mode).must(t, exitOK)
		restore := []string{"restore", "cluster", "--store", store}
		target := shared.Start(t)
		if mode == "directory" {
			target = shared.Start(t, pgtest.WithInitdbArgs("--encoding=LATIN1", "--locale=C"))
		}
		dbbackup(t, target.Env(), restore...).must(t, exitOK)
		compareClusters(t, source, target)
		target.Database(t) // template1 is a template still
		dbbackup(t, target.Env(), restore...).want(t, exitPrecondition, "database postgres exists", "database template1 exists")
	})
}

// Filling in place is all or nothing.
func TestRefusedFillLeavesTheDatabaseEmpty(t *testing.T) {
	t.Parallel()
	source := shared.Start(t)
	source.Exec(t, "postgres", `CREATE TABLE before AS SELECT 1 AS one; CREATE TABLE twins(k int); CREATE UNIQUE INDEX only_once ON twins(k);
		INSERT INTO twins VALUES (7); UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'only_once'::regclass`)
	source.Exec(t, "postgres", `INSERT INTO twins VALUES (7)`)
	source.Exec(t, "postgres", `UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'only_once'::regclass`)
	target := shared.Start(t)
	for _, mode := range []string{"custom", "plain"} {
		store := newStore(t)
		dbbackup(t, source.Env(), "backup", "cluster", "--store", store, "--mode", mode).must(t, exitOK)
		dbbackup(t, target.Env(), "restore", "cluster", "--store", store).want(t, exitFailed, "database postgres", "only_once")
		wantTables(t, target, "postgres")
	}
}

// Roles that exist are kept as they are, and what differs is said.
func TestRolesThatExistAreKept(t *testing.T) {
	t.Parallel()
	source, target := shared.Start(t), shared.Start(t)
	source.Exec(t, "postgres", `CREATE ROLE app LOGIN CREATEDB PASSWORD 'theirs'; CREATE ROLE team; GRANT team TO app; CREATE ROLE fresh LOGIN PASSWORD 'new'`)
	target.Exec(t, "postgres", `CREATE ROLE app NOLOGIN PASSWORD 'ours'; CREATE ROLE team`)
	const roles = `SELECT rolname, rolcanlogin, rolcreatedb, md5(rolpassword) FROM pg_authid WHERE rolname = 'app'`
	before := target.Query(t, "postgres", roles)
	store := newStore(t)
	dbbackup(t, source.Env(), "backup", "cluster", "--store", store).must(t, exitOK)
	r := dbbackup(t, target.Env(), "restore", "cluster", "--store", store)
	r.want(t, exitOK, "role app exists and is kept", "NOLOGIN", "NOCREATEDB", "app and team exist and are kept")
	if after := target.Query(t, "postgres", roles); after[0][3] != before[0][3] || after[0][1] != "f" || after[0][2] != "f" {
		t.Errorf("role app: got %v, want %v", after, before)
	}
	if strings.Contains(r.stderr+r.stdout, "SCRAM") {
		t.Error("a password verifier was printed")
	}
	const fresh = `SELECT rolpassword FROM pg_authid WHERE rolname = 'fresh'`
	if got, want := target.QueryString(t, "postgres", fresh), source.QueryString(t, "postgres", fresh); got != want {
		t.Errorf("password verifier of a new role: got %s, want %s", got, want)
	}
}

// T72: a tablespace comes back with its properties when its place is there.
func TestT72TablespaceComesBack(t *testing.T) {
	t.Parallel()
	source, target := shared.Start(t), shared.Start(t)
	makeTablespace(t, source, "fast")
	source.Exec(t, "postgres", `CREATE ROLE app; ALTER TABLESPACE fast OWNER TO app; GRANT CREATE ON TABLESPACE fast TO pg_monitor`)
	source.Exec(t, "postgres", `ALTER TABLESPACE fast SET (random_page_cost = 1.5)`)
	source.Exec(t, "postgres", `COMMENT ON TABLESPACE fast IS 'quick'; CREATE TABLE here(i int) TABLESPACE fast`)
	const facts = `SELECT spcowner::regrole, spcoptions, spcacl, shobj_description(oid, 'pg_tablespace'), pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'`
	want := source.Query(t, "postgres", facts)
	store := newStore(t)
	dbbackup(t, source.Env(), "backup", "cluster", "--store", store).must(t, exitOK)
	source.Exec(t, "postgres", "DROP TABLE here")
	source.Exec(t, "postgres", "DROP TABLESPACE fast") // one machine, one place
	dbbackup(t, target.Env(), "restore", "cluster", "--store", store).must(t, exitOK)
	if got := target.Query(t, "postgres", facts); strings.Join(got[0], " ") != strings.Join(want[0], " ") {
		t.Errorf("tablespace: got %q, want %q", got, want)
	}
	if got := target.QueryString(t, "postgres", "SELECT spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = reltablespace WHERE relname = 'here'"); got != "fast" {
		t.Errorf("tablespace of table here: got %s, want fast", got)
	}
}

// What a restore left, or still fills, is no database of the cluster's, until
// somebody gives it a name.
func TestUnfinishedRestoreIsNotCaptured(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	const left, named = "dbbackup_restoring_0123abcd", "rescued"
	for _, name := range []string{left, named} {
		c.Exec(t, "postgres", "CREATE DATABASE "+name)
		c.Exec(t, "postgres", "COMMENT ON DATABASE "+name+" IS 'dbbackup: unfinished restore of database a from set b, to become c'")
	}
	store := newStore(t)
	dbbackup(t, c.Env(), "backup", "cluster", "--store", store).want(t, exitOmissions)
	m := manifestOf(t, store)
	wantOmission(t, m, left, "the whole database")
	var names []string
	for _, d := range m.Databases {
		names = append(names, d.Name)
	}
	if slices.Contains(names, left) || !slices.Contains(names, named) {
		t.Errorf("captured %q", names)
	}
	dbbackup(t, c.Env(), "backup", "single", left, "--store", store).want(t, exitOK) // as asked for
}
