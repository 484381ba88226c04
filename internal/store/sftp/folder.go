package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	wire "github.com/pkg/sftp"
	"golang.org/x/sync/errgroup"

	"dbbackup/internal/store/folders"
)

var (
	// errNotOurs is why a symbolic link, a device or anything else that is
	// neither file nor folder is not followed.
	errNotOurs  = errors.New("is neither a regular file nor a folder")
	errNoFolder = errors.New("is not a folder")
)

// look examines names at once, links themselves and not what they point to. A
// name that is missing is nil.
func (s *Store) look(ctx context.Context, names ...string) ([]os.FileInfo, error) {
	infos := make([]os.FileInfo, len(names))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		group.Go(func() error {
			info, err := ask(ctx, s, func(c *wire.Client) (os.FileInfo, error) { return c.Lstat(s.at(name)) })
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			infos[i] = info
			return err
		})
	}
	return infos, group.Wait()
}

// lookUp examines a name and the folders that lead to it. It refuses a path
// whose folders are not plain folders. A missing name is nil, be it because a
// folder is missing.
func (s *Store) lookUp(ctx context.Context, name string) (os.FileInfo, error) {
	names := append(folders.Ancestry(path.Dir(name)), name)
	infos, err := s.look(ctx, names...)
	if err != nil {
		return nil, err
	}
	last := len(names) - 1
	for i, info := range infos[:last] {
		switch {
		case info == nil:
			return nil, nil
		case !info.IsDir():
			return nil, fmt.Errorf("%s %w", names[i], errNoFolder)
		}
	}
	return infos[last], nil
}

// checkFolders refuses a path whose folders are not plain folders, and reports
// whether all of them are there.
func (s *Store) checkFolders(ctx context.Context, folder string) (there bool, err error) {
	if folder == "." {
		return true, nil
	}
	info, err := s.lookUp(ctx, folder)
	if err == nil && info != nil && !info.IsDir() {
		err = fmt.Errorf("%s %w", folder, errNoFolder)
	}
	return info != nil, err
}

// makeFolders makes the folders of a key's parent. A symbolic link among them
// is refused.
func (s *Store) makeFolders(ctx context.Context, folder string) error {
	for _, name := range folders.Ancestry(folder) {
		if err := s.makeFolder(ctx, s.at(name)); err != nil {
			return err
		}
	}
	return nil
}

// makeFolder makes one folder for this user alone, under any umask. One that is
// there already is left as it is. What the server calls a failure may be that it
// was there, and was pruned before it could be looked at.
func (s *Store) makeFolder(ctx context.Context, full string) error {
	const attempts = 10
	for i := 1; ; i++ {
		failed := tell(ctx, s, func(c *wire.Client) error { return c.Mkdir(full) })
		if failed == nil {
			return tell(ctx, s, func(c *wire.Client) error { return c.Chmod(full, folderMode) })
		}
		info, err := ask(ctx, s, func(c *wire.Client) (os.FileInfo, error) { return c.Lstat(full) })
		switch {
		case err == nil && info.IsDir():
			return nil
		case err == nil:
			return fmt.Errorf("%s %w", full, errNoFolder)
		case !errors.Is(err, fs.ErrNotExist) || !hasCode(failed, codeFailure) || i == attempts:
			return failed
		}
	}
}

// syncUp syncs a folder and all above it up to the root, so that an entry made
// in it is found again after a power failure, new folders included.
func (s *Store) syncUp(ctx context.Context, folder string) error {
	if !s.syncsFolders {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range append(folders.Ancestry(folder), ".") {
		group.Go(func() error { return s.syncFolder(ctx, s.at(name)) })
	}
	return group.Wait()
}

// syncFolder syncs one folder. That a folder is opened as a file is no part of
// the protocol: OpenSSH passes the open on to the system, which allows it.
func (s *Store) syncFolder(ctx context.Context, full string) error {
	return tell(ctx, s, func(c *wire.Client) error {
		handle, err := c.Open(full)
		if err != nil {
			return err
		}
		return errors.Join(handle.Sync(), handle.Close())
	})
}

// pruneUp removes a folder and those above it as long as they are empty. That
// one is not empty, was removed by another, or may not be removed is the normal
// end: an empty folder hurts nobody. A writer that loses its folder this way
// makes it again.
func (s *Store) pruneUp(ctx context.Context, folder string) error {
	for ; folder != "."; folder = path.Dir(folder) {
		err := tell(ctx, s, func(c *wire.Client) error { return c.RemoveDirectory(s.at(folder)) })
		if answeredNo(err) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// entries reads a folder, in key order.
func (s *Store) entries(ctx context.Context, folder string) ([]os.FileInfo, error) {
	entries, err := ask(ctx, s, func(c *wire.Client) ([]os.FileInfo, error) { return c.ReadDir(s.at(folder)) })
	slices.SortFunc(entries, folders.Compare[os.FileInfo])
	return entries, err
}

// remove removes a file. One that is gone already is no error.
func (s *Store) remove(ctx context.Context, name string) error {
	err := tell(ctx, s, func(c *wire.Client) error { return c.Remove(s.at(name)) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
