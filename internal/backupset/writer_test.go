package backupset

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

func keys(t *testing.T, st store.Store) []string {
	t.Helper()
	var all []string
	must(t, st.List(t.Context(), "", func(info store.Info) error { all = append(all, info.Key); return nil }))
	return all
}

func TestWriteAndRead(t *testing.T) {
	st := newStore(t)
	must(t, writeSample(t.Context(), st, sampleID))
	set := mustOpen(t, st, sampleID)
	for _, key := range keys(t, st) {
		if strings.Contains(key, "failed") || strings.Contains(key, unfinishedName) {
			t.Errorf("%s is still there", key)
		}
	}
	var of []string
	for _, o := range set.ObjectsOf("db1") {
		of = append(of, o.Name)
	}
	if want := []string{"databases/db1.create.sql", "databases/db1.dump", "databases/db1.properties.json"}; !slices.Equal(of, want) {
		t.Errorf("objects of db1: %q, want %q", of, want)
	}
	if got := len(set.ObjectsOf("db10")); got != 5 {
		t.Errorf("db10 has %d objects, want 5", got)
	}
	if got := set.Below("databases/db10.dir"); len(got) != 3 || got[2].Name != "databases/db10.dir/toc.dat" {
		t.Errorf("below the folder: %v", got)
	}
	if set.ObjectsOf("db") != nil {
		t.Error("there are objects of a database that is not in the set")
	}
	if leftovers, err := st.Leftovers(t.Context()); err != nil || len(leftovers) != 0 {
		t.Errorf("leftovers %q, %v", leftovers, err)
	}
}

func TestCreateClaimsOnce(t *testing.T) {
	st := newStore(t)
	const runs = 8
	won := make(chan *Writer, runs)
	var group errgroup.Group
	for range runs {
		group.Go(func() error {
			w, err := Create(t.Context(), st, sampleID)
			if err == nil {
				won <- w
			} else if errors.Is(err, store.ErrExist) {
				err = nil
			}
			return err
		})
	}
	must(t, group.Wait())
	if len(won) != 1 {
		t.Fatalf("%d of %d runs claimed one id", len(won), runs)
	}
	must(t, (<-won).Abandon(t.Context()))
	must(t, writeSample(t.Context(), st, sampleID))
	if _, err := Create(t.Context(), st, sampleID); !errors.Is(err, store.ErrExist) {
		t.Errorf("the id of a finished set was claimed: %v", err)
	}
	mustOpen(t, st, sampleID)
	if slices.Contains(keys(t, st), sampleID+"/"+unfinishedName) {
		t.Error("the vain claim left its mark")
	}
}

// Another run took the lock over, went on with the set and committed it. The first one
// notices late, and removes nothing.
func TestAbandonLeavesAnotherRunsSet(t *testing.T) {
	st, ctx := newStore(t), t.Context()
	late, err := Create(ctx, st, sampleID)
	must(t, err)
	must(t, late.WriteScratch(ctx, RunName, []byte("asked")))
	other, err := Reopen(ctx, st, sampleID)
	must(t, err)
	must(t, other.DiscardRest(ctx))
	m := sampleManifest()
	m.Databases, m.Globals.ServerFiles = nil, nil
	must(t, other.WriteFile(ctx, "globals.sql", nil))
	must(t, other.Commit(ctx, m))
	if err := late.Abandon(ctx); !fault.Is(err, fault.Locked) {
		t.Errorf("abandoned: %v", err)
	}
	mustOpen(t, st, sampleID)
}

