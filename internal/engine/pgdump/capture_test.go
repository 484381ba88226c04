package pgdump

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgtest"
)

var modes = []backupset.Mode{backupset.Custom, backupset.Directory, backupset.Plain}

// dumped returns a capture as SQL.
func dumped(t *testing.T, c *pgtest.Cluster, folder string, got Captured) string {
	t.Helper()
	path := filepath.Join(folder, got.Dump)
	if !strings.HasSuffix(path, ".sql.gz") {
		out, err := exec.Command(filepath.Join(c.BinDir, "pg_restore"), "--file=-", path).CombinedOutput()
		if err != nil {
			t.Fatalf("pg_restore: %v: %s", err, out)
		}
		return string(out)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // only read
	gz, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(gz)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// B3: what is committed after the snapshot is not in the capture.
func TestCaptureReadsUnderItsSnapshot(t *testing.T) {
	c := shared.Cluster(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			db := c.Database(t)
			c.Exec(t, db, "CREATE TABLE t (word text); INSERT INTO t VALUES ('before')")
			src := source(t, c).shim(t, fmt.Sprintf(
				`"${real%%/*}/../bin/psql" -X -q -w -h %s -p %d -U %s -d %s -c "INSERT INTO t VALUES ('after')" || exit 9`, c.Host, c.Port, c.User, db))
			set, folder := newSet(t)
			got, err := captureInto(t.Context(), src, set, Request{Database: db, Mode: mode})
			if err != nil {
				t.Fatal(err)
			}
			if rows := c.QueryString(t, db, "SELECT string_agg(word, ' ' ORDER BY word) FROM t"); rows != "after before" {
				t.Fatalf("the table holds %q: the test did not write", rows)
			}
			if sql := dumped(t, c, folder, got); !strings.Contains(sql, "before\n") || strings.Contains(sql, "after\n") {
				t.Errorf("the dump holds:\n%s", sql)
			}
			if got.Snapshot.Name == "" || got.StoredBytes == 0 || (got.DumpBytes > 0) != (mode == backupset.Plain) || got.Usage.Wall == 0 {
				t.Errorf("captured %+v", got)
			}
		})
	}
}

// A capture that fails leaves nothing of itself in the set.
func TestFailedCaptureLeavesNothing(t *testing.T) {
	c := shared.Cluster(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			src := source(t, c)
			set, folder := newSet(t)
			_, err := captureInto(t.Context(), src.shim(t, `"$real" "$@"; exit 1`), set, Request{Database: "postgres", Mode: mode})
			if err == nil || !strings.Contains(err.Error(), "status 1") || !strings.Contains(err.Error(), "database postgres") {
				t.Errorf("error %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(folder, "databases", "*")); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
			// The same name can be captured again.
			if _, err := captureInto(t.Context(), src, set, Request{Database: "postgres", Mode: mode}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestServerThatWentAwayIsUnavailable(t *testing.T) {
	c := shared.Start(t)
	src := source(t, c)
	started, released := filepath.Join(t.TempDir(), "started"), filepath.Join(t.TempDir(), "released")
	src = src.shim(t, fmt.Sprintf("touch %s; until [ -e %s ]; do sleep 0.02; done", started, released))
	set, _ := newSet(t)
	ended := make(chan error, 1)
	go func() {
		_, err := captureInto(t.Context(), src, set, Request{Database: "postgres", Mode: backupset.Custom})
		ended <- err
	}()
	eventually(t, "pg_dump was started", func() bool { return exists(started) })
	c.Kill(t)
	c.Restart(t)
	if err := os.WriteFile(released, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !fault.Is(err, fault.Unavailable) {
		t.Errorf("error %v (kind %d), want fault.Unavailable", err, fault.KindOf(err))
	}
}

// waitingDump starts a capture whose pg_dump waits for a lock, and returns the
// application name of its sessions.
func waitingDump(t *testing.T, c *pgtest.Cluster, ctx context.Context, req Request, script string) (holder string, ended chan error) { //nolint:revive // t comes first in tests
	t.Helper()
	c.Exec(t, req.Database, "CREATE TABLE held (i int)")
	conn := c.Connect(t, req.Database)
	if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	set, _ := newSet(t)
	src := source(t, c).shim(t, script)
	ended = make(chan error, 1)
	go func() {
		_, err := captureInto(ctx, src, set, req)
		ended <- err
	}()
	eventually(t, "pg_dump waits for the lock", func() bool { return dumpSessions(t, c, req.Database, "wait_event_type = 'Lock'") == 1 })
	return strconv.Itoa(int(conn.PgConn().PID())), ended
}

func dumpSessions(t *testing.T, c *pgtest.Cluster, db, where string) int {
	t.Helper()
	n, err := strconv.Atoi(c.QueryString(t, "postgres",
		"SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'dbbackup pg_dump%' AND datname = '"+db+"' AND "+where))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A backend that waits for a lock does not notice that its pg_dump was killed.
func TestSessionsOfAKilledDumpAreEnded(t *testing.T) {
	c := shared.Cluster(t)
	db, pidFile := c.Database(t), filepath.Join(t.TempDir(), "pid")
	_, ended := waitingDump(t, c, t.Context(), Request{Database: db, Mode: backupset.Custom}, "echo $$ > "+pidFile)
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed by signal 9") {
		t.Errorf("error %v", err)
	}
	eventually(t, "pg_dump's backend is gone", func() bool { return dumpSessions(t, c, db, "true") == 0 })
}

func TestLockHolderIsNamed(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	holder, ended := waitingDump(t, c, t.Context(), Request{Database: db, Mode: backupset.Plain, LockTimeout: 2500 * time.Millisecond}, "")
	err := <-ended
	if err == nil || !strings.Contains(err.Error(), "pid "+holder) || !strings.Contains(err.Error(), "LOCK TABLE held") {
		t.Errorf("error %v, want the holder %s and its query", err, holder)
	}
	if hints := fault.Hints(err); len(hints) == 0 || !strings.Contains(hints[0], "--lock-timeout") {
		t.Errorf("hints %q", hints)
	}
}

func TestCancelledCaptureEndsItsSessions(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, ended := waitingDump(t, c, ctx, Request{Database: db, Mode: backupset.Directory}, "")
	cancel()
	if err := <-ended; err == nil {
		t.Error("a cancelled capture succeeded")
	}
	eventually(t, "pg_dump's backends are gone", func() bool { return dumpSessions(t, c, db, "true") == 0 })
}
