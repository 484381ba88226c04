package pgdump

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dbbackup/internal/child"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtool"
)

// A child that only computes moves no byte, and is alive all the same.
func TestSignsCountProcessorTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := child.Start(ctx, child.Command{Name: "sh", Path: "/bin/sh", Args: []string{"-c", "while :; do :; done"}})
	if err != nil {
		t.Fatal(err)
	}
	signs := signsOf(p, func() int64 { return 1000 })
	eventually(t, "processor time counts", func() bool { return signs() > 1005 })
	cancel()
	if _, err := p.Wait(); err == nil {
		t.Error("an endless loop ended well")
	}
}

func TestProgressBeforeAnythingRuns(t *testing.T) {
	var p progress
	if p.moved() != 0 || p.alive() != 0 {
		t.Error("progress without a child")
	}
	p.watch(func() int64 { return 7 }, func() int64 { return 8 })
	if p.moved() != 7 || p.alive() != 8 {
		t.Errorf("got %d and %d", p.moved(), p.alive())
	}
}

type recorder struct {
	mu   sync.Mutex
	last int64
}

func (r *recorder) Progress(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = bytes
}

func (r *recorder) End(error) {}

// The last word is told before report's stop returns.
func TestReportTellsTheLastWord(t *testing.T) {
	var p progress
	p.watch(func() int64 { return 4711 }, nil)
	r := &recorder{}
	stop := p.report(t.Context(), r)
	stop()
	if r.last != 4711 {
		t.Errorf("last progress %d", r.last)
	}
}

// PGOPTIONS splits at spaces and knows backslashes: a tablespace's name must
// survive that.
func TestSettingsReachTheSession(t *testing.T) {
	c := shared.Start(t)
	src := source(t, c)
	for i, name := range []string{`my "odd" space\ x`, `ends in backslash\`, " -c work_mem=64kB ", "tab\tline\nfeed\rform\fvertical\v.", `it's \' $(x)`} {
		folder, err := c.MakeDir("space" + string(rune('a'+i)))
		if err != nil {
			t.Fatal(err)
		}
		c.Exec(t, "postgres", "CREATE TABLESPACE "+pgtest.Quote(name)+" LOCATION "+pgname.Literal(folder))
		cmd := exec.Command(filepath.Join(c.BinDir, "psql"), "-XAtw", "-d", src.Endpoint.ChildConninfo("postgres", "test"), "-c",
			"SELECT current_setting('default_tablespace') || '|' || current_setting('work_mem'); CREATE TABLE t (i int);"+
				" SELECT spcname FROM pg_class c JOIN pg_tablespace s ON s.oid = reltablespace WHERE relname = 't'; DROP TABLE t")
		cmd.Env = withSettings(pgtool.Environ(src.Endpoint.ChildEnv(), nil), map[string]string{"default_tablespace": name, "work_mem": "5MB"})
		out, err := cmd.CombinedOutput()
		if want := name + "|5MB\nCREATE TABLE\n" + name + "\nDROP TABLE\n"; err != nil || string(out) != want {
			t.Errorf("%q: %v, %q, want %q", name, err, out, want)
		}
	}
}

func TestSettingsKeepThoseThatAreThere(t *testing.T) {
	got := withSettings([]string{"A=1", "PGOPTIONS=-c geqo=off", "B=2"}, map[string]string{"work_mem": "1 MB"})
	want := []string{"A=1", "B=2", `PGOPTIONS=-c geqo=off -c work_mem=1\ MB`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	same := []string{"PGOPTIONS=x"}
	if got := withSettings(same, nil); !slices.Equal(got, same) {
		t.Errorf("got %q", got)
	}
}

func TestTreeBytes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := treeBytes(dir); got != 200 {
		t.Errorf("a folder: %d", got)
	}
	if got := treeBytes(filepath.Join(dir, "a")); got != 100 {
		t.Errorf("a file: %d", got)
	}
	if got := treeBytes(filepath.Join(dir, "not there")); got != 0 {
		t.Errorf("nothing: %d", got)
	}
}
