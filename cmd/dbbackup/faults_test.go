package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// eachMode runs a test in every mode, side by side.
func eachMode(t *testing.T, test func(t *testing.T, mode string)) { eachOf(t, modes, test) }

func eachOf(t *testing.T, modes []string, test func(t *testing.T, mode string)) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}

// smallDatabase makes a database of a few rows in two tables.
func smallDatabase(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	c.Exec(t, db, `CREATE TABLE accounts AS SELECT g AS id, md5(g::text) AS word FROM generate_series(1, 300) g;
		CREATE TABLE branches AS SELECT g AS id, md5(g::text) AS word FROM generate_series(1, 200) g;`)
	return db
}

// bulkDatabase makes a database that takes pg_dump a noticeable while: two
// tables of about 4 MB that do not compress well.
func bulkDatabase(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	for _, table := range []string{"bulk_a", "bulk_b"} {
		c.Exec(t, db, "CREATE TABLE "+table+" AS SELECT g AS id, "+unlike("g * 1000", 8)+" AS words FROM generate_series(1, 4000) g")
	}
	return db
}

// shim makes a program pg_dump that comes first in PATH and does what the
// lines of shell say. In them $real is the real pg_dump, $out the file or folder
// that it is told to write, if any, and $source the database to connect to.
func shim(t testing.TB, c *pgtest.Cluster, script string) (env []string) {
	t.Helper()
	return shimOf(t, c, "pg_dump", script)
}

// shimOf does it for another program of PostgreSQL, with the real pg_dump beside it,
// by which the programs are found.
func shimOf(t testing.TB, c *pgtest.Cluster, program, script string) (env []string) {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf(`#!/bin/sh
real=%s/%s
[ "$1" = --version ] && exec "$real" --version
for arg; do case "$arg" in --file=*) out="${arg#--file=}";; --dbname=*) source="${arg#--dbname=}";; esac; done
%s
`, c.BinDir, program, script)
	writeFile(t, filepath.Join(dir, program), []byte(text), 0o700)
	if program != "pg_dump" {
		if err := os.Symlink(filepath.Join(c.BinDir, "pg_dump"), filepath.Join(dir, "pg_dump")); err != nil {
			t.Fatal(err)
		}
	}
	return append(c.Env(), "PATH="+dir+":"+os.Getenv("PATH"))
}

