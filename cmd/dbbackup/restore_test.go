package main

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// captured backs a database up and returns the store.
func captured(t testing.TB, c *pgtest.Cluster, db string, args ...string) string {
	t.Helper()
	store := newStore(t)
	args = append([]string{"backup", "single", "--store", store}, args...)
	dbbackup(t, c.Env(), append(args, "--", db)...).must(t, exitOK, exitOmissions)
	return store
}

// restoring is the command line that restores a database of a store.
func restoring(store, db string, args ...string) []string {
	return append(append([]string{"restore", "single", "--store", store, "--no-analyze"}, args...), "--", db)
}

// databasesOf lists the databases of a cluster.
func databasesOf(t testing.TB, c *pgtest.Cluster) []string {
	t.Helper()
	var names []string
	for _, row := range c.Query(t, "postgres", "SELECT datname FROM pg_database ORDER BY 1") {
		names = append(names, row[0])
	}
	return names
}

func hasDatabase(t testing.TB, c *pgtest.Cluster, name string) bool {
	t.Helper()
	return slices.Contains(databasesOf(t, c), name)
}

// unfinished returns the name of the database that a restore to a name has not
// finished, or nothing.
func unfinished(t testing.TB, c *pgtest.Cluster, name string) string {
	t.Helper()
	for _, row := range c.Query(t, "postgres", `SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
		WHERE datname LIKE 'dbbackup\_restoring\_%'`) {
		if strings.HasSuffix(row[1], "to become "+name) {
			return row[0]
		}
	}
	return ""
}

// refusedDatabase makes a database that pg_dump reads and no server takes back
// in whole: a constraint calls a function that finds its table only by a search
// path, and a unique index has been bypassed.
func refusedDatabase(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	c.Exec(t, db, `CREATE SCHEMA app; SET search_path = app;
		CREATE TABLE least(v int); INSERT INTO least VALUES (0);
		CREATE FUNCTION enough(x int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN x > (SELECT max(v) FROM least); END';
		CREATE TABLE checked(x int CHECK (enough(x))); INSERT INTO checked VALUES (1), (2);
		CREATE TABLE good AS SELECT g FROM generate_series(1, 100) g;
		CREATE TABLE twins(k int); CREATE UNIQUE INDEX only_once ON twins(k); INSERT INTO twins VALUES (7);
		UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'only_once'::regclass`)
	c.Exec(t, db, `INSERT INTO app.twins VALUES (7)`)
	c.Exec(t, db, `UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'app.only_once'::regclass`)
	return db
}

// restoredResult is what restore prints with --json.
func restoredResult(t testing.TB, r result) restoredDatabase {
	t.Helper()
	var all restoredJSON
	r.decode(t, &all)
	if len(all.Databases) != 1 {
		t.Fatalf("restored databases: got %d, want 1", len(all.Databases))
	}
	return all.Databases[0]
}

// T73, T76: what the server refuses is named, the rest is there under the
// temporary name that the message gives, and the real name is not taken.
func TestT73T76RefusedObjectsAreNamedAndTheRestIsKept(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := refusedDatabase(t, c)
	for _, mode := range []string{"custom", "directory", "chunked"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			store, to := captured(t, c, db, "--mode", mode), c.FreeName(t)
			r := dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--json")...)
			got := restoredResult(t, r)
			t.Cleanup(func() { c.DropDatabase(t, got.KeptAs) })
			r.want(t, exitFailed, "checked", "only_once", got.KeptAs, `RENAME TO "`+to+`"`)
			if len(got.Refused) != 2 {
				t.Errorf("refused objects: got %q, want checked's rows and only_once", got.Refused)
			}
			if hasDatabase(t, c, to) {
				t.Errorf("database %s has its name, and is not whole", to)
			}
			if rows := c.QueryString(t, got.KeptAs, "SELECT count(*) FROM app.good"); rows != "100" {
				t.Errorf("rows of a table that nothing was wrong with: got %s, want 100", rows)
			}
		})
	}
}

