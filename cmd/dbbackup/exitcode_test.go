package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/child"
	"dbbackup/internal/fault"
)

// TestExitCodes brings each exit code about. They are an interface: a change
// here breaks somebody's cron job.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db := server.Database(t)
	server.Exec(t, db, "CREATE TABLE t AS SELECT 1 a")
	foreign := server.Database(t)
	server.Exec(t, foreign, "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE f (a int) SERVER s")
	store := newStore(t)
	single := []string{"backup", "single", db, "--store", store}
	dbbackup(t, server.Env(), single...).must(t, 0)
	set := onlySet(t, store)

	for _, tt := range []struct {
		name string
		code int
		env  []string
		args []string
	}{
		{"ok", 0, nil, []string{"verify", set, "--store", store}},
		{"failed", 1, nil, append(single, "--before-hook", "/bin/false")},
		{"usage", 2, nil, append(single, "--nosuchflag")},
		{"usage in the config file", 2, []string{"DBBACKUP_CONFIG=" + configFile(t, "nosuchkey: 1")}, single},
		{"what was asked to be left out", 0, nil, []string{"backup", "single", db, "--store", newStore(t), "--exclude-table", "t"}},
		{"omissions", 3, nil, []string{"backup", "single", foreign, "--store", newStore(t)}},
		{"no such store", 10, nil, []string{"list", "--store", "/nonexistent"}},
		{"no such set", 10, nil, []string{"show", "nosuchset", "--store", store}},
		{"no such database", 10, nil, []string{"backup", "single", "nosuchdb", "--store", store}},
		{"database not in the set", 10, nil, []string{"restore", "single", "nosuchdb", "--set", set, "--store", store}},
		{"wrong password", 14, []string{"PGPASSWORD=wrong"}, single},
		{"no tools", 14, nil, append(single, "--pg-bin", "/nonexistent")},
		{"database exists", 14, nil, []string{"restore", "single", db, "--store", store}},
	} {
		t.Run(fmt.Sprintf("%d %s", tt.code, tt.name), func(t *testing.T) {
			t.Parallel()
			got := dbbackup(t, append(server.Env(), tt.env...), tt.args...)
			got.want(t, tt.code)
			if tt.code != 0 && tt.code != exitOmissions && got.stdout != "" {
				t.Errorf("standard output: got %q, want errors on standard error only", got.stdout)
			}
		})
	}
	t.Run("13 damaged set", func(t *testing.T) {
		copied := filepath.Join(t.TempDir(), "store")
		if err := os.CopyFS(copied, os.DirFS(store)); err != nil {
			t.Fatal(err)
		}
		flipByte(t, filepath.Join(copied, set, "databases", db+".dump"))
		dbbackup(t, nil, "verify", set, "--store", copied).want(t, exitIntegrity, "is damaged")
	})
	t.Run("signals and the lock", func(t *testing.T) {
		for signal, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143} {
			hook, saw := hookProgram(t, "exec sleep 600")
			r := start(t, server.Env(), append(single, "--before-hook", hook)...)
			eventually(t, "the hook runs", func() bool { return hasRun(saw) })
			if err := r.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			r.wait(t).want(t, code, "interrupted by ")
		}
		conn := server.Connect(t, db)
		if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE t"); err != nil {
			t.Fatal(err)
		}
		r := start(t, server.Env(), single...)
		waits := "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '" + db + "'"
		eventually(t, "the first run holds the store's lock", func() bool { return server.QueryString(t, "postgres", waits) != "0" })
		dbbackup(t, server.Env(), single...).want(t, exitLocked, "the store is locked by", "wait for the other run to end")
		if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		r.wait(t).want(t, 0)
	})
}

func flipByte(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil || len(content) == 0 {
		t.Fatalf("got %d bytes, %v", len(content), err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestExitCodeOfErrors has what cannot be brought about from outside, and how
// codes win over each other when several things went wrong.
func TestExitCodeOfErrors(t *testing.T) {
	key := fault.New(fault.WrongKey, "", "no key opens it")
	signal := &signalError{syscall.SIGTERM}
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"wrong key", key, 12},
		{"wrong key, deep down", fmt.Errorf("open: %w", errors.Join(errors.New("x"), key)), 12},
		{"server gone", fault.New(fault.Unavailable, "", "gone"), 1},
		{"a signal explains whatever broke off", errors.Join(key, fmt.Errorf("stopped: %w", signal)), 143},
		{"cancelled", context.Canceled, 130},
		{"cancelled because it stalled", fmt.Errorf("%w: %w", &child.StallError{Stall: time.Second}, context.Canceled), 1},
		{"omissions alone", errOmissions, 3},
		{"omissions beside a failure", errors.Join(errOmissions, errors.New("x")), 1},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestVersionIsAFlagToo(t *testing.T) {
	t.Parallel()
	command, flag := dbbackup(t, nil, "version").must(t, exitOK), dbbackup(t, nil, "--version").must(t, exitOK)
	if flag.stdout != command.stdout || flag.stdout == "" || flag.stderr != "" {
		t.Errorf("--version: got %q and %q on standard error, want %q", flag.stdout, flag.stderr, command.stdout)
	}
}
