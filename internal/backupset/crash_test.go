package backupset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
)

// TestMain lets the test binary be the run that is killed.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "child" {
		if err := crashChild(context.Background(), os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashChild does what it is told, and kills itself before the nth step.
func crashChild(ctx context.Context, what, path, nth string) error {
	n, err := strconv.Atoi(nth)
	if err != nil {
		return err
	}
	d, err := dir.Open(path, false)
	if err != nil {
		return err
	}
	st := &dying{Local: d, left: n}
	if what == "remove" {
		return Remove(ctx, st, sampleID)
	}
	return writeSample(ctx, st, sampleID)
}

// dying is a store whose process is killed before one of its changes. It is
// used by one goroutine.
type dying struct {
	store.Local
	left int
}

func (d *dying) step() {
	if d.left--; d.left == 0 {
		syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	}
}

func (d *dying) Create(ctx context.Context, key string, expect int64) (store.Writer, error) {
	d.step()
	w, err := d.Local.Create(ctx, key, expect)
	return &dyingWriter{w, d}, err
}

func (d *dying) Delete(ctx context.Context, key string) error {
	d.step()
	return d.Local.Delete(ctx, key)
}

func (d *dying) Stage(ctx context.Context, key string) (string, error) {
	d.step()
	return d.Local.Stage(ctx, key)
}

func (d *dying) Publish(ctx context.Context, path, key string) error {
	d.step()
	return d.Local.Publish(ctx, path, key)
}

type dyingWriter struct {
	store.Writer
	store *dying
}

func (w *dyingWriter) Write(p []byte) (int, error) {
	w.store.step()
	n, err := w.Writer.Write(p[:len(p)/2])
	if err != nil {
		return n, err
	}
	m, err := w.Writer.Write(p[len(p)/2:])
	return n + m, err
}

func (w *dyingWriter) Commit() error {
	w.store.step()
	return w.Writer.Commit()
}

// runCrash reports whether the child was killed; any other failure ends the test.
func runCrash(t *testing.T, what, path string, n int) (killed bool) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self, "child", what, path, strconv.Itoa(n))
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return false
}

// checkAfterCrash is B5: what is listed is whole, the rest can be cleaned away
// and the same run works afterwards. It reports whether the set exists.
func checkAfterCrash(t *testing.T, st *dir.Dir) (exists bool) {
	t.Helper()
	ctx := t.Context()
	entries, err := List(ctx, st)
	must(t, err)
	for _, e := range entries {
		switch e.Status {
		case StatusComplete:
			set, err := Open(ctx, st, e.ID)
			must(t, err)
			if p := set.CheckDigests(ctx, nil); len(p) != 0 {
				t.Errorf("%s is listed as complete and has problems: %+v", e.ID, p)
			}
			exists = true
		case StatusUnfinished:
			must(t, RemoveUnfinished(ctx, st, e.ID))
		default:
			t.Errorf("%s is %s: %s", e.ID, e.Status, e.Reason)
		}
	}
	leftovers, err := st.Leftovers(ctx)
	must(t, err)
	for _, name := range leftovers {
		must(t, st.RemoveLeftover(ctx, name))
	}
	if left := keys(t, st); !exists && len(left) != 0 {
		t.Errorf("cleaning left %q", left)
	}
	return exists
}

// T09, B1, B5
func TestWritingIsKilledAtEachStep(t *testing.T) {
	for n := 1; ; n++ {
		st := newStore(t)
		killed := runCrash(t, "write", st.String(), n)
		if checkAfterCrash(t, st) {
			mustOpenMarked(t, st)
		} else {
			must(t, writeSample(t.Context(), st, sampleID))
		}
		if !killed {
			if n < 40 {
				t.Errorf("the run has only %d steps", n)
			}
			mustOpen(t, st, sampleID)
			return
		}
	}
}

// mustOpenMarked accepts the mark of a run that was killed after the manifest.
func mustOpenMarked(t *testing.T, st *dir.Dir) {
	t.Helper()
	set, err := Open(t.Context(), st, sampleID)
	must(t, err)
	for _, p := range set.CheckQuick(t.Context()) {
		if p.Severity != Warning || p.Object != unfinishedName {
			t.Errorf("problem: %+v", p)
		}
	}
}

// T90
func TestRemovingIsKilledAtEachStep(t *testing.T) {
	for n := 1; ; n++ {
		st := newStore(t)
		must(t, writeSample(t.Context(), st, sampleID))
		killed := runCrash(t, "remove", st.String(), n)
		if checkAfterCrash(t, st) {
			mustOpenMarked(t, st)
			must(t, Remove(t.Context(), st, sampleID))
		}
		if got := keys(t, st); len(got) != 0 {
			t.Errorf("step %d: %q is left", n, got)
		}
		if !killed {
			if n < 15 {
				t.Errorf("the removal has only %d steps", n)
			}
			return
		}
	}
}
