package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// T51: a run is killed, parents and children change, and the run is gone on
// with: what comes of it is the database of the new snapshot, and what did not change
// is not read again.
func TestT51ResumeAfterChangesIsConsistent(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	id := interruptedRun(t, c, store, db)
	changeFamily(t, c, db)
	changeFinished(t, c, db, store)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitOK)
	if got := onlySet(t, store); got != id {
		t.Errorf("the resumed run made %s, want %s", got, id)
	}
	wantPartlyReused(t, store, id)
	wantSound(t, store, 1)
	wantNoScratch(t, store)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// changeFinished takes a row of family away from a chunk that a run has finished, and
// changes one in another, which has as many rows as before.
func changeFinished(t testing.TB, c *pgtest.Cluster, db, store string) {
	t.Helper()
	changes := []string{"DELETE FROM child WHERE '%[1]s' = 'parent' AND parent = %[2]s; DELETE FROM %[1]s WHERE id = %[2]s", "UPDATE %s SET note = 'short' WHERE id = %s"}
	for _, entry := range journals(t, store) {
		var one struct {
			Finished []struct {
				OID   uint32
				Chunk backupset.Chunk
			}
		}
		if err := json.Unmarshal(readFile(t, entry), &one); err != nil {
			t.Fatal(err)
		}
		f := one.Finished[0]
		table := c.QueryString(t, db, fmt.Sprintf("SELECT %d::regclass", f.OID))
		in := fmt.Sprintf("FROM %s WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", table, f.Chunk.FirstPage, f.Chunk.EndPage)
		if c.QueryString(t, db, "SELECT count(*) "+in) != strconv.FormatInt(f.Chunk.Rows, 10) {
			continue // it was changed by others
		}
		c.Exec(t, db, fmt.Sprintf(changes[0], table, c.QueryString(t, db, "SELECT min(id) "+in)))
		if changes = changes[1:]; len(changes) == 0 {
			if got := c.QueryString(t, db, "SELECT count(*) "+in); got != strconv.FormatInt(f.Chunk.Rows, 10) {
				t.Errorf("the changed row left its chunk: %s rows of %d", got, f.Chunk.Rows)
			}
			return
		}
	}
	t.Error("too few chunks were finished and left alone")
}

// B5: the second run is killed, too; and what the first one left is damaged
// meanwhile, which only costs reading it again.
func TestResumeSurvivesDamageAndAnotherKill(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	id := interruptedRun(t, c, store, db)
	damageInterrupted(t, store)
	startSlow(t, c, append([]string{"resume", id, "--store", store}, slow...)...).kill(t)
	if again := wantUnfinished(t, store); again != id {
		t.Errorf("the second run left %s, want %s", again, id)
	}
	changeFamily(t, c, db)
	dbbackup(t, c.Env(), "resume", id[:len(id)-3], "--store", store).want(t, exitOK)
	wantPartlyReused(t, store, id)
	wantSound(t, store, 1)
	wantNoScratch(t, store)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// damageInterrupted flips a byte of one object of an interrupted run, cuts
// another one, and half of a journal entry away.
func damageInterrupted(t testing.TB, store string) {
	t.Helper()
	var paths []string
	for _, entry := range journals(t, store) {
		var one struct {
			Objects []struct{ Name string }
		}
		if err := json.Unmarshal(readFile(t, entry), &one); err != nil {
			t.Fatal(err)
		}
		set := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(entry))))
		paths = append(paths, filepath.Join(set, one.Objects[0].Name))
	}
	text := readFile(t, paths[0])
	text[len(text)/2] ^= 0x10
	writeFile(t, paths[0], text, 0o600)
	if err := os.Truncate(paths[1], 100); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(journals(t, store)[2], 200); err != nil {
		t.Fatal(err)
	}
}

// T08: a signal leaves what can be gone on with, and says how.
func TestT08SignalledRunCanBeResumed(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	r := startSlow(t, c, chunking(store, db, slow...)...)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	got := r.wait(t)
	id := wantUnfinished(t, store)
	got.want(t, exitTerminated, "kept as unfinished set "+id, "hint: dbbackup resume "+id)
	changeFamily(t, c, db)
	dbbackup(t, c.Env(), "resume", id, "--store", store).want(t, exitOK)
	wantPartlyReused(t, store, id)
	wantSound(t, store, 1)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// T13: the store is full in the middle; with more room the run is gone on with.
func TestT13ResumeAfterTheStoreWasFull(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newTmpfs(t, "size=2m"), c.FreeName(t)
	got := dbbackup(t, c.Env(), chunking(store, db, "--jobs", "2")...)
	id := wantUnfinished(t, store)
	got.want(t, exitFailed, "the store is full", "bytes are free", "hint: dbbackup resume "+id)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitPrecondition, "the store has")
	dbbackup(t, c.Env(), "resume", "--store", store, "--no-space-check").want(t, exitFailed, "the store is full", "hint: dbbackup resume "+id)
	remount(t, store, 0, "size=64m")
	changeFamily(t, c, db)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitOK)
	wantPartlyReused(t, store, id)
	wantSound(t, store, 1)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// T59: the server crashes. The run waits for its recovery and goes on from the
