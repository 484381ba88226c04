package throwaway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

const (
	// folderPrefix begins the name of every folder of this package.
	folderPrefix = "dbbackup-drill-"
	lockName     = "lock"
	// attempts bounds how often a new folder may be lost to a process that
	// clears up: it may take one for abandoned until that is locked.
	attempts = 10
	// poll is how often a lock or a file of the server is looked at.
	poll = 10 * time.Millisecond
)

// errTaken is a folder whose lock another process holds, or held until now.
var errTaken = errors.New("another process holds its lock")

// folder is a folder that is locked while any process has lock open.
type folder struct {
	path string
	lock *os.File
}

// makeFolder removes the folders that killed processes left in parent, and
// makes and locks a new one that is the server's user's.
func makeFolder(parent string, o owner) (*folder, error) {
	removeAbandoned(parent, o)
	var err error
	for range attempts {
		var path string
		if path, err = os.MkdirTemp(parent, folderPrefix); err != nil {
			return nil, fmt.Errorf("make a folder for a throwaway server: %w", err)
		}
		var lock *os.File
		if lock, err = lockFolder(path); err == nil {
			f := &folder{path, lock}
			if err := o.chown(path); err != nil {
				return nil, errors.Join(err, f.remove())
			}
			return f, nil
		}
		if err = errors.Join(err, os.RemoveAll(path)); !errors.Is(err, errTaken) {
			return nil, err
		}
	}
	return nil, err
}

// lockFolder takes the lock of a folder that is still there, or fails at once.
func lockFolder(path string) (*os.File, error) {
	name := filepath.Join(path, lockName)
	lock, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lock %s: %w", path, errTaken)
	}
	if err != nil {
		return nil, err
	}
	if err := lockFile(lock, name); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), lock.Close())
	}
	return lock, nil
}

// lockFile locks an open file, which must still be the one of that name.
func lockFile(lock *os.File, name string) error {
	err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return errTaken
	}
	if err != nil {
		return err
	}
	held, err := lock.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Lstat(name); err != nil || !os.SameFile(held, now) {
		return errTaken
	}
	return nil
}

// removeAbandoned removes what it can. What it cannot remove belongs to
// somebody else, or is for the next one to remove.
func removeAbandoned(parent string, o owner) {
	entries, _ := os.ReadDir(parent) // making a folder there says why not
	for _, entry := range entries {
		path := filepath.Join(parent, entry.Name())
		info, err := os.Lstat(path)
		if err != nil || !info.IsDir() || !o.owns(info) || !folderName.MatchString(entry.Name()) {
			continue
		}
		if lock, err := lockFolder(path); err == nil {
			_ = (&folder{path, lock}).remove()
		}
	}
}

// folderName is what os.MkdirTemp makes of folderPrefix.
var folderName = regexp.MustCompile(`^` + folderPrefix + `[0-9]+$`)

// remove removes the folder under its lock, and then gives that up.
func (f *folder) remove() error {
	return errors.Join(os.RemoveAll(f.path), f.lock.Close())
}

// takeBack waits until no other process has the lock open.
func (f *folder) takeBack(ctx context.Context) error {
	if err := f.lock.Close(); err != nil {
		return err
	}
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		lock, err := lockFolder(f.path)
		if err == nil {
			f.lock = lock
			return nil
		}
		if !errors.Is(err, errTaken) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-tick.C:
		}
	}
}
