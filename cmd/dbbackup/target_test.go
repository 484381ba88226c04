package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// T78: a server that starts transactions read-only is not written to, and the
// message says how it can be.
func TestT78ReadOnlyServer(t *testing.T) {
	t.Parallel()
	source := shared.Cluster(t)
	target := shared.Start(t, pgtest.WithSetting("default_transaction_read_only", "on"))
	db := smallDatabase(t, source)
	for _, mode := range []string{"custom", "plain"} {
		store := captured(t, source, db, "--mode", mode)
		dbbackup(t, target.Env(), restoring(store, db, "--target-db", mode)...).
			want(t, exitPrecondition, "default_transaction_read_only", `options=-c\ default_transaction_read_only=off`)
		dbbackup(t, target.Env(), restoring(store, db, "--target-db", mode, "-d", `options=-c\ default_transaction_read_only=off`)...).must(t, exitOK)
		zoo.Compare(t, source, db, target, mode)
	}
}

// T78: a database whose own settings make it read-only, and whose event trigger
// raises, comes back: both come last.
func TestT78ReadOnlyDatabaseWithARaisingEventTrigger(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	c.Exec(t, db, `CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no % here'', tg_tag; END';
		CREATE MATERIALIZED VIEW few AS SELECT * FROM accounts WHERE id < 10;
		ALTER DATABASE `+db+` SET default_transaction_read_only = on;
		CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse()`)
	eachMode(t, func(t *testing.T, mode string) {
		to := c.FreeName(t)
		dbbackup(t, c.Env(), "restore", "single", db, "--store", captured(t, c, db, "--mode", mode), "--target-db", to).must(t, exitOK)
		zoo.Compare(t, c, db, c, to)
	})
}

// T78: a disk that fills up ends the restore with the server's own words. The
// name that was asked for is not taken, and other databases do not notice.
func TestT78FullDisk(t *testing.T) {
	t.Parallel()
	needRoot(t)
	c := shared.Start(t)
	full, err := c.MakeDir("full")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", full).CombinedOutput(); err != nil { //nolint:gosec // a folder of this test
		cannot(t, "tmpfs cannot be mounted: "+string(out))
	}
	t.Cleanup(func() {
		for _, name := range databasesOf(t, c) {
			if name != "postgres" && name != "template0" && name != "template1" {
				c.DropDatabase(t, name)
			}
		}
		c.Exec(t, "postgres", "DROP TABLESPACE IF EXISTS full_disk")
		if out, err := exec.Command("umount", full).CombinedOutput(); err != nil { //nolint:gosec // as above
			t.Errorf("unmount %s: %v: %s", full, err, out)
		}
	})
	owner := filepath.Join(full, "space")
	if err := os.Mkdir(owner, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chown", "--reference="+c.DataDir, owner).CombinedOutput(); err != nil { //nolint:gosec // as above
		t.Fatalf("chown: %v: %s", err, out)
	}
	c.Exec(t, "postgres", "CREATE TABLESPACE full_disk LOCATION '"+owner+"'")
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE big AS SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 20000) g")
	t.Cleanup(func() { // a server whose disk is full cannot drop a database
		if out, err := exec.Command("mount", "-o", "remount,size=64m", full).CombinedOutput(); err != nil { //nolint:gosec // as above
			t.Errorf("make %s larger: %v: %s", full, err, out)
		}
	})
	store := captured(t, c, db, "--mode", "custom")
	r := dbbackup(t, c.Env(), restoring(store, db, "--target-db", "copy", "--map-tablespace", "pg_default=full_disk")...)
	r.want(t, exitFailed, "No space left on device", "big")
	if hasDatabase(t, c, "copy") {
		t.Error("database copy has its name, and is not whole")
	}
	wantTables(t, c, db, "big 20000")
}
