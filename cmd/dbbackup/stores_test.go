package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/pgtest/zoo"
)

// in are the flags for several stores.
func in(stores ...string) []string {
	var flags []string
	for _, store := range stores {
		flags = append(flags, "--store", store)
	}
	return flags
}

// Each set goes to all stores, and each of them restores it by itself.
func TestSeveralStoresHaveTheSameSet(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	a, b := newStore(t), newStore(t)
	for _, mode := range []string{"custom", "chunked"} {
		dbbackup(t, c.Env(), append(in(a, b), "backup", "single", db, "--mode", mode, "--store-quorum", "2")...).must(t, exitOK)
	}
	files := regularFiles(t, a)
	if other := regularFiles(t, b); !slices.Equal(files, other) {
		t.Errorf("the stores hold %q and %q", files, other)
	}
	for _, store := range []string{a, b} {
		wantSound(t, store, 2)
	}
	inProcess(t, nil, append(in(a, b), "list")...).must(t, exitOK)
	for _, id := range idsOf(t, b) {
		to := c.FreeName(t)
		dbbackup(t, c.Env(), "restore", "single", db, "--set", id, "--target-db", to, "--store", filepath.Join(t.TempDir(), "none"), "--store", b).
			want(t, exitOK, "a store was passed over")
		zoo.Compare(t, c, db, c, to)
	}
}

// A store that cannot be written to costs the run nothing but its name in the end,
// and copy brings it up to date; with a quorum that needs it the run fails.
func TestStoreThatFellBehindIsNamedAndCaughtUp(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := settledDatabase(t, c)
	good, bad := newStore(t), newStore(t)
	dbbackup(t, c.Env(), append(in(good, bad), "backup", "single", db, "--mode", "chunked")...).must(t, exitOK)
	file := filepath.Join(t.TempDir(), "file") // no folder: nothing can be made in it
	writeFile(t, file, nil, 0o600)
	r := dbbackup(t, c.Env(), append(in(good, bad, file), "backup", "single", db, "--mode", "chunked", "--incremental", "--json")...)
	r.want(t, exitOmissions, "a store fell behind", file)
	var sum summary
	r.decode(t, &sum)
	if sum.Result != "behind" || len(sum.Behind) != 1 || sum.Behind[0].Store != file || sum.Databases[0].Chunks.Reused == 0 {
		t.Errorf("summary: %s", r.stdout)
	}
	dbbackup(t, c.Env(), append(in(good, file), "backup", "single", db, "--store-quorum", "2")...).want(t, exitPrecondition, "quorum is 2", file)
	wantSound(t, good, 2)
	wantSound(t, bad, 2)

	late := newStore(t)
	r = inProcess(t, nil, "copy", sum.Set, "--from", good, "--to", late, "--json")
	r.must(t, exitOK)
	var copied copiedJSON
	r.decode(t, &copied)
	if ids := idsOf(t, good); !slices.Equal(copied.Sets, ids) { // with the set that it refers to
		t.Errorf("copied %q of %q", copied.Sets, ids)
	}
	wantSound(t, late, 2)
	if r := inProcess(t, nil, "copy", "--all", "--store", good, "--to", late).must(t, exitOK); !strings.Contains(r.stdout, "Nothing to copy") {
		t.Errorf("printed: %s", r.stdout)
	}
	r = inProcess(t, nil, append(in(good, late), "list", "--json")...).must(t, exitOK)
	for line := range strings.Lines(r.stdout) {
		var l listed
		if err := json.Unmarshal([]byte(line), &l); err != nil || len(l.Stores) != 2 {
			t.Errorf("listed: %s (%v)", line, err)
		}
	}
}

// A store that fell behind cannot be pruned, and that alone fails no backup; nor
// does the prune count as one that did its work.
func TestStoreThatFellBehindIsNotPruned(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	good, file, metrics := newStore(t), filepath.Join(t.TempDir(), "file"), filepath.Join(t.TempDir(), "dbbackup.prom")
	writeFile(t, file, nil, 0o600)
	for range 2 {
		dbbackup(t, c.Env(), append(in(file, good), "backup", "single", db, "--keep-last", "1", "--metrics-file", metrics)...).want(t, exitOmissions, "a store fell behind")
	}
	wantSound(t, good, 1)
	if text := string(readFile(t, metrics)); !strings.Contains(text, "dbbackup_prune_last_run_exit_code 3\n") || strings.Contains(text, "dbbackup_prune_last_success") {
		t.Errorf("metrics: %s", text)
	}
}

// The command that brings a store up to date can be copied into a shell, whatever
// the stores are called.
func TestCommandForAStoreThatFellBehind(t *testing.T) {
	t.Parallel()
	words := []string{"copy", "app-20261129T010000Z", "--from", "/srv/it's here", "--to", "s3://b/p?endpoint=http://h:1&attempts=2"}
	var printed strings.Builder
	sum := summary{Set: words[1], Behind: []behindSummary{{Store: words[5], Reason: "it is away", from: words[3]}}}
	if err := sum.printEnd(&printed); err != nil {
		t.Fatal(err)
	}
	at := strings.Index(printed.String(), "  dbbackup copy")
	if at < 0 {
		t.Fatalf("printed: %s", printed.String())
	}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `dbbackup() { printf '%s\n' "$@"; }`+"\n"+printed.String()[at:]).CombinedOutput()
	if got := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || !slices.Equal(got, words) {
		t.Errorf("a shell takes it for %q (%v)", got, err)
	}
}

// A base that one of the stores lacks is none: every store has all that its sets
// refer to.
func TestIncrementalStartsFromWhatEveryStoreHas(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := settledDatabase(t, c)
	a, b := newStore(t), newStore(t)
	dbbackup(t, c.Env(), "backup", "single", db, "--mode", "chunked", "--store", a).must(t, exitOK)
	dbbackup(t, c.Env(), append(in(a, b), "backup", "single", db, "--incremental")...).must(t, exitOK)
	wantSound(t, a, 2)
	wantSound(t, b, 1)
}

// A killed run is gone on with where all that it left is: a store that lost some
// of it falls behind, and its part of the set is removed by the next run.
func TestResumeInTheStoresThatHaveEverything(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := family(t, c)
	a, b := newStore(t), newStore(t)
	id := interruptedRun(t, c, a, db, "--store", b)
	lost := false
	for _, name := range regularFiles(t, filepath.Join(b, id)) {
		if strings.HasSuffix(name, "000001.copy.zst") {
			if err := os.Remove(filepath.Join(b, id, name)); err != nil {
				t.Fatal(err)
			}
			lost = true
			break
		}
	}
	if !lost {
		t.Fatal("the interrupted run left nothing to lose")
	}
	dbbackup(t, c.Env(), append(in(a, b), "resume")...).want(t, exitOmissions, "a store fell behind", "it lacks")
	wantSound(t, a, 1)
	inProcess(t, nil, "copy", "--from", a, "--to", b).must(t, exitOK)
	wantSound(t, b, 1)
}
