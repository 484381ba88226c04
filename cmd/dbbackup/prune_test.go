package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
)

// pruning are the arguments of a prune.
func pruning(store string, flags ...string) []string {
	return append([]string{"prune", "--store", store}, flags...)
}

// damage flips a bit of the first object of a set that holds rows.
func damage(t testing.TB, store, id, suffix string) {
	t.Helper()
	for _, name := range regularFiles(t, filepath.Join(store, id)) {
		if strings.HasSuffix(name, suffix) {
			path := filepath.Join(store, id, name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text[len(text)/2] ^= 1
			writeFile(t, path, text, 0o600)
			return
		}
	}
	t.Fatalf("set %s has no object *%s", id, suffix)
}

// copied makes n sets of one database.
func severalSets(t testing.TB, c *pgtest.Cluster, db string, n int) (store string, ids []string) {
	t.Helper()
	store = newStore(t)
	for range n {
		dbbackup(t, c.Env(), "backup", "single", db, "--store", store).must(t, exitOK)
	}
	return store, idsOf(t, store)
}

// What the policy does not keep goes, and a dry run says so and changes nothing.
func TestPruneKeepsWhatThePolicySays(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, ids := severalSets(t, c, db, 4)
	dbbackup(t, nil, "verify", ids[1], "--drill", "--drill-target", c.URI("postgres"), "--store", store).must(t, exitOK)
	before := regularFiles(t, store)

	dry := inProcess(t, nil, pruning(store, "--keep-last", "2", "--dry-run", "--json")...)
	dry.must(t, exitOK)
	var plan prunedJSON
	if err := json.Unmarshal([]byte(dry.stdout), &plan); err != nil {
		t.Fatal(err)
	}
	if len(plan.Keep) != 2 || len(plan.Delete) != 2 || plan.Delete[1].ID != ids[0] || len(plan.Deleted) != 0 || !slices.Equal(plan.Verify, ids[3:]) {
		t.Errorf("the plan: %s", dry.stdout)
	}
	inProcess(t, nil, pruning(store, "--keep-last", "2", "--dry-run")...).want(t, exitOK, "")
	if after := regularFiles(t, store); !slices.Equal(before, after) {
		t.Errorf("a dry run changed the store: %q, before %q", after, before)
	}

	r := inProcess(t, nil, pruning(store, "--keep-last", "2")...)
	r.want(t, exitOK, "reading a set before older ones go")
	if !strings.Contains(r.stdout, "Removed 2 sets") {
		t.Errorf("printed: %s", r.stdout)
	}
	if left := idsOf(t, store); !slices.Equal(left, ids[2:]) {
		t.Errorf("left: %q, want %q", left, ids[2:])
	}
	for _, name := range regularFiles(t, store) {
		if strings.Contains(name, ids[0]+"/") || strings.Contains(name, ids[1]+"/") {
			t.Errorf("%s is left", name)
		}
	}
	wantSound(t, store, 2)
	// What was read is known, and not read again.
	if again := inProcess(t, nil, pruning(store, "--keep-last", "1")...); strings.Contains(again.stderr, "reading a set") {
		t.Errorf("the set was read again: %s", again.stderr)
	}
	wantSound(t, store, 1)
}

// What verify has read prune does not read again, until verify finds it damaged.
func TestPruneReliesOnVerify(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	store, ids := severalSets(t, c, smallDatabase(t, c), 4)
	const reading = "reading a set before older ones go"
	dbbackup(t, nil, "verify", "--quick", "--store", store).must(t, exitOK)
	if _, err := os.Stat(filepath.Join(store, "verified")); err == nil {
		t.Error("a quick verify read nothing, and left a record")
	}
	dbbackup(t, nil, "verify", "--store", store).must(t, exitOK)
	if r := dbbackup(t, nil, pruning(store, "--keep-last", "3")...).must(t, exitOK); strings.Contains(r.stderr, reading) {
		t.Errorf("the set was read again: %s", r.stderr)
	}
	damage(t, store, ids[3], ".dump")
	dbbackup(t, nil, "verify", "--store", store).want(t, exitIntegrity, ids[3])
	dbbackup(t, nil, pruning(store, "--keep-last", "1")...).want(t, exitOK, reading, "is not sound")
	if left := idsOf(t, store); !slices.Equal(left, ids[2:]) {
		t.Errorf("left: %q, want the last good one and the damaged one", left)
	}
}

// A drill counts as much as a verify, and no longer: what is found damaged afterwards is
// relied on no more.
func TestPruneReliesOnADrill(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	store, ids := severalSets(t, c, smallDatabase(t, c), 4)
	const reading = "reading a set before older ones go"
	drill := func(code int) {
		t.Helper()
		dbbackup(t, nil, "verify", "--drill", "--drill-target", c.URI("postgres"), "--store", store).want(t, code)
	}
	drill(exitOK)
	if r := dbbackup(t, nil, pruning(store, "--keep-last", "3")...).must(t, exitOK); strings.Contains(r.stderr, reading) {
		t.Errorf("the set was read again: %s", r.stderr)
	}
	damage(t, store, ids[3], ".dump")
	drill(exitIntegrity)
	dbbackup(t, nil, pruning(store, "--keep-last", "1")...).want(t, exitOK, reading, "is not sound")
	if left := idsOf(t, store); !slices.Equal(left, ids[2:]) {
		t.Errorf("left: %q, want the last good one and the damaged one", left)
	}
}

// A store that verify cannot write to is verified all the same.
func TestVerifyWhereNothingCanBeNoted(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	owner := at(s, s.Endpoint, "pre", "")
	reader := remote{url: owner.url, env: s.User(t, "backups", "reader", "s3:GetObject", "s3:ListBucket")}
	owner.run(t, c, chunkedInto(smallDatabase(t, c))...).must(t, exitOK)
	reader.run(t, nil, "verify").want(t, exitOK, "not noted in the store")
}

// What root notes in another user's store is that user's, who runs the next night.
func TestRootVerifiesInTheStoreOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	t.Parallel()
	const nobody = 65534
	c := shared.Cluster(t)
	store, _ := severalSets(t, c, smallDatabase(t, c), 1)
	chown := func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, nobody, nobody))
	}
	if err := filepath.WalkDir(store, chown); err != nil {
		t.Fatal(err)
	}
	dbbackup(t, nil, "verify", "--drill", "--store", store, "--drill-dir", drillDir(t)).must(t, exitOK)
	noted := 0
	err := filepath.WalkDir(store, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != nobody || stat.Gid != nobody { //nolint:errcheck,forcetypeassert // on Linux it is one
			t.Errorf("%s belongs to %d:%d", path, stat.Uid, stat.Gid)
		}
		if rel, _ := filepath.Rel(store, path); strings.HasPrefix(rel, "verified/") || strings.HasPrefix(rel, "drills/") {
			noted++
		}
		return nil
	})
	if err != nil || noted < 2 {
		t.Errorf("%d notes, %v", noted, err)
	}
}

