package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dbbackup/internal/pgname"
	"dbbackup/internal/store"
)

// newTmpfs mounts a small file system to be a store, until the test is over.
func newTmpfs(t testing.TB, options string) string {
	t.Helper()
	needRoot(t)
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, options+",mode=0700"); err != nil {
		cannot(t, "mount tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}

// remount changes a file system that newTmpfs mounted.
func remount(t testing.TB, path string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount("", path, "", unix.MS_REMOUNT|flags, options); err != nil {
		t.Fatal(err)
	}
}

// T13: the store's file system is full.
func TestT13FullStore(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := bulkDatabase(t, c)
		path := newTmpfs(t, "size=2m")
		args := []string{"backup", "single", db, "--store", path, "--mode", mode, "--compression", "1"}
		dbbackup(t, c.Env(), args...).want(t, exitFailed, "the store is full", "needs about", "bytes are free", "hint: free space")
		wantNoSet(t, path, mode)
		remount(t, path, 0, "size=64m")
		dbbackup(t, c.Env(), args...).want(t, exitOK)
		wantSound(t, path, 1)
	})
}

// T13: a former set tells how large the next one is, and then the run does not
// even begin.
func TestT13KnownSizeIsRefusedAtStart(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := bulkDatabase(t, c)
	path := newTmpfs(t, "size=64m")
	args := []string{"backup", "single", db, "--store", path}
	dbbackup(t, c.Env(), args...).must(t, exitOK)
	remount(t, path, 0, "size=6m")
	dbbackup(t, c.Env(), args...).want(t, exitPrecondition, "the set needs about", "has", "free", "--no-space-check")
	wantSound(t, path, 1)
}

// T18: the store's file system has no room for another file.
func TestT18NoInodes(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	path := newTmpfs(t, "size=64m,nr_inodes=14")
	args := []string{"backup", "single", db, "--store", path, "--mode", "directory"}
	dbbackup(t, c.Env(), args...).want(t, exitPrecondition, "files", "room for")
	wantEmpty(t, path)
	dbbackup(t, c.Env(), append(args, "--no-space-check")...).want(t, exitFailed, "no inodes left")
	wantEmpty(t, path)
	remount(t, path, 0, "nr_inodes=1000")
	dbbackup(t, c.Env(), args...).want(t, exitOK)
	wantSound(t, path, 1)
}

// T19: a file may not grow as large as the dump.
func TestT19FileSizeLimit(t *testing.T) {
	t.Parallel()
	need(t, "prlimit")
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := bulkDatabase(t, c)
		path, mark := newStore(t), marker(t)
		args := []string{"backup", "single", db, "--store", path, "--mode", mode, "--compression", "1"}
		got := startUnder(t, append(c.Env(), mark), []string{"prlimit", "--fsize=500000"}, args...).wait(t)
		got.want(t, exitFailed, db)
		if !strings.Contains(strings.ToLower(got.stderr), "file too large") {
			t.Error("the reason is not named")
		}
		wantNoSet(t, path, mode)
		wantNoTrace(t, c, db, mark)
	})
}

// T20: nothing can be written to the store.
func TestT20ReadOnlyStore(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	t.Run("mount", func(t *testing.T) {
		t.Parallel()
		path := newTmpfs(t, "size=1m")
		remount(t, path, unix.MS_RDONLY, "")
		for _, place := range []string{path, filepath.Join(path, "new")} {
			dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", place).want(t, exitPrecondition, "read-only", path)
		}
		wantEmpty(t, path)
	})
	t.Run("immutable", func(t *testing.T) {
		t.Parallel()
		path := t.TempDir()
		t.Cleanup(immutable(t, path))
		dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", path).want(t, exitPrecondition, "operation not permitted", path, "lsattr")
		wantEmpty(t, path)
	})
}

// immutable makes a folder one in which nothing can be made or removed, until
// the function that it returns is called.
func immutable(t testing.TB, path string) (release func()) {
	t.Helper()
	needRoot(t)
	need(t, "chattr")
	if out, err := exec.Command("chattr", "+i", path).CombinedOutput(); err != nil {
		cannot(t, fmt.Sprintf("chattr: %v: %s", err, out))
	}
	return func() {
		if err := exec.Command("chattr", "-i", path).Run(); err != nil {
			t.Error(err)
		}
	}
}

