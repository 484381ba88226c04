package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/folders"
	"dbbackup/internal/store/lease"
)

// Lock takes the run lock: a lease, for no lock of the kernel reaches here.
func (s *Store) Lock(ctx context.Context, holder store.Holder) (held context.Context, release func() error, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("lock store %s: %w", s, err)
	}
	held, release, err = lease.Lock(ctx, lockObjects{s}, s.lease, holder)
	if err != nil {
		return nil, nil, s.explain(ctx, fault.Failed, err)
	}
	return held, release, nil
}

// lockObjects are the files of the lock, in a folder that no key names.
type lockObjects struct{ *Store }

func lockName(name string) string { return path.Join(lease.Folder, name) }

// enterLock makes sure that the lock's folder is one: a local store has a file
// of that name.
func (o lockObjects) enterLock(ctx context.Context) (there bool, err error) {
	there, err = o.checkFolders(ctx, lease.Folder)
	if errors.Is(err, errNoFolder) {
		return false, fault.New(fault.Precondition, "use a folder as a local store or through SFTP, not both; when no run works on it any more, remove the file",
			"%s of store %s is the lock of a local store: %w", lease.Folder, o, err)
	}
	return there, err
}

// Create makes a file by a link, as an object is made.
func (o lockObjects) Create(ctx context.Context, name string, data []byte) error {
	if _, err := o.enterLock(ctx); err != nil {
		return err
	}
	if err := o.makeFolders(ctx, lease.Folder); err != nil {
		return err
	}
	temp := lockName(folders.Partial(name))
	err := o.write(ctx, temp, data)
	if err == nil {
		err = o.publish(ctx, temp, lockName(name))
	}
	if err == nil {
		return o.syncUp(ctx, lease.Folder)
	}
	after, cancel := afterwards(ctx)
	defer cancel()
	if errors.Is(err, fs.ErrExist) {
		err = store.ErrExist
	}
	return errors.Join(err, o.remove(after, temp))
}

func (o lockObjects) write(ctx context.Context, temp string, data []byte) error {
	return tell(ctx, o.Store, func(c *wire.Client) error {
		file, err := createFile(c, o.at(temp))
		if err != nil {
			return err
		}
		return errors.Join(put(file, data), o.sync(file), file.Close())
	})
}

func (s *Store) sync(file *wire.File) error {
	if !s.syncsFiles {
		return nil
	}
	return file.Sync()
}

// Put writes in place. A full disk does not matter to what has its block
// already, and half a heartbeat is a change like a whole one.
func (o lockObjects) Put(ctx context.Context, name string, data []byte) error {
	if _, err := o.enterLock(ctx); err != nil {
		return err
	}
	return tell(ctx, o.Store, func(c *wire.Client) error {
		file, err := c.OpenFile(o.at(lockName(name)), os.O_WRONLY|os.O_CREATE)
		if err != nil {
			return err
		}
		return errors.Join(put(file, data), file.Chmod(fileMode), file.Close())
	})
}

func put(file *wire.File, data []byte) error {
	_, err := file.WriteAt(data, 0)
	if err != nil {
		return err
	}
	return file.Truncate(int64(len(data)))
}

// Read returns a small file.
func (o lockObjects) Read(ctx context.Context, name string) ([]byte, error) {
	if there, err := o.enterLock(ctx); err != nil {
		return nil, err
	} else if !there {
		return nil, store.ErrNotExist
	}
	text, err := ask(ctx, o.Store, func(c *wire.Client) ([]byte, error) { return readSmall(c, o.at(lockName(name))) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil, store.ErrNotExist
	}
	return text, err
}

func readSmall(c *wire.Client, full string) ([]byte, error) {
	info, err := c.Lstat(full)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %w", full, errNotOurs)
	}
	file, err := c.Open(full)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text := make([]byte, blockBytes)
	n, err := file.ReadAt(text, 0)
	if err == io.EOF {
		err = nil
	}
	return text[:n], err
}

// Names lists the files of the lock.
func (o lockObjects) Names(ctx context.Context) ([]string, error) {
	there, err := o.enterLock(ctx)
	if err != nil || !there {
		return nil, err
	}
	entries, err := o.entries(ctx, lease.Folder)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Delete removes a file of the lock.
func (o lockObjects) Delete(ctx context.Context, name string) error {
	err := o.remove(ctx, lockName(name))
	if errors.Is(err, fs.ErrPermission) {
		return store.ErrDenied
	}
	return err
}
