package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dbbackup/backup"
	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/internal/store/dir"
)

// quietCluster runs a server that does nothing by itself, so that an unmoved
// transaction counter proves that nothing was written.
func quietCluster(t testing.TB) *pgtest.Cluster {
	t.Helper()
	return shared.Start(t, pgtest.WithSetting("autovacuum", "off"))
}

func transactions(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	return c.QueryString(t, "postgres", "SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
}

// makeSet backs a database up into a store of its own.
func makeSet(t testing.TB, c *pgtest.Cluster, db, mode string) (store, id string) {
	t.Helper()
	store = newStore(t)
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", mode).must(t, exitOK)
	return store, onlySet(t, store)
}

// regularFiles are the files below a folder, relative to it.
func regularFiles(t testing.TB, folder string) []string {
	t.Helper()
	return slices.DeleteFunc(filesOf(t, folder), func(name string) bool {
		info, err := os.Lstat(filepath.Join(folder, name))
		return err != nil || !info.Mode().IsRegular()
	})
}

// withFlipped calls fn while one bit of the file's byte at the offset is another.
func withFlipped(t testing.TB, path string, offset int64, fn func()) {
	t.Helper()
	flip := func() {
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close() //nolint:errcheck // WriteAt was checked
		b := make([]byte, 1)
		if _, err := file.ReadAt(b, offset); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := file.WriteAt(b, offset); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	defer flip()
	fn()
}

// offsets are five places of a file, its first and last byte among them.
func offsets(t testing.TB, path string) []int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	last := info.Size() - 1
	if last < 0 {
		return nil
	}
	return slices.Compact([]int64{0, last / 4, last / 2, last * 3 / 4, last})
}

// T36: one bit of one file is another one.
func TestT36FlippedByteSweep(t *testing.T) {
	t.Parallel()
	c := quietCluster(t)
	db := smallDatabase(t, c)
	c.Exec(t, db, "SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))")
	t.Run("all", func(t *testing.T) {
		eachMode(t, func(t *testing.T, mode string) {
			store, id := makeSet(t, c, db, mode)
			named, flips := map[string]bool{}, 0
			for _, name := range regularFiles(t, filepath.Join(store, id)) {
				path := filepath.Join(store, id, name)
				places := offsets(t, path)
				if strings.HasPrefix(name, "server/") { // what is nothing but text to this program
					places = places[2:3]
				}
				for _, offset := range places {
					flips++
					withFlipped(t, path, offset, func() {
						got := inProcess(t, nil, "verify", id, "--store", store)
						output := got.stdout + got.stderr
						if got.code != exitIntegrity || !strings.Contains(output, name) {
							t.Fatalf("%s with byte %d flipped: exit code %d, want %d and the file named\n%s", name, offset, got.code, exitIntegrity, output)
						}
						for _, table := range []string{"accounts", "branches"} {
							named[name] = named[name] || strings.Contains(output, table)
						}
					})
				}
			}
			if flips < 30 {
				t.Errorf("only %d bytes were flipped", flips)
			}
			if mode == "custom" && !named["databases/"+db+".dump"] {
				t.Error("no flip in the archive named a table")
			}
			if mode == "chunked" && !slices.ContainsFunc(slices.Collect(maps.Keys(named)), func(name string) bool { return named[name] && strings.HasSuffix(name, ".copy.zst") }) {
				t.Error("no flip in the chunks named a table")
			}
			if mode == "directory" && countTrue(named) < 2 {
				t.Errorf("files whose damage named a table: %v", named)
			}
			wantSound(t, store, 1) // the sweep left it as it was
		})
	})
}

func countTrue(m map[string]bool) (n int) {
	for _, yes := range m {
		if yes {
			n++
		}
	}
	return n
}

// T36, R1: a restore from a damaged set changes nothing on its target. Chunks are
// checked while they are loaded.
func TestT36RestoreRefusesBeforeWriting(t *testing.T) {
	t.Parallel()
	c := quietCluster(t)
	db := smallDatabase(t, c)
	for _, mode := range modes {
		store, id := makeSet(t, c, db, mode)
		restore := []string{"restore", "single", db, "--target-db", db + "_" + mode, "--set", id, "--store", store}
		before := transactions(t, c)
		tried := 0
		for _, name := range regularFiles(t, filepath.Join(store, id)) {
			if strings.HasPrefix(name, "server/") || name == "globals.sql" {
				continue // a single database does not need them
			}
			if isChunk(name) {
				continue
			}
			path := filepath.Join(store, id, name)
			tried++
			withFlipped(t, path, offsets(t, path)[2], func() {
				if got := inProcess(t, c, restore...); got.code != exitIntegrity || !strings.Contains(got.stderr, name) {
					t.Errorf("%s: exit code %d, want %d and the file named\n%s", name, got.code, exitIntegrity, got.stderr)
				}
			})
		}
		if after := transactions(t, c); after != before || tried < 4 {
			t.Errorf("%d refused restores took the server from transaction %s to %s", tried, before, after)
		}
		inProcess(t, c, restore...).want(t, exitOK)
		if transactions(t, c) == before {
			t.Error("a restore does not move the transaction counter: the test proves nothing")
		}
	}
}

// T38: a file is lost. What does not need it still works.
func TestT38LostObject(t *testing.T) {
	t.Parallel()
	c := quietCluster(t)
	for _, db := range []string{"one", "two"} {
		c.CreateDatabase(t, db)
		c.Exec(t, db, "CREATE TABLE t AS SELECT '"+db+"' AS x")
	}
	for _, mode := range modes {
		store := newStore(t)
		dbbackup(t, c.Env(), "backup", "cluster", "--store", store, "--mode", mode).must(t, exitOK)
		id := onlySet(t, store)
		lost := lostObject(t, filepath.Join(store, id, "databases"))
		if err := os.Remove(filepath.Join(store, id, lost)); err != nil {
			t.Fatal(err)
		}
		if set := listing(t, store)[0]; set.Status != "damaged" || !strings.Contains(set.Reason, lost) {
			t.Errorf("listed as %s (%s), want damaged, naming %s", set.Status, set.Reason, lost)
		}
		for _, verify := range [][]string{{"verify", id}, {"verify", id, "--quick"}} {
			got := inProcess(t, nil, append(verify, "--store", store)...)
			got.want(t, exitIntegrity, "is damaged")
			if !strings.Contains(got.stdout, lost) {
				t.Errorf("verify does not name %s", lost)
			}
		}
		before := transactions(t, c)
		inProcess(t, c, "restore", "single", "one", "--target-db", "back", "--set", id, "--store", store).want(t, exitIntegrity, lost)
		inProcess(t, c, "restore", "cluster", "--clean", "--confirm", "--set", id, "--store", store).want(t, exitIntegrity, lost)
		if after := transactions(t, c); after != before {
			t.Errorf("refused restores took the server from transaction %s to %s", before, after)
		}
		to := "two_" + mode
		dbbackup(t, c.Env(), "restore", "single", "two", "--target-db", to, "--set", id, "--store", store).want(t, exitOK)
		if got := c.QueryString(t, to, "SELECT x FROM t"); got != "two" {
			t.Errorf("restored row: got %q, want two", got)
		}
		c.DropDatabase(t, to)
	}
}

// lostObject chooses a file with data of database one.
func lostObject(t testing.TB, databases string) string {
	t.Helper()
	for _, pattern := range []string{"one.dump", "one.sql.gz", "one.dir/*.dat.gz", "one.chunks/*.copy.zst"} {
		if found, _ := filepath.Glob(filepath.Join(databases, pattern)); len(found) > 0 {
			name, _ := filepath.Rel(filepath.Dir(databases), found[0])
			return name
		}
	}
	t.Fatal("database one has no dump")
	return ""
}

// T39: a file that nobody knows lies in the set.
func TestT39UnknownFile(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		store, id := makeSet(t, c, db, mode)
		folder := "databases"
		if mode == "directory" {
			folder += "/" + db + ".dir"
		}
		writeFile(t, filepath.Join(store, id, folder, "notes.txt"), []byte("remember the milk"), 0o600)
		got := inProcess(t, nil, "verify", id, "--store", store)
		got.want(t, exitOK)
		if !strings.Contains(got.stdout, "warning: ") || !strings.Contains(got.stdout, folder+"/notes.txt") {
			t.Errorf("verify does not warn of the file:\n%s", got.stdout)
		}
		wantSound(t, store, 1)
		dbbackup(t, c.Env(), "restore", "single", db, "--target-db", db+"_back", "--store", store).want(t, exitOK)
		t.Cleanup(func() { c.DropDatabase(t, db+"_back") })
	})
}