// T88: the newest sets are damaged: they count for nothing, and the last good one stays.
func TestT88PruneKeepsTheLastGoodSet(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, ids := severalSets(t, c, db, 5)
	damage(t, store, ids[4], ".dump")
	if err := os.Truncate(filepath.Join(store, ids[3], "databases", db+".dump"), 10); err != nil {
		t.Fatal(err)
	}
	r := inProcess(t, nil, pruning(store, "--keep-last", "1")...)
	r.want(t, exitOK, "a set is not sound, and counts for nothing", ids[4])
	if left := idsOf(t, store); !slices.Equal(left, ids[2:]) {
		t.Errorf("left: %q, want %q: two damaged ones to look at, and the newest good one", left, ids[2:])
	}
	inProcess(t, nil, "verify", ids[2], "--store", store).want(t, exitOK)

	damage(t, store, ids[2], ".dump") // no good one is left: the record of it is no longer true, but nothing goes
	inProcess(t, nil, pruning(store, "--keep-last", "1")...).want(t, exitOK)
	if left := idsOf(t, store); len(left) != 3 {
		t.Errorf("left: %q", left)
	}
}

// T88: a database that is suddenly much smaller is looked at by somebody first.
func TestT88ShrunkenDatabaseStopsPruning(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE much AS SELECT i, repeat(md5(i::text), 60) FROM generate_series(1, 10000) i")
	store, ids := severalSets(t, c, db, 2)
	c.Exec(t, db, "DROP TABLE much")
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--keep-last", "1").want(t, exitPrecondition, "has shrunk", "--allow-shrink", "the backup succeeded")
	if left := idsOf(t, store); len(left) != 3 || left[0] != ids[0] {
		t.Errorf("left: %q", left)
	}
	inProcess(t, nil, pruning(store, "--keep-last", "1", "--allow-shrink")...).must(t, exitOK)
	if left := idsOf(t, store); len(left) != 1 {
		t.Errorf("left: %q", left)
	}
}

