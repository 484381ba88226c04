package dir

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"dbbackup/internal/store"
)

// What root makes in a folder of another user is that user's.
func TestRootGivesWhatItMakesToTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	const uid, gid = 54321, 54322
	folder := t.TempDir()
	must(t, os.Chown(folder, uid, gid))
	d, err := Open(folder, false)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })

	must(t, d.CheckWritable(t.Context()))
	_, release, err := d.Lock(t.Context(), store.Holder{PID: 1})
	must(t, err)
	defer release() //nolint:errcheck // the test is over
	w, err := d.Create(t.Context(), "a/b/object", 0)
	must(t, err)
	must(t, w.Commit())
	staged, err := d.Stage(t.Context(), "c/folder")
	must(t, err)
	must(t, os.Mkdir(staged, 0o755))
	must(t, os.WriteFile(filepath.Join(staged, "file"), nil, 0o644))
	must(t, d.Publish(t.Context(), staged, "c/folder"))

	seen := 0
	must(t, filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		must(t, err)
		info, err := e.Info()
		must(t, err)
		seen++
		if stat := info.Sys().(*syscall.Stat_t); stat.Uid != uid || stat.Gid != gid {
			t.Errorf("%s belongs to %d:%d", path, stat.Uid, stat.Gid)
		}
		return nil
	}))
	if seen != 8 {
		t.Errorf("%d files and folders were made, want 8", seen)
	}

	// Another name of the same file is not given away with it.
	staged, err = d.Stage(t.Context(), "d")
	must(t, err)
	foreign := filepath.Join(t.TempDir(), "foreign")
	must(t, os.WriteFile(foreign, nil, 0o600))
	must(t, os.Link(foreign, staged))
	if err := d.Publish(t.Context(), staged, "d"); err == nil {
		t.Error("a file with a second name was published")
	}
	info, err := os.Stat(foreign)
	must(t, err)
	if stat := info.Sys().(*syscall.Stat_t); stat.Uid != 0 {
		t.Errorf("the foreign file belongs to %d", stat.Uid)
	}
}
