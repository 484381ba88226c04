package pgtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// tempPrefix begins the name of every folder that belongs to a process. The
// path stays short: a Unix socket's may have 107 bytes only.
const tempPrefix = "pgtest-"

// abandonedAfter keeps folders that were just made and are not locked yet.
const abandonedAfter = 10 * time.Minute

// makeTempDir makes a folder for a cluster and locks it for as long as this
// process lives. It first removes the folders of processes that were killed.
func makeTempDir() (string, *os.File, error) {
	removeAbandoned(os.TempDir())
	dir, err := os.MkdirTemp("", tempPrefix)
	if err != nil {
		return "", nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, lock, nil
}

// lockDir takes the exclusive lock of a cluster's folder, or fails at once.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
	}
	return f, nil
}

// removeAbandoned removes what it can; what it cannot belongs to somebody else.
func removeAbandoned(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, tempPrefix+"*"))
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < abandonedAfter {
			continue
		}
		lock, err := lockDir(dir)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}
