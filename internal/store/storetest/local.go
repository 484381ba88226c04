package storetest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"dbbackup/internal/store"
)

func runLocal(t *testing.T, open func(t *testing.T) store.Store) {
	tests := []struct {
		name string
		test func(*testing.T, store.Local)
	}{
		{"StagedFile", testStagedFile},
		{"StagedFolder", testStagedFolder},
		{"StagedDiscard", testDiscard},
		{"PublishNeverReplaces", testPublishTaken},
		{"PublishRefusesLinks", testPublishLinks},
		{"PublishRefusesForeignPaths", testPublishForeign},
		{"Path", testPath},
	}
	for _, tt := range tests {
		t.Run("Local/"+tt.name, func(t *testing.T) {
			local, ok := open(t).(store.Local)
			if !ok {
				t.Skip("the store is not local")
			}
			tt.test(t, local)
		})
	}
}

func stage(t *testing.T, st store.Local, key string) string {
	t.Helper()
	path, err := st.Stage(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Fatalf("something is at the fresh path: %v", err)
	}
	return path
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testStagedFile(t *testing.T, st store.Local) {
	path := stage(t, st, "set/dump")
	must(t, os.WriteFile(path, []byte("content"), 0o666))
	wantKeys(t, st, "")
	must(t, st.Publish(t.Context(), path, "set/dump"))
	wantKeys(t, st, "", "set/dump")
	if got := read(t, st, "set/dump"); string(got) != "content" {
		t.Errorf("got %q", got)
	}
	must(t, st.Discard(path))
	wantKeys(t, st, "", "set/dump")
}

func testStagedFolder(t *testing.T, st store.Local) {
	path := stage(t, st, "set/dump.dir")
	must(t, os.MkdirAll(filepath.Join(path, "sub"), 0o777))
	must(t, os.WriteFile(filepath.Join(path, "toc.dat"), []byte("toc"), 0o666))
	must(t, os.WriteFile(filepath.Join(path, "sub", "1.dat"), []byte("data"), 0o666))
	wantKeys(t, st, "")
	must(t, st.Publish(t.Context(), path, "set/dump.dir"))
	wantKeys(t, st, "", "set/dump.dir/sub/1.dat", "set/dump.dir/toc.dat")
	wantModes(t, st, "set")
}

// wantModes checks that nothing of a folder can be read by others.
func wantModes(t *testing.T, st store.Local, key string) {
	t.Helper()
	root, err := st.Path(key)
	must(t, err)
	must(t, filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if want := map[bool]os.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
		return err
	}))
}

func testDiscard(t *testing.T, st store.Local) {
	path := stage(t, st, "set/dump.dir")
	must(t, os.Mkdir(path, 0o700))
	must(t, os.WriteFile(filepath.Join(path, "1.dat"), []byte("data"), 0o600))
	must(t, st.Discard(path))
	must(t, st.Discard(path))
	wantKeys(t, st, "")
	if _, err := os.Lstat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("the private folder is still there: %v", err)
	}
	if err := st.Publish(t.Context(), path, "set/dump.dir"); err == nil {
		t.Error("publish of what was discarded succeeded")
	}
}

func testPublishTaken(t *testing.T, st store.Local) {
	write(t, st, "set/file", []byte("first"))
	write(t, st, "set/folder/file", []byte("first"))
	for _, key := range []string{"set/file", "set/folder"} {
		path := stage(t, st, key)
		must(t, os.WriteFile(path, []byte("second"), 0o600))
		wantErr(t, "publish file to "+key, st.Publish(t.Context(), path, key), store.ErrExist)
		must(t, st.Discard(path))
		path = stage(t, st, key)
		must(t, os.Mkdir(path, 0o700))
		wantErr(t, "publish folder to "+key, st.Publish(t.Context(), path, key), store.ErrExist)
		must(t, st.Discard(path))
	}
	wantKeys(t, st, "", "set/file", "set/folder/file")
	if got := read(t, st, "set/file"); string(got) != "first" {
		t.Errorf("the object became %q", got)
	}
}

func testPublishLinks(t *testing.T, st store.Local) {
	victim := filepath.Join(t.TempDir(), "victim")
	must(t, os.WriteFile(victim, []byte("mine"), 0o644))
	links := map[string]func(path string) error{
		"itself": func(path string) error { return os.Symlink(victim, path) },
		"below": func(path string) error {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			return os.Symlink(victim, filepath.Join(path, "toc.dat"))
		},
	}
	for name, link := range links {
		path := stage(t, st, "set/dump")
		must(t, link(path))
		if err := st.Publish(t.Context(), path, "set/dump"); err == nil {
			t.Errorf("%s: a symbolic link was published", name)
		}
		must(t, st.Discard(path))
	}
	wantKeys(t, st, "")
	info, err := os.Stat(victim)
	must(t, err)
	if info.Mode().Perm() != 0o644 {
		t.Errorf("the victim's mode became %04o", info.Mode().Perm())
	}
}

func testPublishForeign(t *testing.T, st store.Local) {
	write(t, st, "set/mine", []byte("x"))
	inside, err := st.Path("set/mine")
	must(t, err)
	outside := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(outside, []byte("x"), 0o600))
	for _, path := range []string{inside, outside, filepath.Join(inside, "../../..")} {
		if err := st.Publish(t.Context(), path, "set/other"); err == nil {
			t.Errorf("published %s", path)
		}
		if err := st.Discard(path); err == nil {
			t.Errorf("discarded %s", path)
		}
	}
	if _, err := os.Lstat(outside); err != nil {
		t.Error(err)
	}
	wantKeys(t, st, "", "set/mine")
}

func testPath(t *testing.T, st store.Local) {
	write(t, st, "set/sub/file", []byte("content"))
	file, err := st.Path("set/sub/file")
	must(t, err)
	if got, err := os.ReadFile(file); err != nil || string(got) != "content" {
		t.Errorf("%s: %q, %v", file, got, err)
	}
	folder, err := st.Path("set/sub")
	must(t, err)
	if names, err := filepath.Glob(folder + "/*"); err != nil || !slices.Equal(names, []string{file}) {
		t.Errorf("the folder holds %q, %v", names, err)
	}
	_, err = st.Path("set/other")
	wantErr(t, "path", err, store.ErrNotExist)
	for _, key := range []string{"", "..", "set/../..", "/etc"} {
		if path, err := st.Path(key); err == nil {
			t.Errorf("path of %q is %s", key, path)
		}
	}
}
