package backupset

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
)

// tree is what lies under a folder, by path.
func tree(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	must(t, fs.WalkDir(os.DirFS(folder), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || path == ".lock" {
			return err
		}
		data, err := os.ReadFile(filepath.Join(folder, path))
		files[path] = string(data)
		return err
	}))
	return files
}

func wantSameTree(t *testing.T, got, want map[string]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	t.Errorf("the copy has %q,\nwant %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	for path := range want {
		if got[path] != want[path] {
			t.Errorf("%s differs", path)
		}
	}
}

// told is a reporter of one task, that remembers how far it came.
type told struct {
	report.Discard
	expected int64

	mu   sync.Mutex
	seen int64
}

func (r *told) Task(_ string, bytes int64) report.Task { r.expected += bytes; return r }
func (r *told) End(error)                              {}

func (r *told) Progress(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = max(r.seen, bytes)
}

func TestCopyIsTheSameFiles(t *testing.T) {
	from, to := newStore(t), newStore(t)
	must(t, writeSample(t.Context(), from, sampleID))
	r := &told{}
	done, err := Copy(t.Context(), from, to, CopyOptions{}, r, sampleID)
	must(t, err)
	wantSameTree(t, tree(t, to.String()), tree(t, from.String()))
	if len(done.Sets) != 1 || done.Objects == 0 || done.Bytes == 0 || r.expected != done.Bytes || r.seen != done.Bytes {
		t.Errorf("done: %+v, progress %d of %d", done, r.seen, r.expected)
	}
	done, err = Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID)
	must(t, err)
	if len(done.Sets) != 0 || done.Objects != 0 {
		t.Errorf("a second copy did %+v", done)
	}
}

// A set needs the older sets that it refers to wherever it is.
func TestCopyBringsTheBases(t *testing.T) {
	from, err := dir.Open("testdata/golden-v2", false)
	must(t, err)
	to := newStore(t)
	ids := found(t, from).IDs
	newest := ids[len(ids)-1]
	set, err := Open(t.Context(), from, newest)
	must(t, err)
	if len(set.Bases()) == 0 {
		t.Fatal("the golden set refers to nothing: the test tests nothing")
	}
	_, err = Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, newest)
	must(t, err)
	copied, err := Open(t.Context(), to, newest)
	must(t, err)
	if problems := copied.CheckDigests(t.Context(), nil); AnyDamage(problems) {
		t.Errorf("the copy is damaged: %v", problems)
	}
}

// failing is a store where one of the changes fails.
type failing struct {
	store.Store
	left atomic.Int64
	lost bool // the change is made, and only the answer to it fails
}

var errFailing = errors.New("the store failed")

func (f *failing) step() error {
	if f.left.Add(-1) == 0 {
		return errFailing
	}
	return nil
}

func (f *failing) Create(ctx context.Context, key string, expect int64) (store.Writer, error) {
	if err := f.step(); err != nil {
		return nil, err
	}
	w, err := f.Store.Create(ctx, key, expect)
	return &failingWriter{w, f}, err
}

func (f *failing) Delete(ctx context.Context, key string) error {
	err := f.step()
	if err != nil && !f.lost {
		return err
	}
	return errors.Join(err, f.Store.Delete(ctx, key))
}

type failingWriter struct {
	store.Writer
	f *failing
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if err := w.f.step(); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

func (w *failingWriter) Commit() error {
	err := w.f.step()
	if err != nil && !w.f.lost {
		return errors.Join(err, w.Abort())
	}
	return errors.Join(err, w.Writer.Commit())
}

// A copy that breaks off anywhere leaves nothing that is listed as a set, and
// the next one completes it.
func TestCopyThatBreaksOff(t *testing.T) {
	from := newStore(t)
	must(t, writeSample(t.Context(), from, sampleID))
	want := tree(t, from.String())
	broke := 0
	for n := int64(1); ; n++ {
		to := newStore(t)
		f := &failing{Store: to}
		f.left.Store(n)
		_, err := Copy(t.Context(), from, f, CopyOptions{}, report.Discard{}, sampleID)
		if f.left.Load() > 0 {
			must(t, err)
			break
		}
		if !errors.Is(err, errFailing) {
			t.Fatalf("change %d: error %v", n, err)
		}
		broke++
		entries, err := List(t.Context(), to)
		must(t, err)
		whole := maps.Equal(tree(t, to.String()), want)
		for _, e := range entries {
			if e.Status == StatusComplete && !whole && !(len(tree(t, to.String())) == len(want)+1) {
				t.Errorf("change %d: listed as complete", n)
			}
		}
		_, err = Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID)
		must(t, err)
		if n == 1 {
			wantSameTree(t, tree(t, to.String()), want)
		}
		set, err := Open(t.Context(), to, sampleID)
		must(t, err)
		if problems := append(set.CheckDigests(t.Context(), nil), set.CheckQuick(t.Context())...); AnyDamage(problems) {
			t.Errorf("change %d: %v", n, problems)
		}
	}
	if broke < 10 {
		t.Errorf("only %d changes failed", broke)
	}
}