// T21: every sync of the store takes its time. The run shows how far it is, and holds
// no more in memory than else.
func TestT21SlowDisk(t *testing.T) {
	t.Parallel()
	need(t, "strace")
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, `CREATE TABLE t(id int, raw bytea, page text); ALTER TABLE t ALTER raw SET STORAGE EXTERNAL, ALTER page SET STORAGE PLAIN;
		INSERT INTO t SELECT g, decode(repeat(md5(g::text), 327680), 'hex'), repeat('x', 6000) FROM generate_series(1, 10) g`) // 10 pages, 5 MB each
	args := func(store string) []string {
		return []string{"backup", "single", db, "--store", store, "--mode", "chunked", "--chunk-size", "5MB", "--compression", "none", "--jobs", "2"}
	}
	quick, allowed := start(t, c.Env(), args(newStore(t))...).waitMeasured(t)
	quick.must(t, exitOK)
	allowed += 20 << 20

	store, began := newStore(t), time.Now()
	s := startOnScreenUnder(t, c.Env(), []string{"strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=60000"}, args(store)...)
	peak := measured(t, s.cmd.Process.Pid) // of dbbackup: with -D it is strace that is the other one's child
	amounts := map[string]bool{}
	eventually(t, "the bar has moved twice", func() bool {
		for _, bar := range regexp.MustCompile(`(?m)^`+db+` +\[[=> ]+\] +\d+% +(\d[\d.]* MB)`).FindAllStringSubmatch(s.text(), -1) {
			amounts[bar[1]] = true
		}
		return len(amounts) >= 3
	})
	if code, _ := s.wait(t); code != exitOK {
		t.Errorf("exit code: got %d, want 0", code)
	}
	if took := time.Since(began); took < 1500*time.Millisecond {
		t.Errorf("the run took %s: the disk was not slow", took)
	}
	if took := peak(); took > allowed {
		t.Errorf("peak memory: got %d MB, want %d at most", took>>20, allowed>>20)
	}
	wantSound(t, store, 1)
}

// T22: links wait where the run will write.
func TestT22PreparedLinks(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	victims := t.TempDir()
	victim := filepath.Join(victims, "file")
	writeFile(t, victim, []byte("precious"), 0o644)
	for name, prepare := range map[string]func(path string){
		"lock":          func(path string) { link(t, victim, filepath.Join(path, ".lock")) },
		"dangling lock": func(path string) { link(t, filepath.Join(victims, "new"), filepath.Join(path, ".lock")) },
		"set": func(path string) { // whenever the run begins within the next minute
			for i := range 60 {
				stamp := time.Now().Add(time.Duration(i) * time.Second).UTC().Format("20060102T150405Z")
				link(t, victims, filepath.Join(path, pgname.File(db)+"-"+stamp))
			}
		},
	} {
		path := t.TempDir()
		prepare(path)
		if got := dbbackup(t, c.Env(), "backup", "single", db, "--store", path); got.code != exitFailed && got.code != exitPrecondition {
			t.Errorf("%s: exit code %d, want a refusal", name, got.code)
		}
		if sets := listing(t, path); len(sets) != 0 {
			t.Errorf("%s: sets are listed: %+v", name, sets)
		}
	}
	info, err := os.Stat(victim)
	if err != nil || string(readFile(t, victim)) != "precious" || info.Mode().Perm() != 0o644 {
		t.Errorf("the victim was changed: %v %v", info, err)
	}
	if left := filesOf(t, victims); len(left) != 1 {
		t.Errorf("the victim's folder holds %q", left)
	}
}

func link(t testing.TB, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
}

