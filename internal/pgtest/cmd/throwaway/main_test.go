package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

func TestStartEnvCompareStop(t *testing.T) {
	pgtest.BinDir(t, 0)
	parent, err := os.MkdirTemp("", "throwaway-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil { // the server's user passes through
		t.Fatal(err)
	}
	dirA, dirB := filepath.Join(parent, "a"), filepath.Join(parent, "b")
	for _, args := range [][]string{{"start", dirA}, {"start", "-like", dirA, dirB}} {
		if _, err := call(t, args...); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = call(t, "stop", args[len(args)-1]) })
	}
	out, err := call(t, "env", dirA)
	if err != nil || !strings.Contains(out, "export PGHOST='127.0.0.1'\n") || strings.Count(out, "\n") != 5 {
		t.Errorf("env: got %q, %v", out, err)
	}
	b, err := pgtest.Attach(dirB)
	if err != nil {
		t.Fatal(err)
	}
	b.Exec(t, "postgres", "CREATE TABLE extra(a int)")
	out, err = call(t, "compare", dirA, dirB)
	if err == nil || !strings.Contains(out, `database "postgres": TABLE public.extra: only in the second`) {
		t.Errorf("compare: got %q, %v; want the extra table", out, err)
	}
	if _, err := call(t, "stop", dirA); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dirA); !os.IsNotExist(err) {
		t.Errorf("the folder is there after stop: %v", err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"start"}, {"stop"}, {"compare", "one"}, {"unknown"}} {
		if _, err := call(t, args...); err == nil || !strings.Contains(err.Error(), "usage") {
			t.Errorf("%q: got %v, want the usage", args, err)
		}
	}
}

func call(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	err := run(t.Context(), args, &out)
	return out.String(), err
}
