package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/folders"
)

var (
	_ store.Local = (*Dir)(nil)
	_ store.Place = (*Dir)(nil)
	_ store.Roomy = (*Dir)(nil)
)

const (
	fileMode   fs.FileMode = 0o600
	folderMode fs.FileMode = 0o700
)

// Dir is a store in a directory. It may be used by several goroutines.
type Dir struct {
	root  *os.Root
	path  string // absolute
	owner *owner // of what root makes here; nil: whoever runs

	// folders is held while a folder is made and filled with its first entry,
	// and while empty folders are removed, so that the two never meet.
	folders sync.Mutex
	durable map[string]bool // folders whose names, and those above, were synced
	made    int             // folders, so far
}

// Open opens the store in the directory at path. With create it makes the
// directory (0700) and its missing parents durably; without, a missing one is
// fault.NotFound. The directory itself may be a symbolic link: that is the
// operator's choice. Close gives it back.
func Open(path string, create bool) (*Dir, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if create {
		if err := makeDurably(abs); err != nil {
			return nil, explain(abs, fault.Precondition, fmt.Errorf("create store %s: %w", abs, err))
		}
	}
	root, err := openRoot(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return nil, fault.New(fault.NotFound, "check the path of the store; the first backup into it creates it",
			"open store %s: %w", abs, err)
	case err != nil:
		return nil, explain(abs, fault.Precondition, fmt.Errorf("open store %s: %w", abs, err))
	}
	d := &Dir{root: root, path: abs, durable: map[string]bool{}}
	if d.owner, err = d.ownerFor(os.Geteuid()); err != nil {
		return nil, errors.Join(explain(abs, fault.Precondition, fmt.Errorf("open store %s: %w", abs, err)), root.Close())
	}
	return d, nil
}

// openRoot is os.OpenRoot with an error for files that can be told.
func openRoot(path string) (*os.Root, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	return os.OpenRoot(path)
}

// Close releases the directory. Objects being written fail.
func (d *Dir) Close() error { return d.root.Close() }

// String returns the absolute path of the directory.
func (d *Dir) String() string { return d.path }

// makeDurably makes a directory and its missing parents, and syncs each parent
// that received an entry.
func makeDurably(path string) error {
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return unix.ENOTDIR
		}
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := makeDurably(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, folderMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(path, folderMode); err != nil {
		return err
	}
	folder, err := os.Open(parent)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Warnings says what about the directory is unsafe, one sentence each.
func (d *Dir) Warnings() []string {
	info, err := d.root.Stat(".")
	if err != nil {
		return []string{fmt.Sprintf("the store %s cannot be examined: %v", d.path, err)}
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return []string{fmt.Sprintf("the store %s can be written by others (mode %04o): anyone of them can replace or delete backups; run chmod 0700 on it", d.path, mode)}
	}
	return nil
}

// CheckWritable writes, syncs and removes a small file. Any failure is
// fault.Precondition: the run has not begun.
func (d *Dir) CheckWritable(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = d.probe()
	}
	if err != nil {
		return explain(d.path, fault.Precondition, fmt.Errorf("write to store %s: %w", d.path, err))
	}
	return nil
}

func (d *Dir) probe() (err error) {
	name := folders.Partial("probe")
	file, err := d.createFile(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.root.Remove(name)) }()
	_, err = file.Write([]byte("probe\n"))
	return errors.Join(err, file.Sync(), file.Close())
}

// Free returns what a process of this user can still write to the file
// system. inodes is the largest number where the file system has no limit.
func (d *Dir) Free() (bytes, inodes uint64, err error) {
	bytes, inodes, err = freeAt(d.path)
	if err != nil {
		return 0, 0, fmt.Errorf("free space of %s: %w", d.path, err)
	}
	return bytes, inodes, nil
}

func freeAt(path string) (bytes, inodes uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	if st.Files == 0 {
		return st.Bavail * uint64(st.Bsize), math.MaxUint64, nil
	}
	return st.Bavail * uint64(st.Bsize), st.Ffree, nil
}

// createFile makes a new file that nobody else can have prepared, with the
// right mode under any umask.
func (d *Dir) createFile(name string) (*os.File, error) {
	file, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, err
	}
	if err := d.own(file, fileMode); err != nil {
		return nil, errors.Join(err, file.Close(), d.root.Remove(name))
	}
	return file, nil
}
