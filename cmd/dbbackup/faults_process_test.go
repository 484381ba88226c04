package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// T01: pg_dump is killed while it writes.
func TestT01KilledDumpIsNotAccepted(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachOf(t, dumpModes, func(t *testing.T, mode string) {
		db := bulkDatabase(t, c)
		store, mark := newStore(t), marker(t)
		env := shim(t, c, `
if [ -z "$out" ]; then "$real" "$@" | head -c 100000; kill -9 $$; fi
[ -d "${out%/*}" ] || exit 97
"$real" "$@" & pid=$!
until [ -s "$out" ] && [ -n "$(find "$out" -type f -size +0)" ]; do kill -0 $pid || exit 98; done
kill -9 $pid || exit 99
kill -9 $$`)
		got := dbbackup(t, append(env, mark), "backup", "single", db, "--store", store, "--mode", mode)
		got.want(t, exitFailed, "pg_dump killed by signal 9", db)
		if mode == "plain" {
			got.want(t, exitFailed, "after 100000 bytes")
		}
		wantEmpty(t, store)
		wantNoTrace(t, c, db, mark)
	})
}

// T02: one pg_dump of three writes everything and fails then.
func TestT02OneFailedDatabaseFailsTheRun(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	for _, db := range []string{"one", "two", "three"} {
		c.CreateDatabase(t, db)
		c.Exec(t, db, "CREATE TABLE t AS SELECT 1 AS x")
	}
	env := shim(t, c, `case "$*" in *"dbname='two'"*|*"dbname=two"*) "$real" "$@"; echo "two is lost" >&2; exit 1;; esac; exec "$real" "$@"`)
	for _, mode := range modes {
		store := newStore(t)
		got := dbbackup(t, env, "backup", "cluster", "--store", store, "--mode", mode, "--json")
		got.want(t, exitFailed, "database two", "status 1", "two is lost")
		var sum summary
		got.decode(t, &sum)
		results := map[string]string{}
		for _, d := range sum.Databases {
			results[d.Name] = d.Result
		}
		if results["one"] != "ok" || results["three"] != "ok" || results["two"] != "failed" {
			t.Errorf("results: got %v, want all ok but two", results)
		}
		wantSound(t, store, 1)
		for _, name := range filesOf(t, store) {
			if strings.Contains(name, "two") {
				t.Errorf("%s is left of the database that failed", name)
			}
		}
		if mode != "custom" {
			continue
		}
		dbbackup(t, c.Env(), "restore", "single", "three", "--store", store, "--target-db", "three_"+mode).want(t, exitOK, "lacks what failed", "two")
		dbbackup(t, c.Env(), "restore", "single", "two", "--store", store, "--target-db", "two_"+mode).want(t, exitNotFound, "two")
	}
}

// T04: pg_dump exits with status 0 and wrote nothing, or an empty file.
func TestT04EmptyOutputIsNotAccepted(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		for _, script := range []string{`exit 0`, `[ -n "$out" ] && : > "$out"; exit 0`, `[ -n "$out" ] && mkdir "$out" && : > "$out/toc.dat"; exit 0`} {
			store := newStore(t)
			dbbackup(t, shim(t, c, script), "backup", "single", db, "--store", store, "--mode", mode).
				want(t, exitFailed, "status 0", "not whole", db)
			wantNoSet(t, store, mode)
		}
	})
}

// T05: pg_dump is older than the server.
func TestT05OlderDumpIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	store, dir := newStore(t), t.TempDir()
	called := filepath.Join(dir, "called")
	writeFile(t, filepath.Join(dir, "pg_dump"), []byte(`#!/bin/sh
[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 13.14" && exit
touch `+called+"\n"), 0o700)
	env := append(c.Env(), "PATH="+dir+":"+os.Getenv("PATH"))
	got := dbbackup(t, env, "backup", "single", "postgres", "--store", store)
	got.want(t, exitPrecondition, "13.14", fmt.Sprintf("%d.%d", c.VersionNum/10000, c.VersionNum%10000), "--pg-bin "+c.BinDir)
	if _, err := os.Stat(called); err == nil {
		t.Error("the refused pg_dump was run")
	}
	if _, err := os.Stat(filepath.Join(store, ".lock")); err == nil || len(filesOf(t, store)) != 0 {
		t.Errorf("the store was touched: %q", filesOf(t, store))
	}
}

