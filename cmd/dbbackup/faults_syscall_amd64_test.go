package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dbbackup/internal/pgtest"
)

// ofStore is in the path of everything in a store that newStore names, and of nothing else
// that a run writes to: not of its sockets, nor of its standard output.
const ofStore = "/store"

// T09, B5: a run is killed before the nth of the calls by which it changes its
// store. The last calls, which make the set exist, are all tried, of the others
// some; DBBACKUP_TEST_FULL_SWEEP=1 tries every one.
func TestT09CrashPointSweep(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	for _, mode := range []string{"custom", "plain", "chunked"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			db := smallDatabase(t, c)
			args := []string{"backup", "single", db, "--mode", mode, "--quiet", "--store"}
			store := newStore(t)
			whole := trace(t, injection{path: ofStore}, c.Env(), append(args, store)...)
			whole.must(t, exitOK)
			if whole.calls < 80 {
				t.Fatalf("only %d calls of a run were counted", whole.calls)
			}
			wantSound(t, store, 1)
			for n := 1; ; n = nextPoint(n, whole.calls, mode) {
				store := newStore(t)
				crashed := trace(t, injection{path: ofStore, nth: n}, c.Env(), append(args, store)...)
				if !crashed.fired {
					crashed.want(t, exitOK)
					return
				}
				if wantAfterCrash(t, c, args, store); t.Failed() {
					t.Fatalf("after a crash at call %d of %d", n, whole.calls)
				}
			}
		})
	}
}

// nextPoint is the crash point to try after n, of about total ones. What makes
// the set exist comes last, and is the same in every mode: from the sync of the
// manifest to the release of the lock.
func nextPoint(n, total int, mode string) int {
	spread, last := 5, 7
	switch mode {
	case "plain":
		last = 1
	case "chunked":
		last = 8 // what it leaves to go on with is deleted last
	}
	if os.Getenv("DBBACKUP_TEST_FULL_SWEEP") != "" || n >= total-last {
		return n + 1
	}
	return min(n+total/spread, total-last)
}

// wantAfterCrash checks what a killed run left: what is listed as complete is
// sound, what can be gone on with is, or else the same run works, and after gc nothing but complete sets is there.
func wantAfterCrash(t *testing.T, c *pgtest.Cluster, args []string, store string) {
	t.Helper()
	complete, again := 0, append(args, store)
	if _, err := os.Stat(store); err == nil {
		for _, set := range listing(t, store) {
			switch set.Status {
			case "complete":
				complete++
				inProcess(t, nil, "verify", set.ID, "--store", store).want(t, exitOK)
			case "unfinished":
				if strings.Contains(set.Reason, "dbbackup resume") {
					again = []string{"resume", set.ID, "--store", store}
				}
			default:
				t.Errorf("%s is %s: %s", set.ID, set.Status, set.Reason)
			}
		}
	}
	inProcess(t, c, again...).want(t, exitOK)
	inProcess(t, nil, "gc", "--store", store).want(t, exitOK)
	wantSound(t, store, complete+1)
	for _, name := range filesOf(t, store) {
		if strings.Contains(name, "/.") || name[0] == '.' {
			t.Errorf("gc left %s", name)
		}
	}
}

// T15: a sync fails once, and would succeed if it was tried again: the kernel
// has dropped the pages by then.
func TestT15FailedSyncIsFinal(t *testing.T) {
	t.Parallel()
	testFailingCalls(t, []failingCall{
		{"staged dump", "custom", unix.SYS_FSYNC, ".dump$"},
		{"staged folder", "directory", unix.SYS_FSYNC, "toc.dat$"},
		{"compressed dump", "plain", unix.SYS_FSYNC, ".sql.gz.partial-"},
		{"small object", "custom", unix.SYS_FSYNC, ".properties.json.partial-"},
		{"chunk", "chunked", unix.SYS_FSYNC, ".copy.zst.partial-"},
		{"what can be gone on with", "chunked", unix.SYS_FSYNC, "/journal/.000001.json.partial-"},
		{"digests", "custom", unix.SYS_FSYNC, ".SHA256SUMS.partial-"},
		{"manifest", "custom", unix.SYS_FSYNC, ".manifest.json.partial-"},
		{"folder", "custom", unix.SYS_FSYNC, "/databases$"},
		{"store", "custom", unix.SYS_FSYNC, "/store$"},
	})
}

// T16: any other step of the way into the store fails.
func TestT16FailedStepIsFinal(t *testing.T) {
	t.Parallel()
	testFailingCalls(t, []failingCall{
		{"write of a dump", "plain", unix.SYS_WRITE, ".sql.gz.partial-"},
		{"write of a chunk", "chunked", unix.SYS_WRITE, ".copy.zst.partial-"},
		{"write of the contents", "chunked", unix.SYS_WRITE, ".contents.json.partial-"},
		{"rename of a chunk", "chunked", unix.SYS_RENAMEAT2, ".copy.zst$"},
		{"rename of what was asked for", "chunked", unix.SYS_RENAMEAT2, "/run.json$"},
		{"write of an object", "custom", unix.SYS_WRITE, ".properties.json.partial-"},
		{"write of the manifest", "custom", unix.SYS_WRITE, ".manifest.json.partial-"},
		{"close of a dump", "plain", unix.SYS_CLOSE, ".sql.gz.partial-"},
		{"close of the manifest", "custom", unix.SYS_CLOSE, ".manifest.json.partial-"},
		{"creation of an object", "custom", unix.SYS_OPENAT, ".properties.json.partial-"},
		{"creation of a folder", "directory", unix.SYS_MKDIRAT, "/databases$"},
		{"rename of a dump", "custom", unix.SYS_RENAMEAT2, ".dump$"},
		{"rename of a folder", "directory", unix.SYS_RENAMEAT2, ".dir$"},
		{"rename of the digests", "custom", unix.SYS_RENAMEAT2, "SHA256SUMS$"},
		{"rename of the manifest", "custom", unix.SYS_RENAMEAT2, "manifest.json$"},
	})
}