func writeFile(t testing.TB, path string, text []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// inProcess runs the program without a process of its own, for sweeps of many
// runs. c is the server, for commands that need one.
func inProcess(t testing.TB, c *pgtest.Cluster, args ...string) result {
	t.Helper()
	if c != nil {
		args = append([]string{"--dbname", c.URI("postgres")}, args...) // flags may stand anywhere
	}
	var stdout, stderr bytes.Buffer
	code := run(context.Background(), process{
		args: append([]string{"dbbackup"}, args...), env: hermeticEnv(t),
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
	})
	return result{stdout.String(), stderr.String(), code}
}

// listing is what list says of a store.
func listing(t testing.TB, store string) []listed {
	t.Helper()
	got := inProcess(t, nil, "list", "--json", "--store", store).must(t, 0)
	var sets []listed
	for decoder := json.NewDecoder(strings.NewReader(got.stdout)); decoder.More(); {
		var one listed
		if err := decoder.Decode(&one); err != nil {
			t.Fatal(err)
		}
		sets = append(sets, one)
	}
	return sets
}

// filesOf returns what is in a store, folders too, except the store's lock.
func filesOf(t testing.TB, store string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(store, func(path string, _ fs.DirEntry, err error) error {
		if name, _ := filepath.Rel(store, path); name != "." && name != ".lock" && name != "lost+found" {
			names = append(names, name)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return names
}

// wantEmpty checks that a failed run left no set, and nothing else either.
func wantEmpty(t testing.TB, store string) {
	t.Helper()
	if _, err := os.Stat(store); err != nil {
		return
	}
	if sets := listing(t, store); len(sets) != 0 {
		t.Errorf("sets of the store: got %+v, want none", sets)
	}
	if left := filesOf(t, store); len(left) != 0 {
		t.Errorf("left in the store: %q", left)
	}
}

// wantNoSet checks that a failed run left no set: nothing at all, or of the native
// engine what can be gone on with, until gc removes it.
func wantNoSet(t testing.TB, store, mode string) {
	t.Helper()
	if mode == "chunked" && len(filesOf(t, store)) > 0 {
		wantUnfinished(t, store)
		inProcess(t, nil, "gc", "--store", store).want(t, exitOK)
	}
	wantEmpty(t, store)
}

// wantSound checks that all sets of a store are complete and pass verify, and
// that there are so many.
func wantSound(t testing.TB, store string, sets int) {
	t.Helper()
	all := listing(t, store)
	if len(all) != sets {
		t.Errorf("sets of the store: got %d, want %d", len(all), sets)
	}
	for _, set := range all {
		if set.Status != "complete" {
			t.Errorf("%s is %s: %s", set.ID, set.Status, set.Reason)
		}
		inProcess(t, nil, "verify", set.ID, "--store", store).want(t, 0)
	}
}

// marker is an environment variable by which all descendants of a run can be
// found.
func marker(t testing.TB) string {
	return "FAULT_TEST=" + t.TempDir()
}

// marked lists the living processes whose environment holds the variable.
func marked(t testing.TB, variable string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(paths) == 0 {
		t.Fatal("no processes to look at", err)
	}
	var found []string
	for _, path := range paths {
		environ, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(append(environ, 0), []byte(variable+"\x00")) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if len(cmdline) > 0 { // else it is a zombie, or has just ended
			found = append(found, strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
	}
	return found
}

// wantNoTrace checks that no process of a run and no session of its own in the
// database is left. Sessions end a moment after their client.
func wantNoTrace(t testing.TB, c *pgtest.Cluster, db, variable string) {
	t.Helper()
	if left := marked(t, variable); len(left) != 0 {
		t.Errorf("processes of the run are left: %q", left)
	}
	eventually(t, "no session of the run is left", func() bool { return len(sessions(t, c, db)) == 0 })
}

// sessions lists what sessions of dbbackup and its children do in a database.
func sessions(t testing.TB, c *pgtest.Cluster, db string) []string {
	t.Helper()
	var found []string
	for _, row := range c.Query(t, "postgres", "SELECT coalesce(wait_event_type, '') || ': ' || query FROM pg_stat_activity"+
		" WHERE application_name LIKE 'dbbackup%' AND datname = '"+db+"' AND backend_type IN ('client backend', 'parallel worker')") {
		found = append(found, row[0])
	}
	return found
}

// eventuallySession waits until a session of dbbackup in the database does
// something that contains the text.
func eventuallySession(t testing.TB, c *pgtest.Cluster, db, text string) {
	t.Helper()
	eventually(t, "a session has "+text, func() bool {
		for _, s := range sessions(t, c, db) {
			if strings.Contains(s, text) {
				return true
			}
		}
		return false
	})
}

// lockTable keeps everyone from reading a table until the returned function is
// called, or the test is over.
func lockTable(t testing.TB, c *pgtest.Cluster, db, table string) (release func()) {
	t.Helper()
	ctx := context.Background()
	conn := c.Connect(t, db)
	for _, sql := range []string{"BEGIN", "LOCK TABLE " + table + " IN ACCESS EXCLUSIVE MODE"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	return func() {
		if _, err := conn.Exec(ctx, "ROLLBACK"); err != nil {
			t.Error(err)
		}
	}
}

// need skips a test where a program is missing, except where it must run.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			cannot(t, err.Error())
		}
	}
}

// needRoot skips a test that mounts file systems or changes attributes.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		cannot(t, "only root can bring this fault about")
	}
}

// cannot skips, and fails under CI: a fault that is never injected proves nothing.
func cannot(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}