// T92: somebody who may write fills the store with sets of tomorrow and later.
// They take no good set's place, and only a person removes them.
func TestT92SetsFromTheFutureTakeNoPlace(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, ids := severalSets(t, c, db, 3)
	place, err := dir.Open(store, false)
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close() //nolint:errcheck // every set was committed
	var garbage []string
	for day := range 5 {
		garbage = append(garbage, futureSet(t, place, ids[2], time.Now().AddDate(0, 0, 1+day)))
	}
	all := slices.Concat(ids, garbage)
	// Whoever asks for the latest set is told that it may not be.
	if r := dbbackup(t, nil, "show", "--store", store).must(t, exitOK); !strings.Contains(r.stderr, garbage[4]+" lies 1") || !strings.Contains(r.stderr, "does not is "+ids[2]) {
		t.Errorf("show says %s", r.stderr)
	}
	if got := idsOf(t, store); !slices.Equal(got, all) {
		t.Fatalf("listed: %q, want %q", got, all)
	}
	for _, policy := range [][]string{{"--keep-last", "2"}, {"--keep-daily", "3", "--keep-last", "2"}} {
		inProcess(t, nil, pruning(store, policy...)...).want(t, exitOK)
		if left := idsOf(t, store); !slices.Equal(left, all[1:]) {
			t.Errorf("%q: left %q, want the two newest good ones, and those of the future", policy, left)
		}
	}
	for _, id := range ids[1:] {
		inProcess(t, nil, "verify", id, "--store", store).want(t, exitOK)
	}
}

// futureSet writes a set like another one, with garbage for content, that claims
// to be made at a time.
func futureSet(t testing.TB, place store.Store, like string, at time.Time) (id string) {
	t.Helper()
	set, err := backupset.Open(t.Context(), place, like)
	if err != nil {
		t.Fatal(err)
	}
	m := *set.Manifest()
	id = backupset.NewID(m.Databases[0].Name, at, nil)
	w, err := backupset.Create(t.Context(), place, id)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range m.Objects {
		if err := w.WriteFile(t.Context(), object.Name, []byte("garbage")); err != nil {
			t.Fatal(err)
		}
	}
	m.Started, m.Finished = at, at.Add(time.Minute)
	if err := w.Commit(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	return id
}

// The plan is to be read: the newest set of a cluster is that of each of its
// databases, and no line is wider than a terminal.
func TestPlanForTheEye(t *testing.T) {
	t.Parallel()
	store := goldenStore(t)
	id := onlySet(t, store)
	databases := listing(t, store)[0].Databases
	r := inProcess(t, nil, pruning(store, "--keep-last", "1", "--dry-run")...).must(t, exitOK)
	if more := fmt.Sprintf("the newest of %d more", len(databases)-3); len(databases) < 5 || !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), more) {
		t.Errorf("want %q of %q in it: %s", more, databases, r.stdout)
	}
	for line := range strings.Lines(r.stdout) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	if !strings.HasPrefix(r.stdout, "keep    "+id+" (") {
		t.Errorf("printed: %s", r.stdout)
	}
	r = inProcess(t, nil, pruning(store, "--keep-last", "1", "--dry-run", "--json")...).must(t, exitOK)
	var plan prunedJSON
	if r.decode(t, &plan); len(plan.Keep) != 1 || len(plan.Keep[0].Reasons) != len(databases)+1 { // and last 1
		t.Errorf("printed: %s", r.stdout)
	}
}

