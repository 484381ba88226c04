package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dbbackup/internal/store"
	"dbbackup/internal/store/folders"
)

// Stage returns a path in a private folder beside key's place.
func (d *Dir) Stage(ctx context.Context, key string) (string, error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return "", fmt.Errorf("stage object: %w", err)
	}
	private := path.Join(path.Dir(key), stagedPrefix+folders.Random())
	if err := d.makePrivate(private); err != nil {
		return "", errors.Join(d.wrap("stage object", key, notTaken(err)), d.pruneUp(path.Dir(key)))
	}
	return filepath.Join(d.path, private, path.Base(key)), nil
}

func (d *Dir) makePrivate(folder string) error {
	d.folders.Lock()
	defer d.folders.Unlock()
	return d.makeFolders(folder)
}

// Publish makes what is staged durable, then visible. The process that wrote
// it must have ended. After a failure the staged path is as good as lost: its
// data may not be on disk whatever a second sync says. Discard it.
func (d *Dir) Publish(ctx context.Context, staged, key string) error {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return fmt.Errorf("publish object: %w", err)
	}
	from, err := d.stagedName(staged)
	if err != nil {
		return fmt.Errorf("publish object %s: %w", key, err)
	}
	if err := d.publish(ctx, from, key); err != nil {
		return d.wrap("publish object", key, err)
	}
	return nil
}

func (d *Dir) publish(ctx context.Context, from, key string) error {
	if err := d.syncTree(ctx, from); err != nil {
		return notTaken(err)
	}
	if err := d.moveIn(from, key); err != nil {
		return err
	}
	if err := d.syncUp(path.Dir(key)); err != nil {
		return errors.Join(err, d.root.RemoveAll(key))
	}
	return d.pruneUp(path.Dir(from))
}

func (d *Dir) moveIn(from, key string) error {
	d.folders.Lock()
	defer d.folders.Unlock()
	if err := d.makeFolders(path.Dir(key)); err != nil {
		return notTaken(err)
	}
	return d.renameNew(from, key)
}

// Discard removes a staged path with all below it, and its private folder.
// Discarding what is gone already, or was published, is no error.
func (d *Dir) Discard(staged string) error {
	name, err := d.stagedName(staged)
	if err != nil {
		return fmt.Errorf("discard: %w", err)
	}
	private := path.Dir(name)
	if err := d.root.RemoveAll(private); err != nil {
		return d.wrap("discard", name, err)
	}
	return d.wrap("discard", name, d.pruneUp(path.Dir(private)))
}

// Path returns the path of an object or a folder. No symbolic link is on the
// way to it or below it, so a child process that reads it stays in the store.
func (d *Dir) Path(key string) (string, error) {
	if err := store.CheckKey(key); err != nil {
		return "", fmt.Errorf("path of object: %w", err)
	}
	if err := d.checkFolders(path.Dir(key)); err != nil {
		return "", d.wrap("path of object", key, err)
	}
	if err := d.checkTree(key); err != nil {
		return "", d.wrap("path of object", key, err)
	}
	return filepath.Join(d.path, key), nil
}

// checkTree refuses whatever is neither file nor folder. WalkDir follows a
// link at its start, hence the look before.
func (d *Dir) checkTree(name string) error {
	info, err := d.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%s %w", name, errNotOurs)
	}
	return fs.WalkDir(d.root.FS(), name, func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !e.Type().IsRegular() {
			err = fmt.Errorf("%s %w", name, errNotOurs)
		}
		return err
	})
}

// stagedName turns a path that Stage returned into a name below the root.
func (d *Dir) stagedName(staged string) (string, error) {
	rel, err := filepath.Rel(d.path, staged)
	if err != nil {
		return "", err
	}
	private := path.Base(path.Dir(rel))
	if !filepath.IsLocal(rel) || !strings.HasPrefix(private, stagedPrefix) || !ownName(private) {
		return "", fmt.Errorf("%s is not a staged path of store %s", staged, d.path)
	}
	return rel, d.checkStagedParent(path.Dir(rel))
}

// checkStagedParent accepts a private folder that is gone: Discard may come
// after Publish.
func (d *Dir) checkStagedParent(private string) error {
	err := d.checkFolders(private)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// syncTree syncs a file, or every file and folder of a folder, and sets their
// modes. The kernel reports a write error of the process that wrote a file to
// the first sync after it (fsync(2)), so nothing that failed there passes here.
func (d *Dir) syncTree(ctx context.Context, name string) error {
	if err := d.checkTree(name); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8) // syncs wait for the device; some at once let it group them
	err := fs.WalkDir(d.root.FS(), name, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		group.Go(func() error { return d.syncOne(name, e.IsDir()) })
		return ctx.Err()
	})
	if failed := group.Wait(); failed != nil {
		return failed // and it is why the walk ended, if it did
	}
	return err
}

func (d *Dir) syncOne(name string, folder bool) error {
	mode := fileMode
	if folder {
		mode = folderMode
	}
	file, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.own(file, mode), file.Sync(), file.Close())
}