// T41: the manifest of the newest set is not what was written.
func TestT41BrokenManifest(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, good := makeSet(t, c, db, "custom")
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store).must(t, exitOK)
	bad := listing(t, store)[1].ID
	path := filepath.Join(store, bad, "manifest.json")
	whole := readFile(t, path)
	for name, text := range map[string][]byte{
		"empty": {}, "half": whole[:len(whole)/2], "garbage": []byte("\x00\xff{garbage"), "null": []byte("null\n"),
		"another's": readFile(t, filepath.Join(store, good, "manifest.json")), "appended": append(slices.Clone(whole), "{}"...),
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, path, text, 0o600)
			wantBroken(t, store, bad)
		})
	}
	t.Run("lost", func(t *testing.T) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		wantBroken(t, store, bad)
	})
	got := inProcess(t, nil, "verify", "--store", store)
	got.want(t, exitIntegrity, "passed over backup set "+bad, bad+" is newer, and damaged")
	if !strings.Contains(got.stdout, good+" is sound") {
		t.Errorf("the older set was not taken:\n%s", got.stdout)
	}
	inProcess(t, nil, "gc", "--store", store).want(t, exitOK)
	if left := listing(t, store); len(left) != 2 {
		t.Errorf("gc removed a damaged set, which may be all that is left of it: %+v", left)
	}
}