// T23: another run holds the store.
func TestT23SecondRunIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	path := newStore(t)
	release := lockTable(t, c, db, "branches")
	args := []string{"backup", "single", db, "--store", path}
	first := start(t, c.Env(), args...)
	holder := awaitHolder(t, path, first)
	texts := []string{fmt.Sprintf("pid %d", first.cmd.Process.Pid), "on " + hostname(), "since " + holder.Since.UTC().Format(time.RFC3339), "backup single " + db}
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", path).want(t, exitLocked, texts...)
	keys, elsewhere := newKeys(t), captured(t, c, "postgres")
	for _, other := range [][]string{
		{"gc", "--store", path}, {"prune", "--keep-last", "1", "--store", path}, {"copy", "--all", "--from", elsewhere, "--to", path},
		{"key", "rotate", "--keys", keys, "--recipients-file", filepath.Join(keys, recipientsFile), "--store", path},
	} {
		dbbackup(t, nil, other...).want(t, exitLocked, texts...)
	}
	for _, set := range listing(t, path) {
		if set.Status != "unfinished" {
			t.Errorf("the running set is listed as %s", set.Status)
		}
	}
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", newStore(t)).want(t, exitOK)
	release()
	first.wait(t).want(t, exitOK)
	dbbackup(t, c.Env(), args...).want(t, exitOK)
	wantSound(t, path, 2)
}

// awaitHolder waits until a run has taken a store's lock.
func awaitHolder(t testing.TB, path string, r *running) (holder store.Holder) {
	t.Helper()
	eventually(t, "the run holds the store", func() bool {
		text, err := os.ReadFile(filepath.Join(path, ".lock"))
		return err == nil && json.Unmarshal(text, &holder) == nil && holder.PID == r.cmd.Process.Pid
	})
	return holder
}

// T24: a lock counts while its holder lives, whatever its file says.
func TestT24StaleLock(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	path, mark := newStore(t), marker(t)
	lockFile := filepath.Join(path, ".lock")
	args := []string{"backup", "single", db, "--store", path}
	release := lockTable(t, c, db, "branches")
	holder := start(t, append(c.Env(), mark), args...)
	awaitHolder(t, path, holder)

	old := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, text := range []string{"", "{", `{"host":"elsewhere","pid":1,"since":"2001-01-01T00:00:00Z"}`, `{"host":"` + hostname() + `","pid":999999999,"since":"2999-01-01T00:00:00Z"}`} {
		writeFile(t, lockFile, []byte(text), 0o600)
		if err := os.Chtimes(lockFile, old, old); err != nil {
			t.Fatal(err)
		}
		dbbackup(t, c.Env(), args...).want(t, exitLocked, "locked by")
	}
	holder.kill(t)
	release()
	dbbackup(t, c.Env(), args...).want(t, exitOK)
	wantSound(t, path, 1)
	wantNoTrace(t, c, db, mark)

	reused, err := json.Marshal(store.Holder{Host: hostname(), PID: os.Getpid(), Since: time.Now().Add(time.Hour), Purpose: "backup cluster"})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, lockFile, reused, 0o600)
	dbbackup(t, c.Env(), args...).want(t, exitOK)
	wantSound(t, path, 2)
}

// T25: what a run writes is its user's alone, whatever the umask says.
func TestT25ModesUnderAnyUmask(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		path := filepath.Join(newStore(t), "below")
		under := []string{"sh", "-c", `umask 000; exec "$0" "$@"`}
		startUnder(t, c.Env(), under, "backup", "single", db, "--store", path, "--mode", mode).wait(t).want(t, exitOK)
		seen := 0
		err := filepath.WalkDir(filepath.Dir(path), func(name string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := e.Info()
			want := fs.FileMode(0o600)
			if e.IsDir() {
				want = 0o700
			}
			if seen++; err == nil && info.Mode().Perm() != want {
				t.Errorf("%s has mode %04o, want %04o", name, info.Mode().Perm(), want)
			}
			return err
		})
		if err != nil || seen < 15 {
			t.Errorf("%d files were looked at: %v", seen, err)
		}
	})
}

// T25: others can replace what is in the store.
func TestT25OpenStoreIsWarnedOf(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	path := t.TempDir()
	if err := os.Chmod(path, 0o777); err != nil { //nolint:gosec // that is the fault
		t.Fatal(err)
	}
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", path).want(t, exitOK, "can be written by others", "0777")
}
