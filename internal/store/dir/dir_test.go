package dir

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return openNew(t) })
}

func openNew(t *testing.T) *Dir {
	t.Helper()
	return openAt(t, filepath.Join(t.TempDir(), "parent", "store"))
}

func openAt(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, d *Dir, key, data string) error {
	t.Helper()
	w, err := d.Create(t.Context(), key, 0)
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(data)); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}

// tree returns every name below the store's directory, the lock left out.
func tree(t *testing.T, d *Dir) []string {
	t.Helper()
	var names []string
	must(t, filepath.WalkDir(d.path, func(path string, e os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(d.path, path); rel != "." && rel != lockName {
			names = append(names, rel)
		}
		return err
	}))
	return names
}

func wantTree(t *testing.T, d *Dir, want ...string) {
	t.Helper()
	if got := tree(t, d); !slices.Equal(got, want) {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}

func TestOpenMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, path := range []string{filepath.Join(t.TempDir(), "none"), file} {
		if _, err := Open(path, false); !fault.Is(err, fault.NotFound) {
			t.Errorf("open %s: got %v, want kind NotFound", path, err)
		}
	}
	if _, err := Open(file, true); err == nil {
		t.Error("a file was opened as a store")
	}
}

// T25
func TestUmaskAndWarnings(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	for _, umask := range []int{0, 0o777} {
		syscall.Umask(umask)
		parent := t.TempDir()
		must(t, os.Chmod(parent, 0o700))
		d := openAt(t, filepath.Join(parent, "store"))
		must(t, put(t, d, "a/b/c", "x"))
		staged, err := d.Stage(t.Context(), "a/d")
		must(t, err)
		must(t, os.Mkdir(staged, 0o777))
		must(t, os.Chmod(staged, 0o777))
		must(t, os.WriteFile(filepath.Join(staged, "f"), nil, 0o666))
		must(t, d.Publish(t.Context(), staged, "a/d"))
		_, release, err := d.Lock(t.Context(), store.Holder{})
		must(t, err)
		must(t, release())
		for _, name := range append(tree(t, d), ".", lockName) {
			info, err := os.Stat(filepath.Join(d.path, name))
			must(t, err)
			want := fileMode
			if info.IsDir() {
				want = folderMode
			}
			if info.Mode().Perm() != want {
				t.Errorf("umask %04o: %s has mode %04o, want %04o", umask, name, info.Mode().Perm(), want)
			}
		}
		if w := d.Warnings(); len(w) != 0 {
			t.Errorf("warnings about a private store: %q", w)
		}
		must(t, os.Chmod(d.path, 0o777))
		if w := d.Warnings(); len(w) != 1 || !strings.Contains(w[0], "0777") {
			t.Errorf("warnings about mode 0777: %q", w)
		}
	}
}