// A restore that was killed between making its database and marking it does
// not stand in the way of the next one; a database of that name that holds
// something is not touched.
func TestUnmarkedEmptyDatabaseOfAKilledRestoreIsReplaced(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := refusedDatabase(t, c)
	store, to := captured(t, c, db, "--mode", "custom"), c.FreeName(t)
	restore := restoring(store, db, "--target-db", to, "--json")
	temporary := restoredResult(t, dbbackup(t, c.Env(), restore...)).KeptAs
	t.Cleanup(func() { c.DropDatabase(t, temporary) })

	c.DropDatabase(t, temporary)
	c.CreateDatabase(t, temporary)
	if again := restoredResult(t, dbbackup(t, c.Env(), restore...)); again.KeptAs != temporary || len(again.Refused) != 2 {
		t.Errorf("over an empty database: got %+v, want the restore to come as far as before", again)
	}

	c.DropDatabase(t, temporary)
	c.CreateDatabase(t, temporary)
	c.Exec(t, temporary, "CREATE TABLE somebodys AS SELECT 1")
	dbbackup(t, c.Env(), restore...).want(t, exitFailed, temporary, "already exists")
	if !slices.Contains(databasesOf(t, c), temporary) || c.QueryString(t, temporary, "SELECT count(*) FROM somebodys") != "1" {
		t.Error("a database with a table was dropped")
	}
}

// T73: psql stops at the first error, which is named all the same.
func TestT73PlainStopsAtTheFirstRefusal(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := refusedDatabase(t, c)
	store, to := captured(t, c, db, "--mode", "plain"), c.FreeName(t)
	r := dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--json")...)
	kept := restoredResult(t, r).KeptAs
	t.Cleanup(func() { c.DropDatabase(t, kept) })
	r.want(t, exitFailed, `COPY "app"."checked" ("x") FROM stdin`, `relation "least" does not exist`, kept)
	if hasDatabase(t, c, to) {
		t.Errorf("database %s has its name, and is not whole", to)
	}
}

// T74: an existing database is not touched without --clean and a confirmation,
// and survives a restore that fails.
func TestT74ExistingDatabaseIsReplacedOnlyWhenConfirmed(t *testing.T) {
	c := shared.Cluster(t)
	source, existing := smallDatabase(t, c), c.Database(t)
	store := captured(t, c, source)
	c.Exec(t, existing, "CREATE TABLE precious AS SELECT 42 AS answer")
	system := c.QueryString(t, "postgres", "SELECT system_identifier FROM pg_control_system()")
	precious := func(t *testing.T) {
		t.Helper()
		if got := c.QueryString(t, existing, "SELECT answer FROM precious"); got != "42" {
			t.Errorf("the existing database's content: got %s, want 42", got)
		}
	}

	dbbackup(t, c.Env(), restoring(store, source, "--target-db", existing)...).
		want(t, exitPrecondition, existing, "exists", "--clean")
	precious(t)
	dbbackup(t, c.Env(), restoring(store, source, "--target-db", existing, "--clean")...).
		want(t, exitUsage, existing, system, "--confirm")
	precious(t)
	t.Run("fails", func(t *testing.T) {
		db := refusedDatabase(t, c)
		r := dbbackup(t, c.Env(), restoring(captured(t, c, db), db, "--target-db", existing, "--clean", "--confirm", "--json")...)
		kept := restoredResult(t, r).KeptAs
		t.Cleanup(func() { c.DropDatabase(t, kept) })
		r.want(t, exitFailed, kept)
		precious(t)
	})

	session := c.Connect(t, existing) // a client that holds on does not stop it
	dbbackup(t, c.Env(), restoring(store, source, "--target-db", existing, "--clean", "--confirm")...).must(t, exitOK)
	zoo.Compare(t, c, source, c, existing)
	if !session.IsClosed() && session.Ping(t.Context()) == nil {
		t.Error("a session in the replaced database is still alive")
	}
	for _, name := range databasesOf(t, c) {
		if strings.HasPrefix(name, "dbbackup_replaced_") {
			t.Errorf("the replaced database is still there as %s", name)
		}
	}
}

// A database that subscribes to something cannot be dropped: said before
// anything is written.
func TestT74DatabaseWithASubscriptionIsNotReplaced(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	source, existing := smallDatabase(t, c), c.Database(t)
	c.Exec(t, existing, "CREATE SUBSCRIPTION listener CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)")
	dbbackup(t, c.Env(), restoring(captured(t, c, source), source, "--target-db", existing, "--clean", "--confirm")...).
		want(t, exitPrecondition, existing, "subscription listener")
}