func wantBroken(t *testing.T, store, id string) {
	t.Helper()
	sets := listing(t, store)
	if len(sets) != 2 || sets[0].Status != "complete" || sets[1].Status != "damaged" || !strings.Contains(sets[1].Reason, "manifest.json") {
		t.Errorf("listed: %+v, want a complete and a damaged set, and the manifest named", sets)
	}
	inProcess(t, nil, "verify", id, "--store", store).want(t, exitIntegrity, "manifest.json")
	inProcess(t, nil, "show", id, "--store", store).want(t, exitIntegrity, "manifest.json")
}

// forge changes a set's manifest, and its digests with it, as somebody would
// who can write to the store.
func forge(t testing.TB, store, id string, change func(text string) string) {
	t.Helper()
	path := filepath.Join(store, id, "manifest.json")
	before := string(readFile(t, path))
	after := change(before)
	if after == before {
		t.Fatal("the manifest was not changed")
	}
	writeFile(t, path, []byte(after), 0o600)
	var m struct{ Objects []backupset.Object }
	if err := json.Unmarshal([]byte(after), &m); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(after))
	sums := hex.EncodeToString(digest[:]) + "  manifest.json\n"
	for _, o := range m.Objects {
		sums += o.SHA256 + "  " + o.Name + "\n"
	}
	writeFile(t, filepath.Join(store, id, "SHA256SUMS"), []byte(sums), 0o600)
}

// T43, F1: a set of a newer format, and one with fields that only a newer
// release knows.
func TestT43NewerFormat(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, id := makeSet(t, c, db, "custom")
	forge(t, store, id, func(text string) string {
		return strings.Replace(text, `"kind":`, `"moon_phase": {"waxing": [1, 2]}, "kind":`, 1)
	})
	wantSound(t, store, 1)
	forge(t, store, id, func(text string) string {
		return strings.NewReplacer(`"format": 1`, `"format": 4`, `"needs_tool": "1.0.0"`, `"needs_tool": "9.8.7"`).Replace(text)
	})
	if set := listing(t, store)[0]; set.Status != "newer" || !strings.Contains(set.Reason, "9.8.7") {
		t.Errorf("listed as %s: %s", set.Status, set.Reason)
	}
	inProcess(t, nil, "verify", id, "--store", store).want(t, exitPrecondition, "needs dbbackup >= 9.8.7")
	dbbackup(t, c.Env(), "restore", "single", db, "--target-db", "no", "--set", id, "--store", store).want(t, exitPrecondition, "needs dbbackup >= 9.8.7")
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store).want(t, exitOK) // it is not in the way
}