// T06: there is no pg_dump, or what bears its name is something else.
func TestT06UnusableDumpIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	for name, tc := range map[string]struct {
		make func(path string) error
		text string
	}{
		"missing":        {func(string) error { return nil }, "no such program"},
		"not executable": {func(path string) error { return os.WriteFile(path, []byte("#!/bin/sh\n"), 0o600) }, "not executable"},
		"another":        {func(path string) error { return os.Symlink("/bin/true", path) }, "--version"},
		"dangling":       {func(path string) error { return os.Symlink("/nowhere", path) }, "no such program"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, store := t.TempDir(), newStore(t)
			if err := tc.make(filepath.Join(dir, "pg_dump")); err != nil {
				t.Fatal(err)
			}
			dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--pg-bin", dir).
				want(t, exitPrecondition, filepath.Join(dir, "pg_dump"), tc.text, "--pg-bin "+c.BinDir)
			if name != "missing" { // that one is looked for elsewhere
				env := append(c.Env(), "PATH="+dir)
				dbbackup(t, env, "backup", "single", "postgres", "--store", store).want(t, exitPrecondition, tc.text)
			}
			wantEmpty(t, store)
		})
	}
}

// signals are those that ask a run to end, with their exit codes.
var signals = map[syscall.Signal]int{syscall.SIGTERM: exitTerminated, syscall.SIGINT: exitInterrupted}

// wantStopped signals a run, and checks that it ends in time and how.
func (r *running) wantStopped(t *testing.T, signal syscall.Signal) {
	t.Helper()
	began := time.Now()
	if err := r.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	r.wait(t).want(t, signals[signal], "by "+unix.SignalName(signal))
	took := time.Since(began)
	t.Logf("it stopped within %s", took)
	if took > 30*time.Second { // ten, where nothing else keeps the machine busy
		t.Errorf("the run took %s to stop", took)
	}
}

// T08: a signal while pg_dump waits for a lock, and while it writes.
func TestT08SignalStopsBackup(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := bulkDatabase(t, c)
		store, mark := newStore(t), marker(t)
		args := []string{"backup", "single", db, "--store", store, "--mode", mode, "--jobs", "2"}

		release := lockTable(t, c, db, "bulk_b")
		waiting := start(t, append(c.Env(), mark), args...)
		eventuallySession(t, c, db, "Lock: ")
		waiting.wantStopped(t, syscall.SIGTERM)
		wantEmpty(t, store)
		wantNoTrace(t, c, db, mark)
		release()

		writing := start(t, append(c.Env(), mark), args...)
		eventuallySession(t, c, db, "COPY ")
		writing.wantStopped(t, syscall.SIGINT)
		wantNoSet(t, store, mode)
		wantNoTrace(t, c, db, mark)
	})
}

// T08: pg_dump ignores the request to end.
func TestT08StubbornDumpIsKilled(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, mark := newStore(t), marker(t)
	ready := filepath.Join(t.TempDir(), "ready")
	env := shim(t, c, `trap '' TERM INT; touch `+ready+`; while :; do sleep 1; done`)
	r := start(t, append(env, mark), "backup", "single", db, "--store", store)
	eventually(t, "pg_dump runs", func() bool { _, err := os.Stat(ready); return err == nil })
	r.wantStopped(t, syscall.SIGTERM)
	wantEmpty(t, store)
	wantNoTrace(t, c, db, mark)
}

