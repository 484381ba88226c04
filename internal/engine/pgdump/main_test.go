package pgdump

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/internal/store/dir"
)

var shared pgtest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

// source is a cluster as a capture takes it.
func source(t *testing.T, c *pgtest.Cluster) Source {
	t.Helper()
	e, err := pg.Resolve(t.Context(), pg.Options{
		Params: pg.Params{"host": c.Host, "port": strconv.Itoa(c.Port), "user": c.User, "password": c.Password},
		Env:    []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, Application: "dbbackup",
	})
	if err != nil {
		t.Fatal(err)
	}
	tools, err := pgtool.Search{BinDir: c.BinDir, Path: os.Getenv("PATH")}.ForServer(t.Context(), c.VersionNum)
	if err != nil {
		t.Fatal(err)
	}
	return Source{Endpoint: e, Tools: tools}
}

// shim puts lines of shell in front of the source's pg_dump. In them $real is
// pg_dump itself.
func (s Source) shim(t *testing.T, script string) Source {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pg_dump")
	text := fmt.Sprintf("#!/bin/sh\nreal=%s\n%s\nexec \"$real\" \"$@\"\n", s.Tools.Dump, script)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	s.Tools.Dump = path
	return s
}

// newSet begins a set in a store of the test's own, and returns its folder.
func newSet(t *testing.T) (*backupset.Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	st, err := dir.Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	set, err := backupset.Create(t.Context(), st, backupset.NewID("test", time.Now(), nil))
	if err != nil {
		t.Fatal(err)
	}
	return set, filepath.Join(path, set.ID())
}

// captureInto captures one database of the source.
func captureInto(ctx context.Context, src Source, set *backupset.Writer, req Request) (Captured, error) {
	req.Name, req.Procs, req.Jobs, req.Level = "databases/db", 2, 2, 1
	return Capture(ctx, src, req, set, report.Discard{}, report.Discard{}.Task("", 0))
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		if holds() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