// T98: a manifest that was made to lead elsewhere, its digests recomputed.
func TestT98HostileManifest(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	parent := t.TempDir()
	store := filepath.Join(parent, "store")
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store).must(t, exitOK)
	id := onlySet(t, store)
	manifest, sums := filepath.Join(store, id, "manifest.json"), filepath.Join(store, id, "SHA256SUMS")
	sound, soundSums := readFile(t, manifest), readFile(t, sums)
	dump := "databases/" + db + ".dump"
	outside := filepath.Join(parent, "evil")
	writeFile(t, outside, readFile(t, filepath.Join(store, id, dump)), 0o600)
	for name, to := range map[string]string{
		"parent": "../../evil", "absolute": outside, "hidden parent": "databases/../../../evil", "dot": "databases/./" + db + ".dump",
		"NUL": `databases/\u0000.dump`, "newline": `databases/a\nb`, "long": strings.Repeat("a/", 2500) + "b", "long segment": strings.Repeat("a", 300),
		"reserved": "manifest.json", "store's own": "databases/.staged-0123456789abcdef", "empty": "", "another's": "databases/" + db + ".create.sql",
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, manifest, sound, 0o600)
			forge(t, store, id, func(text string) string { return strings.ReplaceAll(text, `"`+dump+`"`, `"`+to+`"`) })
			wantRefused(t, c, db, store, id)
		})
	}
	t.Run("another id", func(t *testing.T) {
		writeFile(t, manifest, sound, 0o600)
		forge(t, store, id, func(text string) string { return strings.Replace(text, `"`+id+`"`, `"../`+id+`"`, 1) })
		wantRefused(t, c, db, store, id)
	})
	writeFile(t, manifest, sound, 0o600)
	writeFile(t, sums, soundSums, 0o600)
	wantSound(t, store, 1)
	if left := filesOf(t, parent); slices.ContainsFunc(left, func(name string) bool { return name != "evil" && !strings.HasPrefix(name, "store") }) {
		t.Errorf("files beside the store: %q", left)
	}
}

// wantRefused checks that nobody takes a set for sound, and that restoring it
// makes no database.
func wantRefused(t *testing.T, c *pgtest.Cluster, db, store, id string) {
	t.Helper()
	for _, set := range listing(t, store) {
		if set.Status == "complete" {
			t.Error("it is listed as complete")
		}
	}
	inProcess(t, nil, "verify", id, "--store", store).want(t, exitIntegrity)
	inProcess(t, c, "restore", "single", db, "--target-db", db+"_evil", "--set", id, "--store", store).want(t, exitIntegrity)
	if left := c.Query(t, "postgres", "SELECT 1 FROM pg_database WHERE datname = '"+db+"_evil'"); len(left) != 0 {
		t.Error("the database was made")
	}
}

// T98: files of a set that are something else.
func TestT98HostileFiles(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		store, id := makeSet(t, c, db, mode)
		set, outside := filepath.Join(store, id), t.TempDir()
		target := "databases/" + db + map[string]string{"custom": ".dump", "plain": ".sql.gz", "directory": ".dir/toc.dat", "chunked": ".chunks/000001.copy.zst"}[mode]
		for name, put := range map[string]func(path, moved string) error{
			"link to the file": func(path, moved string) error { return os.Symlink(moved, path) },
			"link in a circle": func(path, _ string) error { return os.Symlink(path, path) },
			"pipe":             func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
			"device":           func(path, _ string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
			"folder":           func(path, _ string) error { return os.Mkdir(path, 0o700) },
		} {
			t.Run(name, func(t *testing.T) {
				if name == "device" {
					needRoot(t)
				}
				swapped(t, filepath.Join(set, target), filepath.Join(outside, "file"), put, func() { wantRefused(t, c, db, store, id) })
			})
		}
		t.Run("link to the folder", func(t *testing.T) {
			swapped(t, filepath.Join(set, filepath.Dir(target)), filepath.Join(outside, "folder"),
				func(path, moved string) error { return os.Symlink(moved, path) }, func() { wantRefused(t, c, db, store, id) })
		})
		if mode == "directory" {
			t.Run("link beside", func(t *testing.T) {
				beside := filepath.Join(filepath.Dir(filepath.Join(set, target)), "9999.dat")
				link(t, "/etc/passwd", beside)
				got := inProcess(t, nil, "verify", id, "--store", store)
				if got.want(t, exitIntegrity); !strings.Contains(got.stdout, "9999.dat") {
					t.Errorf("verify does not name the link:\n%s", got.stdout)
				}
				inProcess(t, c, "restore", "single", db, "--target-db", db+"_evil", "--set", id, "--store", store).want(t, exitIntegrity, "9999.dat")
				if err := os.Remove(beside); err != nil {
					t.Fatal(err)
				}
			})
		}
		wantSound(t, store, 1)
	})
}

// swapped calls fn while something else stands at path, which was moved away.
func swapped(t *testing.T, path, moved string, put func(path, moved string) error, fn func()) {
	t.Helper()
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	if err := put(path, moved); err != nil {
		t.Fatal(err)
	}
	fn()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(moved, path); err != nil {
		t.Fatal(err)
	}
}