// The answer to the manifest is lost: the run has failed, and takes the set back.
func TestAbandonTakesItsOwnManifestBack(t *testing.T) {
	st, ctx := newStore(t), t.Context()
	f := &failing{Store: st, lost: true}
	w, err := Create(ctx, f, sampleID)
	must(t, err)
	must(t, w.WriteFile(ctx, "globals.sql", nil))
	m := sampleManifest()
	m.Databases, m.Globals.ServerFiles = nil, nil
	f.left.Store(6) // of each of SHA256SUMS and the manifest: created, written, committed
	if err := w.Commit(ctx, m); !errors.Is(err, errFailing) {
		t.Fatalf("committed: %v", err)
	}
	if !slices.Contains(keys(t, st), sampleID+"/"+ManifestName) {
		t.Fatal("the manifest is not there: the test proves nothing")
	}
	must(t, w.Abandon(ctx))
	if left := keys(t, st); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestMisuseIsAnError(t *testing.T) {
	ctx := t.Context()
	st := newStore(t)
	w, err := Create(ctx, st, sampleID)
	must(t, err)
	open, err := w.Object(ctx, "folder/open", 0)
	must(t, err)
	must(t, w.WriteFile(ctx, "file", nil))

	for name, bad := range map[string]error{
		"open twice":           w.WriteFile(ctx, "folder/open", nil),
		"file twice":           w.WriteFile(ctx, "file", nil),
		"below a file":         w.WriteFile(ctx, "file/below", nil),
		"file for folder":      w.WriteFile(ctx, "folder", nil),
		"hostile name":         w.WriteFile(ctx, "../../etc/passwd", nil),
		"reserved name":        w.WriteFile(ctx, ManifestName, nil),
		"drop while open":      w.Drop(ctx, "folder"),
		"commit while open":    w.Commit(ctx, sampleManifest()),
		"abandon while open":   w.Abandon(ctx),
		"commit without files": func() error { must(t, open.Abort()); return w.Commit(ctx, sampleManifest()) }(),
		"write after it":       w.WriteFile(ctx, "late", nil),
		"commit again":         w.Commit(ctx, sampleManifest()),
	} {
		if bad == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := open.Write([]byte("x")); err == nil {
		t.Error("an aborted object takes bytes")
	}
	if _, err := open.Commit(); err == nil {
		t.Error("an aborted object can be committed")
	}
	must(t, w.Abandon(ctx))
	must(t, w.Abandon(ctx))
	if got := keys(t, st); len(got) != 0 {
		t.Errorf("an abandoned set left %q", got)
	}
}

func TestCommittedIsFinal(t *testing.T) {
	st := newStore(t)
	w, err := Create(t.Context(), st, sampleID)
	must(t, err)
	must(t, w.WriteFile(t.Context(), "globals.sql", nil))
	m := sampleManifest()
	m.Databases, m.Globals.ServerFiles = nil, nil
	must(t, w.Commit(t.Context(), m))
	for name, err := range map[string]error{
		"abandon": w.Abandon(t.Context()), "drop": w.Drop(t.Context(), "globals.sql"),
		"write": w.WriteFile(t.Context(), "x", nil), "commit": w.Commit(t.Context(), m),
	} {
		if err == nil {
			t.Errorf("%s after commit: no error", name)
		}
	}
	mustOpen(t, st, sampleID)
}

func TestFailedNamesAreFreeAgain(t *testing.T) {
	ctx := t.Context()
	w, err := Create(ctx, newStore(t), sampleID)
	must(t, err)
	must(t, w.WriteFile(ctx, "db/a", nil))
	must(t, w.Drop(ctx, "db"))
	o, err := w.Object(ctx, "db", 0)
	must(t, err)
	must(t, o.Abort())
	s, err := w.Stage(ctx, "db")
	must(t, err)
	if _, err := s.Commit(ctx); err == nil {
		t.Error("nothing was staged, and it was committed")
	}
	must(t, os.Mkdir(s.Path(), 0o700))
	if _, err := s.Commit(ctx); err == nil {
		t.Error("an empty folder was committed")
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(s.Path(), "toc.dat")))
	if _, err := s.Commit(ctx); err == nil {
		t.Error("a symbolic link was committed")
	}
	must(t, os.Remove(filepath.Join(s.Path(), "toc.dat")))
	must(t, os.WriteFile(filepath.Join(s.Path(), ".hidden"), nil, 0o600))
	if _, err := s.Commit(ctx); err == nil {
		t.Error("a file whose name no object may have was committed")
	}
	must(t, s.Discard())
	must(t, w.WriteFile(ctx, "db/a", []byte("again")))
	must(t, w.Abandon(ctx))
}

// remote hides that a store is local.
type remote struct{ store.Store }

func TestStageNeedsLocal(t *testing.T) {
	w, err := Create(t.Context(), remote{newStore(t)}, sampleID)
	must(t, err)
	if _, err := w.Stage(t.Context(), "x"); !errors.Is(err, ErrNotLocal) {
		t.Errorf("got %v, want ErrNotLocal", err)
	}
	must(t, w.WriteFile(t.Context(), "x", nil))
}

func TestParallelObjects(t *testing.T) {
	st := newStore(t)
	w, err := Create(t.Context(), st, sampleID)
	must(t, err)
	var group errgroup.Group
	for i := range 16 {
		group.Go(func() error { return w.WriteFile(t.Context(), fmt.Sprintf("server/%d", i), []byte{byte(i)}) })
	}
	must(t, w.WriteFile(t.Context(), "globals.sql", nil))
	must(t, group.Wait())
	m := sampleManifest()
	m.Databases, m.Globals.ServerFiles = nil, nil
	must(t, w.Commit(t.Context(), m))
	if got := len(mustOpen(t, st, sampleID).Manifest().Objects); got != 17 {
		t.Errorf("%d objects, want 17", got)
	}
}

func TestCommitHonoursContext(t *testing.T) {
	st := newStore(t)
	w, err := Create(t.Context(), st, sampleID)
	must(t, err)
	must(t, w.WriteFile(t.Context(), "globals.sql", nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := sampleManifest()
	m.Databases, m.Globals.ServerFiles = nil, nil
	if err := w.Commit(ctx, m); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	if _, err := Open(t.Context(), st, sampleID); err == nil {
		t.Error("the set exists")
	}
	must(t, w.Abandon(t.Context()))
}