// T08: a signal before anything was captured, while the first hook runs.
func TestT08SignalStopsHook(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	store, mark, dir := newStore(t), marker(t), t.TempDir()
	hook, ready := filepath.Join(dir, "hook"), filepath.Join(dir, "ready")
	writeFile(t, hook, []byte("#!/bin/sh\ntouch "+ready+"\nexec sleep 600\n"), 0o700)
	r := start(t, append(c.Env(), mark), "backup", "single", "postgres", "--store", store, "--before-hook", hook)
	eventually(t, "the hook runs", func() bool { _, err := os.Stat(ready); return err == nil })
	r.wantStopped(t, syscall.SIGINT)
	wantEmpty(t, store)
	if left := marked(t, mark); len(left) != 0 {
		t.Errorf("processes of the run are left: %q", left)
	}
}

// T08: the second signal ends the process, whatever it still does.
func TestT08SecondSignalForces(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, mark, dir := newStore(t), marker(t), t.TempDir()
	hook, ready := filepath.Join(dir, "hook"), filepath.Join(dir, "ready")
	writeFile(t, hook, []byte("#!/bin/sh\ntouch "+ready+"\nexec sleep 600\n"), 0o700)
	defer lockTable(t, c, db, "branches")()
	r := start(t, append(c.Env(), mark), "backup", "single", db, "--store", store, "--after-hook", hook)
	eventuallySession(t, c, db, "Lock: ")
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the run has ended and its hook runs", func() bool { _, err := os.Stat(ready); return err == nil })
	began := time.Now()
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if got := r.wait(t); got.code != exitInterrupted || time.Since(began) > time.Minute { // of ten that the hook takes
		t.Errorf("exit code %d after %s, want %d at once", got.code, time.Since(began), exitInterrupted)
	}
	wantEmpty(t, store)
	eventually(t, "no process of the run is left", func() bool { return len(marked(t, mark)) == 0 })
}

// T08: a signal while a restore loads data. Of a chunked set the database stays,
// to be gone on with (TestT75).
func TestT08SignalStopsRestore(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachOf(t, dumpModes, func(t *testing.T, mode string) {
		db := bulkDatabase(t, c)
		store, mark, to := newStore(t), marker(t), db+"_back"
		// Loading lasts, so that the signal comes while it does.
		c.Exec(t, db, "ALTER TABLE bulk_a RENAME TO "+db+"_a; ALTER TABLE bulk_b RENAME TO "+db+"_b; ALTER TABLE "+db+
			"_a ADD CHECK (id > 1 OR current_database() NOT LIKE 'dbbackup_restoring%' OR pg_sleep(2) IS NOT NULL)")
		dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", mode, "--compression", "1").must(t, exitOK)
		r := start(t, append(c.Env(), mark), "restore", "single", db, "--target-db", to, "--store", store, "--jobs", "2")
		loading := "SELECT datname FROM pg_stat_activity WHERE query LIKE 'COPY %" + db + "%FROM stdin%' AND state = 'active'"
		var temporary [][]string
		eventually(t, "data is loaded", func() bool { temporary = c.Query(t, "postgres", loading); return len(temporary) > 0 })
		r.wantStopped(t, syscall.SIGTERM)
		if left := c.Query(t, "postgres", "SELECT datname FROM pg_database WHERE datname IN ('"+to+"', '"+temporary[0][0]+"')"); len(left) != 0 {
			t.Errorf("databases of the restore are left: %v", left)
		}
		if left := marked(t, mark); len(left) != 0 {
			t.Errorf("processes of the run are left: %q", left)
		}
		dbbackup(t, c.Env(), "restore", "single", db, "--target-db", to, "--store", store).want(t, exitOK)
		t.Cleanup(func() { c.DropDatabase(t, to) })
	})
}