// T87: runs within one second, and under a clock that jumps.
func TestT87ClockThatJumps(t *testing.T) {
	t.Parallel()
	ctx, c := t.Context(), shared.Cluster(t)
	db := smallDatabase(t, c)
	path := newStore(t)
	at := time.Date(2026, 3, 29, 0, 59, 59, 500e6, time.UTC) // a second before summer time begins in Europe
	var ids []string
	for _, now := range []time.Time{at, at, at.Add(time.Second), at.Add(-time.Hour), at.AddDate(-10, 0, 0), at.AddDate(10, 0, 0), at} {
		result, err := backup.Run(ctx, runAt(t, c, db, path, now))
		if err != nil {
			t.Fatalf("at %s: %v", now, err)
		}
		ids = append(ids, result.ID)
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(ids))); !slices.Equal(sorted, ids) {
		t.Errorf("ids of successive runs: got %q, want them to increase", ids)
	}
	wantSound(t, path, len(ids))
	got := inProcess(t, nil, "verify", "--store", path)
	if got.want(t, exitOK); !strings.Contains(got.stdout, ids[len(ids)-1]) {
		t.Errorf("latest: got %s, want %s", got.stdout, ids[len(ids)-1])
	}
	dbbackup(t, c.Env(), "backup", "single", db, "--store", path).want(t, exitOK) // now lies between them
	wantSound(t, path, len(ids)+1)
}

// runAt are the options of a run of which every reading of the clock says now.
func runAt(t testing.TB, c *pgtest.Cluster, db, path string, now time.Time) backup.Options {
	t.Helper()
	params, err := pg.ParseParams(c.URI("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := pg.Resolve(t.Context(), pg.Options{Params: params, Env: hermeticEnv(t), Application: "dbbackup"})
	if err != nil {
		t.Fatal(err)
	}
	place, err := dir.Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = place.Close() })
	return backup.Options{
		Source: source, Search: pgtool.Search{BinDir: c.BinDir, Env: hermeticEnv(t)}, Store: place, Report: report.Discard{},
		Kind: backupset.Single, Database: db, Defaults: backup.Settings{Mode: backupset.Custom, Level: 1, ChunkBytes: 1 << 30},
		ParallelDatabases: 1, Jobs: 1, Readers: 1, Procs: 1, Attempts: 1, SpaceCheck: true,
		Tool: backupset.Tool{Name: "dbbackup", Version: version}, Host: hostname(), PID: os.Getpid(),
		Purpose: fmt.Sprintf("run at %s", now), Now: func() time.Time { return now },
	}
}

func isChunk(object string) bool { return strings.HasSuffix(object, ".copy.zst") }

// T36, R1: nothing of a damaged chunk is committed, and the database does not get its
// name. Also where what is damaged can be decompressed, and the server is the first
// to complain of it. What is whole is there to go on with.
func TestT36DamagedChunkIsNotLoaded(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, to := smallDatabase(t, c), c.FreeName(t)
	c.Exec(t, db, `CREATE TABLE numbers AS SELECT g AS id, random() AS value FROM generate_series(1, 60000) g;
		SELECT lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))`)
	store, id := makeSet(t, c, db, "chunked")
	restore := restoring(store, db, "--target-db", to, "--set", id)
	plan := restoring(store, db, "--target-db", to, "--set", id, "--dry-run")
	inProcess(t, c, plan...).want(t, exitOK)
	numbers := filepath.Join(store, id, chunkOf(t, filepath.Join(store, id), db, "numbers"))
	tried := 0
	for _, name := range regularFiles(t, filepath.Join(store, id)) {
		if !isChunk(name) {
			continue
		}
		path := filepath.Join(store, id, name)
		places := offsets(t, path)
		if path == numbers {
			places = append(places, 100, 1000) // in the first block's literals
		} else {
			places = places[1:3]
		}
		for _, offset := range places {
			tried++
			withFlipped(t, path, offset, func() {
				for _, args := range [][]string{plan, restore} {
					if got := inProcess(t, c, args...); got.code != exitIntegrity || !strings.Contains(got.stderr, name) {
						t.Errorf("%s at %d: exit code %d, want %d and the file named\n%s", name, offset, got.code, exitIntegrity, got.stderr)
					}
				}
			})
			if hasDatabase(t, c, to) {
				t.Fatalf("%s at %d: the database has its name", name, offset)
			}
			if left := unfinished(t, c, to); left != "" { // else the next attempt would not need what is loaded
				c.DropDatabase(t, left)
			}
		}
	}
	if tried < 11 {
		t.Errorf("%d places were tried", tried)
	}
	withFlipped(t, numbers, 1000, func() { inProcess(t, c, restore...).want(t, exitIntegrity, "kept as database") })
	inProcess(t, c, restore...).want(t, exitOK, "going on with an interrupted restore")
	zoo.Compare(t, c, db, c, to)
	wantQuiet(t, c, to)
}
