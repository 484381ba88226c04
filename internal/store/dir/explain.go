package dir

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// explain gives err, which happened in the directory at path, the kind and a
// hint, if the cause is one that an operator can remove.
func explain(path string, kind fault.Kind, err error) error {
	hint := hintFor(path, err)
	if hint == "" && kind == fault.Failed {
		return err
	}
	return fault.New(kind, hint, "%w", err)
}

func hintFor(path string, err error) string {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return ""
	}
	switch errno {
	case unix.ENOSPC:
		return hintNoSpace(path)
	case unix.EDQUOT:
		return "the disk quota of this user is used up: raise it or delete old backup sets, then run again"
	case unix.EFBIG:
		return "a file may not grow that large here: check ulimit -f and the file system's limit, or use directory mode, which writes smaller files"
	case unix.EROFS:
		return "the file system is mounted read-only: remount it writable, or choose another store"
	case unix.EACCES, unix.EPERM:
		return "this user may not do that there: check the owner, the mode and lsattr of " + path
	case unix.EIO:
		return "the device reported an I/O error: check dmesg and the disk; what was being written was discarded"
	case unix.ENAMETOOLONG:
		return "the file system does not take a name of this length"
	}
	return ""
}

func hintNoSpace(path string) string {
	bytes, inodes, err := freeAt(path)
	if err != nil {
		return "the file system of " + path + " is full: free space, then run again"
	}
	if inodes == 0 {
		return fmt.Sprintf("the file system of %s has no inodes left (%d bytes are free): delete files or old backup sets, then run again", path, bytes)
	}
	return fmt.Sprintf("the file system of %s is full (%d bytes are free): free space or delete old backup sets, then run again", path, bytes)
}

// wrap names the step and the key, and turns the system's words for missing
// and taken into the store's.
func (d *Dir) wrap(step, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: %w", step, key, store.ErrNotExist)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s %s: %w", step, key, store.ErrExist)
	}
	return explain(d.path, fault.Failed, fmt.Errorf("%s %s: %w", step, key, err))
}
