package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// increment makes an incremental set of small chunks, and returns its id.
func increment(t testing.TB, c *pgtest.Cluster, store, db string) string {
	t.Helper()
	dbbackup(t, c.Env(), chunking(store, db, "--incremental")...).must(t, exitOK)
	all := listing(t, store)
	return all[len(all)-1].ID
}

// idsOf lists the sets of a store, oldest first.
func idsOf(t testing.TB, store string) (ids []string) {
	t.Helper()
	for _, set := range listing(t, store) {
		ids = append(ids, set.ID)
	}
	return ids
}

// copyObjects lists the objects with rows that a set itself holds.
func copyObjects(t testing.TB, store, id string) []string {
	t.Helper()
	return slices.DeleteFunc(regularFiles(t, filepath.Join(store, id)), func(name string) bool { return !strings.Contains(name, ".copy") })
}

// Nothing changed: nothing is captured again. Some changed: that is, and each set
// comes back as what the database was then.
func TestIncrementalTakesWhatIsUnchanged(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := family(t, c), newStore(t)
	dbbackup(t, c.Env(), chunking(store, db, "--incremental")...).want(t, exitOK, "there is no set to start from")
	first := onlySet(t, store)
	if got := chunksOf(t, store, first); got.Reused != 0 || got.Rows != 8000 {
		t.Errorf("chunks of the first set: got %+v, want 8000 rows, and none reused", got)
	}
	was := c.FreeName(t)
	c.Exec(t, "postgres", "CREATE DATABASE "+was+" TEMPLATE "+db)

	same := increment(t, c, store, db)
	if got := chunksOf(t, store, same); got.Reused != got.Count || got.Count < 100 || got.Rows != 8000 || !slices.Equal(got.From, []string{first}) {
		t.Errorf("chunks of the second set: got %+v, want all of them reused from %s", got, first)
	}
	if left := copyObjects(t, store, same); len(left) != 0 {
		t.Errorf("the set holds rows itself: %q", left)
	}

	changeFamily(t, c, db)
	changed := increment(t, c, store, db)
	wantPartlyReused(t, store, changed)
	if got := chunksOf(t, store, changed); !slices.Equal(got.From, []string{first}) {
		t.Errorf("the third set refers to %q, want the set that holds the chunks, %s", got.From, first)
	}
	wantSound(t, store, 3)
	for id, want := range map[string]string{first: was, same: was, changed: db} {
		to := c.FreeName(t)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--set", id)...).must(t, exitOK)
		zoo.Compare(t, c, want, c, to)
	}
}

// An incremental run that was killed is gone on with, from its own chunks and
// the older set's.
func TestIncrementalRunIsResumed(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	first := onlySet(t, store)
	c.Exec(t, db, "UPDATE parent SET note = reverse(note)")
	id := interruptedRun(t, c, store, db, "--incremental")
	changeFamily(t, c, db)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitOK)
	if got := chunksOf(t, store, id); got.Reused == 0 || got.Reused == got.Count || !slices.Equal(got.From, []string{first}) {
		t.Errorf("chunks: got %+v, want some of %s, and some new", got, first)
	}
	wantSound(t, store, 2)
	wantNoScratch(t, store)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--set", id)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// What is older is needed: its damage is the newer set's.
func TestIncrementalSetOfADamagedBase(t *testing.T) {
	t.Parallel()
	c := quietCluster(t)
	db, store := family(t, c), newStore(t)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	changeFamily(t, c, db)
	increment(t, c, store, db)
	ids := idsOf(t, store)
	base, set := filepath.Join(store, ids[0]), filepath.Join(store, ids[1])
	reference := referenceOf(t, set)
	wantSums(t, set, true)

	refused := func(t *testing.T, text string) {
		t.Helper()
		before := transactions(t, c)
		for _, id := range ids {
			inProcess(t, c, "restore", "single", db, "--target-db", "back", "--set", id, "--store", store).want(t, exitIntegrity, reference.Name, text)
		}
		if after := transactions(t, c); after != before {
			t.Errorf("refused restores took the server from transaction %s to %s", before, after)
		}
	}
	verified := func(t *testing.T) {
		t.Helper()
		for _, id := range ids {
			got := inProcess(t, nil, "verify", id, "--store", store)
			got.want(t, exitIntegrity)
			if !strings.Contains(got.stdout, reference.Name) || !strings.Contains(got.stdout, "public.parent") && !strings.Contains(got.stdout, "public.child") {
				t.Errorf("verify of %s: got %s, want %s and a table named", id, got.stdout, reference.Name)
			}
		}
	}
	t.Run("a byte is another", func(t *testing.T) {
		withFlipped(t, filepath.Join(base, reference.Name), reference.Bytes/2, func() {
			verified(t)
			for _, id := range ids {
				inProcess(t, c, "restore", "single", db, "--target-db", "back", "--set", id, "--store", store).want(t, exitIntegrity, reference.Name, "kept as database")
				c.DropDatabase(t, unfinished(t, c, "back"))
			}
			if hasDatabase(t, c, "back") {
				t.Error("the database has its name")
			}
			wantSums(t, set, false)
		})
		wantSound(t, store, 2)
	})
	t.Run("an object is lost", func(t *testing.T) {
		moved(t, filepath.Join(base, reference.Name), func() {
			for _, one := range listing(t, store) {
				if one.Status != "damaged" || !strings.Contains(one.Reason, reference.Name) {
					t.Errorf("%s is listed as %s: %s", one.ID, one.Status, one.Reason)
				}
			}
			verified(t)
			refused(t, ids[0])
			wantSums(t, set, false)
		})
		wantSound(t, store, 2)
	})
	t.Run("the older set is lost", func(t *testing.T) {
		moved(t, base, func() {
			all := listing(t, store)
			if len(all) != 1 || all[0].Status != "damaged" || !strings.Contains(all[0].Reason, ids[0]) {
				t.Errorf("listed: %+v", all)
			}
			ids = ids[1:]
			verified(t)
			refused(t, "hint: put the older set "+filepath.Base(base)+" back")
			wantSums(t, set, false)
			// The next run does not start from what is damaged.
			dbbackup(t, c.Env(), chunking(store, db, "--incremental")...).want(t, exitOK, "there is no set to start from")
		})
		wantSound(t, store, 3)
	})
}