// chunks that it has; one that has given up is gone on with.
func TestT59ServerCrashes(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db := family(t, c)
	t.Run("within the run", func(t *testing.T) {
		store, to := newStore(t), c.FreeName(t)
		r := startSlow(t, c, chunking(store, db, slow...)...)
		c.Kill(t)
		finished := journals(t, store)
		c.Restart(t)
		changeFamily(t, c, db)
		r.wait(t).want(t, exitOK, "from the chunks that are there")
		if !slices.ContainsFunc(finished, func(entry string) bool { // objects that nothing uses are gone
			object := strings.Replace(strings.TrimSuffix(entry, ".json"), "/journal/", "/", 1) + ".copy.zst"
			_, err := os.Stat(object)
			return err == nil
		}) {
			t.Errorf("none of %d chunks that were there is in the set", len(finished))
		}
		wantRestored(t, c, store, db, to)
	})
	t.Run("for longer than the run waits", func(t *testing.T) {
		store, to := newStore(t), c.FreeName(t)
		r := startSlow(t, c, chunking(store, db, append(slow, "--attempts", "1")...)...)
		c.Kill(t)
		got := r.wait(t)
		id := wantUnfinished(t, store)
		got.want(t, exitFailed, db, "hint: dbbackup resume "+id)
		c.Restart(t)
		changeFamily(t, c, db)
		dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitOK)
		wantPartlyReused(t, store, id)
		wantRestored(t, c, store, db, to)
	})
}

// wantRestored checks that a store's only set is sound, and comes back as what
// the database is now.
func wantRestored(t testing.TB, c *pgtest.Cluster, store, db, to string) {
	t.Helper()
	wantSound(t, store, 1)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// What cannot be gone on with is said, and what the set is instead.
func TestResumeOfNothing(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	dbbackup(t, c.Env(), "resume", "--store", newStore(t)).want(t, exitNotFound)
	store := captured(t, c, db, "--mode", "chunked")
	id := onlySet(t, store)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitNotFound, "there is no interrupted backup to go on with", "hint: ")
	dbbackup(t, c.Env(), "resume", id, "--store", store).want(t, exitUsage, id+" is complete: there is nothing to resume")
	dbbackup(t, c.Env(), "resume", "nonesuch", "--store", store).want(t, exitNotFound, "no unfinished backup set nonesuch", "hint: ")
	dbbackup(t, c.Env(), "resume", "../"+id, "--store", store).want(t, exitNotFound, id)

	// A run of pg_dump's formats has nothing to go on with.
	release := lockTable(t, c, db, "branches")
	killed := start(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "custom")
	eventuallySession(t, c, db, "Lock: ")
	killed.kill(t)
	release()
	all := listing(t, store)
	dbbackup(t, c.Env(), "resume", all[1].ID, "--store", store).want(t, exitNotFound, "cannot be resumed", "hint: back up again")
	wantSound(t, captured(t, c, db), 1)
}

// A new run leaves an interrupted one alone until it has come to its own end;
// one of something else leaves it alone.
func TestInterruptedRunIsSuperseded(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := family(t, c), newStore(t)
	id := interruptedRun(t, c, store, db)

	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "chunked", "--table", "no_such").want(t, exitUsage)
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--mode", "chunked").must(t, exitOK)
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "chunked", "--table", "parent").must(t, exitOK)
	if got := listing(t, store); len(got) != 3 || !hasUnfinished(got, id) {
		t.Fatalf("after runs of something else: got %+v, want the interrupted one to be there", got)
	}
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "chunked").want(t, exitOK, "removed an unfinished set", id)
	wantSound(t, store, 3)
}

func hasUnfinished(all []listed, id string) bool {
	for _, one := range all {
		if one.ID == id && one.Status == "unfinished" {
			return true
		}
	}
	return false
}

// gc takes what nobody will go on with.
func TestGCRemovesInterruptedRuns(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := family(t, c), newStore(t)
	id := interruptedRun(t, c, store, db)
	inProcess(t, nil, "gc", "--store", store).want(t, exitOK, id)
	wantEmpty(t, store)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitNotFound)
}

// A resumed run is what the interrupted one was: the same tables, the same
// format.
func TestResumeAsksForTheSame(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	id := interruptedRun(t, c, store, db, "--exclude-table", "child", "--compression", "gzip:2")
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitOK)
	if got := chunksOf(t, store, id); got.Rows != 4000 || got.Count < 30 {
		t.Errorf("chunks: got %+v, want parent's 4000 rows in chunks of 64 kB", got)
	}
	for _, name := range filesOf(t, store) {
		if strings.HasSuffix(name, ".zst") {
			t.Errorf("%s is not gzip", name)
		}
	}
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	wantTables(t, c, to, "child 0", "parent 4000")
}