// T22: whatever waits at a name that the store is going to use.
func TestSymlinks(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	must(t, os.WriteFile(victim, []byte("mine"), 0o640))
	d := openNew(t)
	must(t, put(t, d, "real/object", "object"))
	must(t, os.Symlink(victim, filepath.Join(d.path, "real", "link")))
	must(t, os.Symlink(outside, filepath.Join(d.path, "out")))
	must(t, os.Symlink("real", filepath.Join(d.path, "in")))
	must(t, os.Symlink(victim, filepath.Join(d.path, lockName)))
	ctx := t.Context()

	for _, key := range []string{"real/link", "out/victim", "in/object", "out/new", "in/new"} {
		if err := put(t, d, key, "evil"); err == nil {
			t.Errorf("wrote %s", key)
		}
		if r, err := d.Open(ctx, key); err == nil {
			t.Errorf("opened %s: %v", key, r.Close())
		}
		if path, err := d.Path(key); err == nil {
			t.Errorf("path of %s is %s", key, path)
		}
		staged, err := d.Stage(ctx, "real/x")
		must(t, err)
		must(t, os.WriteFile(staged, []byte("evil"), 0o600))
		if err := d.Publish(ctx, staged, key); err == nil {
			t.Errorf("published %s", key)
		}
		must(t, d.Discard(staged))
	}
	for _, key := range []string{"out/victim", "in/object"} {
		if err := d.Delete(ctx, key); err == nil {
			t.Errorf("deleted %s", key)
		}
		if err := d.RemoveLeftover(ctx, key); err == nil {
			t.Errorf("removed %s as a leftover", key)
		}
		if path, err := d.Stage(ctx, key); err == nil {
			t.Errorf("staged %s at %s", key, path)
		}
	}
	for _, key := range []string{"real", "out", "in"} {
		if path, err := d.Path(key); err == nil {
			t.Errorf("path of %s is %s", key, path)
		}
	}
	if _, _, err := d.Lock(ctx, store.Holder{Host: "evil"}); err == nil {
		t.Error("locked a symbolic link")
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "mine" {
		t.Errorf("the victim became %q, %v", got, err)
	}
	info, err := os.Stat(victim)
	must(t, err)
	if info.Mode().Perm() != 0o640 {
		t.Errorf("the victim's mode became %04o", info.Mode().Perm())
	}
	var keys []string
	must(t, d.List(ctx, "", func(info store.Info) error { keys = append(keys, info.Key); return nil }))
	if !slices.Equal(keys, []string{"real/object"}) {
		t.Errorf("listed %q", keys)
	}
	entries, err := os.ReadDir(outside)
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("the folder outside holds %d entries, want 1", len(entries))
	}
}

func TestOpenRefusesFIFO(t *testing.T) {
	d := openNew(t)
	must(t, syscall.Mkfifo(filepath.Join(d.path, "fifo"), 0o600))
	if r, err := d.Open(t.Context(), "fifo"); err == nil {
		t.Errorf("opened a FIFO: %v", r.Close())
	}
}

func TestLongNames(t *testing.T) {
	d := openNew(t)
	must(t, put(t, d, strings.Repeat("x", 255), "longest"))
	if err := put(t, d, strings.Repeat("x", 256), "too long"); err == nil {
		t.Error("a name of 256 bytes was stored")
	}
	if err := put(t, d, "set/"+strings.Repeat("x", 5000), "too long"); err == nil {
		t.Error("a name of 5000 bytes was stored")
	}
	wantTree(t, d, strings.Repeat("x", 255))
}

func TestLeftovers(t *testing.T) {
	d := openNew(t)
	ctx := t.Context()
	must(t, put(t, d, "set/kept", "x"))
	w, err := d.Create(ctx, "set/half", 0)
	must(t, err)
	staged, err := d.Stage(ctx, "set/databases/big.dir")
	must(t, err)
	must(t, os.MkdirAll(filepath.Join(staged, "sub"), 0o700))
	must(t, os.MkdirAll(filepath.Join(d.path, "dead", "empty"), 0o700))
	must(t, os.MkdirAll(filepath.Join(d.path, "lost+found"), 0o700))
	must(t, os.WriteFile(filepath.Join(d.path, ".partial-notes"), nil, 0o600))
	_, release, err := d.Lock(ctx, store.Holder{})
	must(t, err)
	defer release()

	names, err := d.Leftovers(ctx)
	must(t, err)
	if len(names) != 3 || names[0] != "dead/empty" || !strings.HasPrefix(names[1], "set/.half.partial-") ||
		!strings.HasPrefix(names[2], "set/databases/.staged-") {
		t.Fatalf("leftovers: %q", names)
	}
	for _, name := range []string{"set/kept", "set", ".", "", "..", "../x", "/etc", "set/../set/kept", ".partial-notes", lockName} {
		if err := d.RemoveLeftover(ctx, name); err == nil {
			t.Errorf("removed %q, which is no leftover", name)
		}
	}
	for range 2 {
		for _, name := range names {
			must(t, d.RemoveLeftover(ctx, name))
		}
	}
	wantTree(t, d, ".partial-notes", "lost+found", "set", "set/kept")
	if err := w.Commit(); err == nil {
		t.Error("an object whose temporary file was removed was committed")
	}
	wantTree(t, d, ".partial-notes", "lost+found", "set", "set/kept")
}
