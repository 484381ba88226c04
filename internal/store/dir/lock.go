package dir

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

const lockName = ".lock"

// Lock takes the store's lock without waiting. The lock is the kernel's
// (flock), the file's content only says who holds it: what a dead process left
// there never blocks, and no clock can make a live lock look old. A held lock
// is a *store.LockedError of kind fault.Locked.
//
// It cannot be lost, so that held is ctx. release is safe to call more than once.
// The file is kept: removing it would let a waiter lock a file that is no longer
// there.
func (d *Dir) Lock(ctx context.Context, holder store.Holder) (held context.Context, release func() error, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("lock store %s: %w", d.path, err)
	}
	file, err := d.openLock()
	if err != nil {
		return nil, nil, explain(d.path, fault.Precondition, fmt.Errorf("lock store %s: %w", d.path, err))
	}
	if err := d.take(file, holder); err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return ctx, sync.OnceValue(func() error { return d.release(file) }), nil
}

// openLock opens or makes the lock file, and refuses anything in its place
// that is not a plain file.
func (d *Dir) openLock() (*os.File, error) {
	info, err := d.root.Lstat(lockName)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %w", lockName, errNotOurs)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, fileMode)
	if err != nil {
		return nil, err
	}
	if err := d.checkLock(file); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// checkLock makes sure that the open file is the one at the lock's name.
func (d *Dir) checkLock(file *os.File) error {
	opened, err := file.Stat()
	if err != nil {
		return err
	}
	named, err := d.root.Lstat(lockName)
	if err != nil {
		return err
	}
	if !os.SameFile(opened, named) {
		return fmt.Errorf("%s was replaced while it was opened", lockName)
	}
	return d.own(file, fileMode)
}

func (d *Dir) take(file *os.File, holder store.Holder) error {
	err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fault.New(fault.Locked, "wait for the other run to end; if it hangs, end that process and the lock is free",
			"%w", &store.LockedError{Holder: readHolder(file)})
	}
	if err != nil {
		return explain(d.path, fault.Precondition, fmt.Errorf("lock store %s: %w", d.path, err))
	}
	if err := writeHolder(file, holder); err != nil {
		return explain(d.path, fault.Failed, fmt.Errorf("write lock of store %s: %w", d.path, err))
	}
	return nil
}

// readHolder returns the zero Holder when the file does not say who: the
// holder may not have written it yet.
func readHolder(file *os.File) store.Holder {
	var holder store.Holder
	text, err := io.ReadAll(io.NewSectionReader(file, 0, 64<<10))
	if err != nil || json.Unmarshal(text, &holder) != nil {
		return store.Holder{}
	}
	return holder
}

func writeHolder(file *os.File, holder store.Holder) error {
	text, err := json.Marshal(holder)
	if err != nil {
		return err
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = file.WriteAt(append(text, '\n'), 0)
	return err
}

func (d *Dir) release(file *os.File) error {
	err := errors.Join(file.Truncate(0), unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
	if err != nil {
		return fmt.Errorf("unlock store %s: %w", d.path, err)
	}
	return nil
}