// failingCall is a system call that reports an I/O error, once.
type failingCall struct {
	name, mode string
	call       uint64
	path       string
}

func testFailingCalls(t *testing.T, cases []failingCall) {
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	t.Run("all", func(t *testing.T) { // the database lives until the last of them has ended
		for _, tc := range cases {
			t.Run(tc.name, func(t *testing.T) {
				t.Parallel()
				store := newStore(t)
				args := []string{"backup", "single", db, "--mode", tc.mode, "--store", store}
				in := injection{calls: []uint64{tc.call}, path: tc.path, nth: 1, errno: unix.EIO, once: true}
				got := trace(t, in, c.Env(), args...)
				if !got.fired {
					t.Fatalf("the fault did not fire\n%s", got.stderr)
				}
				got.want(t, exitFailed, "input/output error", "hint: the device reported an I/O error")
				wantNoSet(t, store, tc.mode)
				inProcess(t, c, args...).want(t, exitOK)
				wantSound(t, store, 1)
			})
		}
	})
}

// T13: the last byte of room is gone when the manifest is written. What is there
// can be gone on with, or is gone.
func TestT13FullAtTheManifest(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	in := injection{calls: []uint64{unix.SYS_WRITE}, path: ".manifest.json.partial-", nth: 1, errno: unix.ENOSPC}
	for _, mode := range []string{"custom", "chunked"} {
		store := newStore(t)
		got := trace(t, in, c.Env(), "backup", "single", db, "--mode", mode, "--store", store)
		if !got.fired {
			t.Fatal("the fault did not fire")
		}
		got.want(t, exitFailed, "manifest.json", "no space left on device", " is full", "free space or delete old backup sets")
		if mode == "custom" {
			wantEmpty(t, store)
			continue
		}
		wantUnfinished(t, store)
		inProcess(t, c, "resume", "--store", store).must(t, exitOK)
		wantSound(t, store, 1)
		wantNoScratch(t, store)
	}
}

// T16: the sync of the set's folder, after the manifest was renamed.
func TestT16UnsyncedManifestIsTakenBack(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	in := injection{calls: []uint64{unix.SYS_FSYNC}, path: "Z$", errno: unix.EIO, once: true}
	args := []string{"backup", "single", db, "--store"}
	counted := trace(t, in, c.Env(), append(args, newStore(t))...)
	counted.must(t, exitOK)
	in.nth = counted.calls - 1 // the last one is that of the mark, which goes after the manifest has come
	var store string
	var got traced
	for range 8 { // what is captured beside each other shares some of its syncs, or does not: then another one failed
		store = newStore(t)
		if got = trace(t, in, c.Env(), append(args, store)...); got.fired && strings.Contains(got.stderr, "manifest.json") {
			break
		}
	}
	if !got.fired {
		t.Fatal("the fault did not fire")
	}
	got.want(t, exitFailed, "manifest.json", "input/output error")
	wantEmpty(t, store)
}

// T16: the set exists, but the mark of an unfinished one cannot be removed.
func TestT16MarkRemains(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store := newStore(t)
	in := injection{calls: []uint64{unix.SYS_UNLINKAT}, path: "UNFINISHED$", nth: 1, errno: unix.EIO, once: true}
	got := trace(t, in, c.Env(), "backup", "single", db, "--store", store)
	if !got.fired {
		t.Fatal("the fault did not fire")
	}
	got.want(t, exitFailed, "is committed", "delete that file")
	wantSound(t, store, 1)
}

// T90: a prune is killed before the nth of the calls by which it changes the
// store. No set is ever listed as complete that lacks what it refers to, and the
// next prune ends what was begun.
func TestT90PruneCrashPointSweep(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, base := settledDatabase(t, c), newStore(t)
	capture := []string{"backup", "single", db, "--mode", "chunked", "--store", base}
	dbbackup(t, c.Env(), capture...).must(t, exitOK)
	dbbackup(t, c.Env(), append(capture, "--incremental")...).must(t, exitOK)
	dbbackup(t, c.Env(), capture...).must(t, exitOK) // full: neither of the others is needed
	args := []string{"prune", "--keep-last", "1", "--quiet", "--store"}
	stride := 9 // of about 130 calls; DBBACKUP_TEST_FULL_SWEEP=1 tries every one
	if os.Getenv("DBBACKUP_TEST_FULL_SWEEP") != "" {
		stride = 1
	}
	for n := 1; ; n += stride {
		store := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(store, os.DirFS(base)); err != nil {
			t.Fatal(err)
		}
		crashed := trace(t, injection{path: ofStore, nth: n}, nil, append(args, store)...)
		for _, set := range listing(t, store) {
			if set.Status == "complete" {
				inProcess(t, nil, "verify", set.ID, "--quick", "--store", store).want(t, exitOK)
			} else if set.Status != "unfinished" {
				t.Errorf("set %s is %s: %s", set.ID, set.Status, set.Reason)
			}
		}
		inProcess(t, nil, append(args, store)...).want(t, exitOK)
		inProcess(t, nil, "gc", "--store", store).want(t, exitOK)
		wantSound(t, store, 1)
		if t.Failed() {
			t.Fatalf("after a crash at call %d", n)
		}
		if !crashed.fired {
			if n < 30 {
				t.Errorf("only %d calls were tried", n)
			}
			return
		}
	}
}