// slowDatabase makes a database whose restore waits in its last index for as
// long as the setting test.slow is on; slowly turns it on for one run.
func slowDatabase(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := smallDatabase(t, c)
	c.Exec(t, db, `CREATE FUNCTION slow(x int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
		BEGIN IF current_setting('test.slow', true) = 'on' THEN PERFORM pg_sleep(300); END IF; RETURN x; END $$;
		CREATE TABLE waits AS SELECT 1 AS x; CREATE INDEX ON waits(slow(x))`)
	return db
}

const slowly = "PGOPTIONS=-c test.slow=on"

// awaitSlow waits until a slow restore has come to its last index.
func awaitSlow(t testing.TB, c *pgtest.Cluster, to string) (temporary string) {
	t.Helper()
	eventually(t, "the restore waits", func() bool {
		temporary = unfinished(t, c, to)
		return temporary != "" && c.QueryString(t, "postgres", fmt.Sprintf(
			"SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND wait_event = 'PgSleep'", temporary)) == "1"
	})
	return temporary
}

// R2: a restore that is killed leaves a database that nobody takes for the real
// one, and the next run removes it.
func TestKilledRestoreLeavesNoDatabaseOfTheRealName(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := slowDatabase(t, c)
	eachMode(t, func(t *testing.T, mode string) {
		store, to := captured(t, c, db, "--mode", mode), c.FreeName(t)
		r := start(t, append(c.Env(), slowly), restoring(store, db, "--target-db", to)...)
		temporary := awaitSlow(t, c, to)
		t.Cleanup(func() { c.DropDatabase(t, temporary) })
		r.kill(t)
		if hasDatabase(t, c, to) {
			t.Errorf("the killed restore left a database %s", to)
		}
		if unfinished(t, c, to) != temporary {
			t.Errorf("the killed restore's database is gone already: this test tests nothing")
		}
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
		zoo.Compare(t, c, db, c, to)
		if left := unfinished(t, c, to); left != "" {
			t.Errorf("the second restore left %s", left)
		}
	})
}

// Two restores do not fill the same database, whatever database each connects
// to first.
func TestTwoRestoresIntoOneNameDoNotMeet(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := slowDatabase(t, c)
	store, to := captured(t, c, db), c.FreeName(t)
	first := start(t, append(c.Env(), slowly), restoring(store, db, "--target-db", to)...)
	temporary := awaitSlow(t, c, to)
	t.Cleanup(func() { c.DropDatabase(t, temporary) })
	for _, maintenance := range []string{"postgres", db} {
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "-d", maintenance)...).want(t, exitLocked, to)
	}
	if unfinished(t, c, to) != temporary {
		t.Error("the refused restore removed what the first one fills")
	}
	first.kill(t)
}

// A restore that is interrupted takes its unfinished database away.
func TestInterruptedRestoreRemovesItsDatabase(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := slowDatabase(t, c)
	store, to := captured(t, c, db), c.FreeName(t)
	r := start(t, append(c.Env(), slowly), restoring(store, db, "--target-db", to)...)
	temporary := awaitSlow(t, c, to)
	t.Cleanup(func() { c.DropDatabase(t, temporary) })
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait(t).want(t, exitTerminated)
	if hasDatabase(t, c, temporary) || hasDatabase(t, c, to) {
		t.Errorf("databases after the interruption: %q", databasesOf(t, c))
	}
}

// --schema-only brings every definition and no row; --target-db another name.
func TestSchemaOnly(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	c.Exec(t, db, "CREATE INDEX ON accounts(word); CREATE VIEW words AS SELECT word FROM accounts")
	for _, mode := range []string{"custom", "directory", "chunked"} {
		store, to := captured(t, c, db, "--mode", mode), c.FreeName(t)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--schema-only")...).must(t, exitOK)
		if got := c.QueryString(t, to, "SELECT count(*) FROM words"); got != "0" {
			t.Errorf("%s: rows: got %s, want none", mode, got)
		}
		if got := c.QueryString(t, to, "SELECT count(*) FROM pg_indexes WHERE tablename = 'accounts'"); got != "1" {
			t.Errorf("%s: indexes: got %s, want 1", mode, got)
		}
	}
}