// What was left under the name is not trusted, and a set that lost something gets
// it back.
func TestCopyMends(t *testing.T) {
	from := newStore(t)
	must(t, writeSample(t.Context(), from, sampleID))
	want := tree(t, from.String())
	object := sampleID + "/databases/db1.dump"
	tests := map[string]func(t *testing.T, folder string){
		"an object of another content, in an unfinished set": func(t *testing.T, folder string) {
			must(t, os.Remove(filepath.Join(folder, sampleID, ManifestName)))
			must(t, os.WriteFile(filepath.Join(folder, sampleID, unfinishedName), nil, 0o600))
			must(t, os.WriteFile(filepath.Join(folder, object), make([]byte, len(want[object])), 0o600))
		},
		"a lost object": func(t *testing.T, folder string) { must(t, os.Remove(filepath.Join(folder, object))) },
		"a cut object":  func(t *testing.T, folder string) { must(t, os.Truncate(filepath.Join(folder, object), 1)) },
		"a damaged manifest": func(t *testing.T, folder string) {
			must(t, os.Truncate(filepath.Join(folder, sampleID, ManifestName), 9))
		},
		"lost digests": func(t *testing.T, folder string) { must(t, os.Remove(filepath.Join(folder, sampleID, SumsName))) },
		"a file too many, in an unfinished set": func(t *testing.T, folder string) {
			must(t, os.Remove(filepath.Join(folder, sampleID, ManifestName)))
			must(t, os.WriteFile(filepath.Join(folder, sampleID, "databases", "other"), []byte("x"), 0o600))
		},
	}
	for name, damage := range tests {
		for _, check := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, check %t", name, check), func(t *testing.T) {
				to := newStore(t)
				_, err := Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID)
				must(t, err)
				damage(t, to.String())
				_, err = Copy(t.Context(), from, to, CopyOptions{Check: check}, report.Discard{}, sampleID)
				must(t, err)
				wantSameTree(t, tree(t, to.String()), want)
			})
		}
	}
}

// What has another content and the right size is found by who asks for it, and what
// is damaged in both stores is left as it is.
func TestCopyChecks(t *testing.T) {
	from, to := newStore(t), newStore(t)
	must(t, writeSample(t.Context(), from, sampleID))
	want := tree(t, from.String())
	checked := func() (Copied, error) {
		return Copy(t.Context(), from, to, CopyOptions{Check: true}, report.Discard{}, sampleID)
	}
	_, err := Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID)
	must(t, err)
	done, err := checked()
	must(t, err)
	if len(done.Sets) != 0 || done.Objects != 0 {
		t.Errorf("of a sound set %+v was copied", done)
	}
	for _, name := range []string{"databases/db1.dump", "globals.sql", SumsName} {
		object := filepath.Join(sampleID, name)
		flip(t, filepath.Join(to.String(), object))
		done, err = checked()
		must(t, err)
		wantSameTree(t, tree(t, to.String()), want)
		if len(done.Sets) != 1 {
			t.Errorf("%s: %+v was copied", name, done)
		}
	}
	for _, st := range []string{from.String(), to.String()} {
		flip(t, filepath.Join(st, sampleID, "databases", "db1.dump"))
	}
	before := tree(t, to.String())
	if _, err := checked(); !fault.Is(err, fault.Integrity) {
		t.Errorf("damaged in both: %v", err)
	}
	wantSameTree(t, tree(t, to.String()), before)
}

// flip changes one bit of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	text[len(text)/2] ^= 1
	must(t, os.WriteFile(path, text, 0o600))
}

// Neither a damaged source nor another set of the name makes a copy.
func TestCopyRefuses(t *testing.T) {
	from, to := newStore(t), newStore(t)
	must(t, writeSample(t.Context(), from, sampleID))
	must(t, os.Truncate(filepath.Join(from.String(), sampleID, "databases", "db1.dump"), 1))
	if _, err := Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID); !fault.Is(err, fault.Integrity) {
		t.Errorf("a damaged object: %v", err)
	}
	if entries, err := List(t.Context(), to); err != nil || len(entries) != 1 || entries[0].Status != StatusUnfinished {
		t.Errorf("it left %+v (%v)", entries, err)
	}
	other := newStore(t)
	m := sampleManifest()
	m.Host = "another.example"
	w, err := Create(t.Context(), other, sampleID)
	must(t, err)
	m.Databases, m.Omissions = nil, nil
	must(t, w.WriteFile(t.Context(), "globals.sql", nil))
	must(t, w.WriteFile(t.Context(), "server/pg_hba.conf", nil))
	must(t, w.Commit(t.Context(), m))
	must(t, os.RemoveAll(filepath.Join(from.String(), sampleID)))
	must(t, writeSample(t.Context(), from, sampleID))
	before := tree(t, other.String())
	if _, err := Copy(t.Context(), from, other, CopyOptions{}, report.Discard{}, sampleID); !errors.Is(err, store.ErrExist) {
		t.Errorf("another set of the name: %v", err)
	}
	wantSameTree(t, tree(t, other.String()), before)
}