// T10: what pg_dump writes cannot be taken any more, and pg_dump never ends by
// itself.
func TestT10EndlessDumpIntoFullStore(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, mark := newTmpfs(t, "size=2m"), marker(t)
	env := shim(t, c, `exec yes "$(seq 1 2000)"`)
	dbbackup(t, append(env, mark), "backup", "single", db, "--store", store, "--mode", "plain", "--compression", "0").
		want(t, exitFailed, "no space left on device", db)
	wantEmpty(t, store)
	wantNoTrace(t, c, db, mark)
}

// T11: 100 MB on standard error, then success or failure.
func TestT11FloodOnStandardError(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		store := newStore(t)
		const flood = `head -c 104857600 /dev/zero | tr '\0' 'x' | fold -w 4000 >&2; echo "the last word" >&2; `
		got, peak := start(t, shim(t, c, flood+`exec "$real" "$@"`), "backup", "single", db, "--store", store, "--mode", mode).waitMeasured(t)
		got.want(t, exitOK)
		wantSound(t, store, 1)
		if peak > 200<<20 {
			t.Errorf("peak memory: got %d MB, want less than 200 MB", peak>>20)
		}
		if mode == "directory" {
			return // the rest is as with custom
		}
		failing := newStore(t)
		got = dbbackup(t, shim(t, c, flood+`exit 1`), "backup", "single", db, "--store", failing, "--mode", mode)
		got.want(t, exitFailed, "status 1", "the last word")
		if len(got.stderr) > 100_000 {
			t.Errorf("standard error has %d bytes: more than the tail was kept", len(got.stderr))
		}
		wantNoSet(t, failing, mode)
	})
}

// T12: slow is not stalled.
func TestT12SlowDumpIsNotEnded(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	const drip = `
drip() { # copies standard input, slowly at first: the shortest has 2 kB
	for i in 1 2 3 4 5 6 7 8; do dd bs=200 count=1 iflag=fullblock 2>/dev/null; sleep 0.6; done
	cat
}
case $out in
'') "$real" "$@" | drip;;
*.dir) "$real" "$@" --file="$out.whole" || exit; mkdir "$out"; for f in "$out.whole"/*; do sleep 0.8; cp "$f" "$out"; done; sleep 0.6; rm -r "$out.whole";;
*) "$real" "$@" --file="$out.whole" || exit; drip < "$out.whole" > "$out"; rm "$out.whole";;
esac`
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		if mode == "directory" {
			c.Exec(t, db, "CREATE TABLE c AS SELECT 1 AS x; CREATE TABLE d AS SELECT 1 AS x; CREATE TABLE e AS SELECT 1 AS x")
		}
		store, began := newStore(t), time.Now()
		dbbackup(t, shim(t, c, drip), "backup", "single", db, "--store", store, "--mode", mode, "--stall-timeout", "4s").want(t, exitOK)
		if took := time.Since(began); took < 4500*time.Millisecond {
			t.Errorf("the run took %s: the dump was not slow", took)
		}
		wantSound(t, store, 1)
	})
}

// T12: a dump that does not move, or takes too long in all, is ended.
func TestT12StalledDumpIsEnded(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		store, mark := newStore(t), marker(t)
		for _, tc := range []struct {
			script, text string
			flags        []string
		}{
			{`[ -n "$out" ] || echo "-- begun"; exec sleep 600`, "no progress for 1s", []string{"--stall-timeout", "1s"}},
			{`while :; do if [ -n "$out" ]; then echo more >> "$out"; else echo more; fi; sleep 0.1; done`, "time limit of 2s reached", []string{"--stall-timeout", "15s", "--timeout", "2s"}},
		} {
			began := time.Now()
			args := append([]string{"backup", "single", db, "--store", store, "--mode", mode}, tc.flags...)
			dbbackup(t, append(shim(t, c, tc.script), mark), args...).want(t, exitFailed, tc.text, db)
			if took := time.Since(began); took > time.Minute { // of ten that the dump takes
				t.Errorf("the run took %s to notice", took)
			}
			wantNoSet(t, store, mode)
			wantNoTrace(t, c, db, mark)
		}
	})
}
