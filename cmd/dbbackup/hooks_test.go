package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hookProgram makes a program that keeps its arguments, environment and
// standard input as files, and then runs a command of the shell's.
func hookProgram(t *testing.T, then string) (path, seen string) {
	t.Helper()
	seen = t.TempDir()
	path = filepath.Join(t.TempDir(), "hook program")
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$@\" >'%[1]s/args'\nenv >'%[1]s/env'\ncat >'%[1]s/stdin'\ntouch '%[1]s/ran'\n%[2]s\n", seen, then)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path, seen
}

func readSeen(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func hasRun(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "ran"))
	return err == nil
}

func TestHooksGetTheirArgumentsAndTheResult(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db, store := server.Database(t), newStore(t)
	before, beforeSaw := hookProgram(t, "echo from before")
	after, afterSaw := hookProgram(t, "echo from after >&2")
	file := configFile(t, fmt.Sprintf("hooks:\n  before: [%q, \"a  b\", \"$(touch /tmp/never); *\", \"--\", \"\"]\n  after: [%q]\n", before, after))
	got := dbbackup(t, append(server.Env(), "DBBACKUP_CONFIG="+file), "backup", "single", db, "--store", store)
	got.must(t, 0).want(t, 0, `line="from before"`, `line="from after"`)

	if got, want := readSeen(t, beforeSaw, "args"), "a  b\n$(touch /tmp/never); *\n--\n\n"; got != want {
		t.Errorf("arguments: got %q, want %q", got, want)
	}
	var sum summary
	if err := json.Unmarshal([]byte(readSeen(t, afterSaw, "stdin")), &sum); err != nil {
		t.Fatal(err)
	}
	if sum.Result != "ok" || sum.Set != onlySet(t, store) || len(sum.Databases) != 1 || sum.Databases[0].Name != db {
		t.Errorf("standard input of the after hook: got %+v", sum)
	}
	wantEnv(t, afterSaw, "DBBACKUP_RESULT=ok", "DBBACKUP_EXIT_CODE=0", "DBBACKUP_SET="+sum.Set, "DBBACKUP_STORE="+store,
		"DBBACKUP_COMMAND=backup single", "PGUSER="+server.User)
	for _, dir := range []string{beforeSaw, afterSaw} {
		if env := readSeen(t, dir, "env"); strings.Contains(env, "PGPASSWORD") || strings.Contains(env, server.Password) {
			t.Errorf("a hook got the password:\n%s", env)
		}
	}
}

// wantEnv checks that variables are among those that a hook got.
func wantEnv(t *testing.T, dir string, want ...string) {
	t.Helper()
	env := "\n" + readSeen(t, dir, "env")
	for _, kv := range want {
		if !strings.Contains(env, "\n"+kv+"\n") {
			t.Errorf("environment of the hook: got %s\nwant %s in it", env, kv)
		}
	}
}

func TestRunDoesNotBeginWhenTheBeforeHookFails(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db, store := server.Database(t), newStore(t)
	before, _ := hookProgram(t, "echo not today >&2; exit 7")
	after, saw := hookProgram(t, "")
	got := dbbackup(t, server.Env(), "backup", "single", db, "--store", store, "--before-hook", before, "--after-hook", after)
	got.want(t, exitFailed, "exited with status 7", "not today")
	if _, err := os.Stat(store); err == nil {
		t.Error("the store was made, although the run was not to begin")
	}
	wantEnv(t, saw, "DBBACKUP_RESULT=failed", "DBBACKUP_EXIT_CODE=1", "DBBACKUP_SET=")
}

func TestFailedAfterHookFailsTheRunButKeepsItsSet(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db, store := server.Database(t), newStore(t)
	after, _ := hookProgram(t, "exit 3")
	dbbackup(t, server.Env(), "backup", "single", db, "--store", store, "--after-hook", after).
		want(t, exitFailed, "after hook", "exited with status 3")
	dbbackup(t, nil, "verify", onlySet(t, store), "--store", store).want(t, 0)
}

func TestHangingHookIsEnded(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	before, saw := hookProgram(t, "exec sleep 600")
	began := time.Now()
	dbbackup(t, server.Env(), "backup", "single", "postgres", "--store", newStore(t), "--before-hook", before, "--hook-timeout", "500ms").
		want(t, exitFailed, "before hook", "did not end within 500ms")
	if took := time.Since(began); took > 30*time.Second || !hasRun(saw) {
		t.Errorf("took %s, ran: %t", took, hasRun(saw))
	}
}

func TestAfterHookRunsWhenTheRunIsTerminated(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	db, store := server.Database(t), newStore(t)
	server.Exec(t, db, "CREATE TABLE locked (a int)")
	conn := server.Connect(t, db)
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE locked"); err != nil {
		t.Fatal(err)
	}
	after, saw := hookProgram(t, "")
	r := start(t, server.Env(), "backup", "single", db, "--store", store, "--after-hook", after)
	eventually(t, "pg_dump waits for the lock", func() bool {
		return server.QueryString(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '"+db+"'") != "0"
	})
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.wait(t).want(t, exitTerminated, "interrupted by SIGTERM")
	wantEnv(t, saw, "DBBACKUP_RESULT=failed", "DBBACKUP_EXIT_CODE=143")
}

func TestErrorInAHooksEnvironmentIsBounded(t *testing.T) {
	t.Parallel()
	long := forEnvironment(strings.Repeat("ü", 1<<20) + "\x00")
	if len(long) > errorInEnvironment+3 || strings.Contains(long, "\x00") || !strings.HasSuffix(long, "...") {
		t.Errorf("got %d bytes", len(long))
	}
	if got := forEnvironment("short"); got != "short" {
		t.Errorf("got %q, want it as it is", got)
	}
}