// referenceOf is one of the objects that a set needs of another one.
func referenceOf(t testing.TB, set string) backupset.Object {
	t.Helper()
	var m backupset.Manifest
	if err := json.Unmarshal(readFile(t, filepath.Join(set, "manifest.json")), &m); err != nil || len(m.References) == 0 {
		t.Fatalf("references of %s: %v, %v", set, m.References, err)
	}
	return m.References[0].Object
}

// wantSums checks what sha256sum says of a set.
func wantSums(t testing.TB, set string, sound bool) {
	t.Helper()
	need(t, "sha256sum")
	cmd := exec.Command("sha256sum", "-c", "--quiet", "SHA256SUMS")
	cmd.Dir = set
	if out, err := cmd.CombinedOutput(); (err == nil) != sound {
		t.Errorf("sha256sum -c: got %v, want sound %t\n%s", err, sound, out)
	}
}

// moved calls fn while a file or folder is elsewhere.
func moved(t testing.TB, path string, fn func()) {
	t.Helper()
	away := filepath.Join(t.TempDir(), "away")
	if err := os.Rename(path, away); err != nil {
		t.Fatal(err)
	}
	fn()
	if err := os.Rename(away, path); err != nil {
		t.Fatal(err)
	}
}

// Another server, another database of the same name, and the same database after
// it was rewritten: nothing of the older set proves anything of them.
func TestIncrementalOfSomethingElseIsFull(t *testing.T) {
	t.Parallel()
	c, other := shared.Cluster(t), shared.Start(t)
	db, store := family(t, c), newStore(t)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	dbbackup(t, other.Env(), restoring(store, db)...).must(t, exitOK)
	other.Exec(t, db, "UPDATE parent SET note = 'other' WHERE id = 5")
	full := func(t *testing.T, c *pgtest.Cluster) {
		t.Helper()
		id, to := increment(t, c, store, db), c.FreeName(t)
		if got := chunksOf(t, store, id); got.Reused != 0 || len(got.From) != 0 {
			t.Errorf("chunks: got %+v, want none reused", got)
		}
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--set", id)...).must(t, exitOK)
		zoo.Compare(t, c, db, c, to)
	}
	full(t, other)
	full(t, c) // the newest set is the other server's now
	c.Exec(t, "postgres", "ALTER DATABASE "+db+" RENAME TO "+db+"_was")
	c.Exec(t, "postgres", "CREATE DATABASE "+db+" TEMPLATE "+db+"_was")
	t.Cleanup(func() { c.DropDatabase(t, db+"_was") })
	full(t, c)
}

// A crash can take transactions back that nobody waited for, and then their
// numbers are given out again: the rows that the older set holds may not be taken for
// those that bear the same number now.
func TestIncrementalAfterACrashThatTookTransactionsBack(t *testing.T) {
	t.Parallel()
	c := shared.Start(t, pgtest.WithSetting("wal_writer_delay", "10s"), pgtest.WithSetting("autovacuum", "off"),
		pgtest.WithSetting("checkpoint_timeout", "1h"), pgtest.WithSetting("bgwriter_lru_maxpages", "0"))
	db, store := c.Database(t), newStore(t)
	c.Exec(t, db, "CREATE TABLE t(id int, note text); INSERT INTO t SELECT g, 'old' FROM generate_series(1, 20) g; CHECKPOINT")
	c.Exec(t, db, "SET synchronous_commit = off; INSERT INTO t VALUES (21, 'lost')")
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	c.Kill(t)
	c.Restart(t)
	c.Exec(t, db, "INSERT INTO t VALUES (21, 'new')")
	increment(t, c, store, db)
	to := c.FreeName(t)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--set", idsOf(t, store)[1])...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}