// T89: a policy that keeps nothing is none.
func TestT89PoliciesThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{
		{}, {"--keep-last", "0"}, {"--keep-daily", "-1"}, {"--keep-within", "soon"}, {"--keep-within", ""}, {"--keep-last", "many"}, {"--keep-lats", "3"},
	} {
		inProcess(t, nil, pruning(newStore(t), flags...)...).want(t, exitUsage)
	}
	inProcess(t, nil, pruning(filepath.Join(t.TempDir(), "nowhere"), "--keep-last", "1")...).want(t, exitNotFound, "nowhere")
	c := shared.Cluster(t)
	store := newStore(t)
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--keep-last", "0").want(t, exitUsage, "keeps nothing")
	wantEmpty(t, store)
}

// An incremental set's base stays as long as it is needed, and goes afterwards.
func TestPruneKeepsTheBasesOfIncrementalSets(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := family(t, c), newStore(t)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	increment(t, c, store, db)
	changeFamily(t, c, db)
	last := increment(t, c, store, db)
	ids := idsOf(t, store)
	inProcess(t, nil, pruning(store, "--keep-last", "1")...).must(t, exitOK)
	if left := idsOf(t, store); !slices.Equal(left, []string{ids[0], last}) {
		t.Errorf("left: %q, want the last one and its base", left)
	}
	inProcess(t, nil, "verify", last, "--store", store).want(t, exitOK)
	to := c.FreeName(t)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)

	dbbackup(t, c.Env(), chunking(store, db, "--keep-last", "1")...).want(t, exitOK, "pruned") // full
	wantSound(t, store, 1)
}

// A damaged set is left for a person to look at, with all that may mend it.
func TestPruneKeepsTheBasesOfDamagedSets(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := family(t, c), newStore(t)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	changeFamily(t, c, db)
	damaged := increment(t, c, store, db)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK) // full
	if err := os.Remove(filepath.Join(store, damaged, "globals.sql")); err != nil {
		t.Fatal(err)
	}
	ids := idsOf(t, store)
	inProcess(t, nil, pruning(store, "--keep-last", "1")...).must(t, exitOK)
	if left := idsOf(t, store); !slices.Equal(left, ids) {
		t.Errorf("left: %q, want %q", left, ids)
	}
}

// A backup that failed prunes nothing.
func TestFailedBackupPrunesNothing(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, ids := severalSets(t, c, db, 3)
	defer lockTable(t, c, db, "branches")()
	for _, mode := range []string{"custom", "chunked"} {
		got := dbbackup(t, c.Env(), "backup", "single", db, "--mode", mode, "--lock-timeout", "200ms", "--attempts", "1", "--keep-last", "1", "--store", store)
		got.want(t, exitFailed)
		if left := idsOf(t, store); !slices.Equal(left, ids) {
			t.Errorf("%s: left %q, want %q", mode, left, ids)
		}
	}
}

// A set of a newer release may refer to anything.
func TestPruneStopsAtANewerSet(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, ids := severalSets(t, c, db, 3)
	forge(t, store, ids[1], func(text string) string { return strings.Replace(text, `"format": 1`, `"format": 4`, 1) })
	inProcess(t, nil, pruning(store, "--keep-last", "1")...).want(t, exitPrecondition, ids[1], "newest dbbackup")
	if left := idsOf(t, store); len(left) != 3 {
		t.Errorf("left: %q", left)
	}
}

// A set that cannot be removed is named, and keeps all that it refers to.
func TestPruneKeepsTheBasesOfWhatItCannotRemove(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := family(t, c), newStore(t)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	changeFamily(t, c, db)
	stuck := increment(t, c, store, db)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK) // full
	release := immutable(t, filepath.Join(store, stuck))
	refused := inProcess(t, nil, pruning(store, "--keep-last", "1")...)
	wantSound(t, store, 3)
	release()
	refused.want(t, exitFailed, stuck)
	if !strings.Contains(refused.stdout, "Removed 0 sets") || strings.Count(refused.stdout, "left    ") != 2 {
		t.Errorf("printed: %s", refused.stdout)
	}
	inProcess(t, nil, pruning(store, "--keep-last", "1")...).must(t, exitOK)
	wantSound(t, store, 1)
}
