package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
)

// unlike is SQL for n * 128 characters that a compressor finds little in, other ones for each
// number. It takes a fifth of the time that md5 would.
func unlike(number string, n int) string {
	return fmt.Sprintf("(SELECT string_agg(encode(sha512((%s + i)::text::bytea), 'hex'), '') FROM generate_series(1, %d) i)", number, n)
}

// family makes a database of parents and children, two tables of about 4 MB, in
// which no child may be without its parent.
func family(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	c.Exec(t, db, `CREATE TABLE parent(id int PRIMARY KEY, note text NOT NULL);
		CREATE TABLE child(id int PRIMARY KEY, parent int NOT NULL REFERENCES parent, note text NOT NULL);
		INSERT INTO parent SELECT g, `+unlike("g * 1000", 8)+` FROM generate_series(1, 4000) g;
		INSERT INTO child SELECT g, 1 + g % 4000, `+unlike("g * 2000", 8)+` FROM generate_series(1, 4000) g`)
	settled(t, c)
	return db
}

// settled waits until all transactions until now have ended: one that another test
// runs on the same server makes rows look young, which are then read again. Who
// counts on chunks that are proven unchanged begins with it.
func settled(t testing.TB, c *pgtest.Cluster) {
	t.Helper()
	now := c.QueryString(t, "postgres", "SELECT pg_current_xact_id()")
	eventually(t, "all transactions until now have ended", func() bool {
		return c.QueryString(t, "postgres", "SELECT pg_snapshot_xmin(pg_current_snapshot()) > '"+now+"'::xid8") == "t"
	})
}

// settledDatabase is a small database whose chunks can be proven unchanged.
func settledDatabase(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := smallDatabase(t, c)
	settled(t, c)
	return db
}

// changeFamily brings new parents with children, takes others away with theirs,
// and writes to some.
func changeFamily(t testing.TB, c *pgtest.Cluster, db string) {
	t.Helper()
	c.Exec(t, db, `BEGIN; INSERT INTO parent SELECT max(id) + 1, 'new' FROM parent; INSERT INTO child SELECT (SELECT max(id) + 1 FROM child), max(id), 'new' FROM parent;
		DELETE FROM child WHERE parent % 1000 = 7; DELETE FROM parent WHERE id % 1000 = 7;
		UPDATE parent SET note = note || 'x' WHERE id % 1500 = 3; UPDATE child SET parent = (SELECT max(id) FROM parent) WHERE id % 1500 = 4; COMMIT`)
}

// chunking is the command line that captures a database in many small chunks.
func chunking(store, db string, args ...string) []string {
	return append(append([]string{"backup", "single", "--store", store, "--mode", "chunked", "--chunk-size", "64kB"}, args...), "--", db)
}

// slow bounds a run to what makes it last some seconds.
var slow = []string{"--max-rate", "1MB", "--jobs", "2"}

// journals lists the chunks that a run that is not over could be gone on with from.
func journals(t testing.TB, store string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(store, "*", "databases", "*.chunks", "journal", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// startSlow starts a slow run, and waits until some of its chunks are finished.
func startSlow(t testing.TB, c *pgtest.Cluster, args ...string) *running {
	t.Helper()
	store := args[storeAt(t, args)]
	before := len(journals(t, store))
	r := start(t, c.Env(), args...)
	eventually(t, "some chunks are finished", func() bool { return len(journals(t, store)) >= before+8 })
	return r
}

// storeAt is where the store stands in a command line.
func storeAt(t testing.TB, args []string) int {
	t.Helper()
	for i, arg := range args {
		if arg == "--store" {
			return i + 1
		}
	}
	t.Fatalf("no store in %q", args)
	return 0
}

// interruptedRun leaves what a run leaves that was killed, and returns its id.
func interruptedRun(t testing.TB, c *pgtest.Cluster, store, db string, args ...string) string {
	t.Helper()
	startSlow(t, c, chunking(store, db, append(args, slow...)...)...).kill(t)
	return wantUnfinished(t, store)
}

// wantUnfinished checks that the newest set of a store is one that can be gone
// on with, and that list says how.
func wantUnfinished(t testing.TB, store string) string {
	t.Helper()
	all := listing(t, store)
	if len(all) == 0 {
		t.Fatal("the store holds nothing to go on with")
	}
	last := all[len(all)-1]
	if last.Status != "unfinished" || !strings.Contains(last.Reason, "dbbackup resume "+last.ID) {
		t.Fatalf("%s is listed as %s (%s), want an unfinished set, and how to go on with it", last.ID, last.Status, last.Reason)
	}
	return last.ID
}

// chunksOf is what a set's manifest says of the only database's chunks.
func chunksOf(t testing.TB, store, id string) backupset.Chunks {
	t.Helper()
	var m backupset.Manifest
	inProcess(t, nil, "show", id, "--json", "--store", store).must(t, exitOK).decode(t, &m)
	if len(m.Databases) != 1 || m.Databases[0].Chunks == nil {
		t.Fatalf("databases of %s: %+v, want one in chunks", id, m.Databases)
	}
	return *m.Databases[0].Chunks
}

// wantPartlyReused checks that some chunks of a set were not captured again, and
// some were.
func wantPartlyReused(t testing.TB, store, id string) {
	t.Helper()
	if got := chunksOf(t, store, id); got.Reused == 0 || got.Reused >= got.Count || got.ReusedBytes == 0 {
		t.Errorf("chunks: got %+v, want some reused, and some not", got)
	}
}

// wantNoScratch checks that nothing of the going on is left in a store.
func wantNoScratch(t testing.TB, store string) {
	t.Helper()
	for _, name := range filesOf(t, store) {
		if strings.Contains(name, "/journal") || strings.HasSuffix(name, "/run.json") || strings.Contains(name, "UNFINISHED") || strings.Contains(name, "/.") {
			t.Errorf("%s is left in the store", name)
		}
	}
}

func readContents(t testing.TB, path string) (c backupset.Contents) {
	t.Helper()
	if err := json.Unmarshal(readFile(t, path), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// rewriteContents changes a contents.json, and returns what it is then.
func rewriteContents(t testing.TB, path string, change func(c *backupset.Contents)) []byte {
	t.Helper()
	c := readContents(t, path)
	change(&c)
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, text, 0o600)
	return text
}
