package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/store"
	"dbbackup/internal/store/folders"
)

// Leftovers returns what runs that died left behind: temporary files and empty
// folders, as names below the root, in order. What a living run is writing looks
// the same, so hold the lock from before Leftovers until after the last
// RemoveLeftover.
func (s *Store) Leftovers(ctx context.Context) ([]string, error) {
	names, _, err := s.findLeftovers(ctx, ".")
	if err == nil {
		names, err = s.ofLock(ctx, names)
	}
	if err != nil {
		return nil, s.wrap(ctx, "find leftovers in", s.String(), err)
	}
	slices.Sort(names)
	return names, nil
}

// findLeftovers also says whether the folder is empty.
func (s *Store) findLeftovers(ctx context.Context, folder string) (names []string, empty bool, err error) {
	entries, err := s.entries(ctx, folder)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		switch {
		case folders.IsPartial(e.Name()) && !e.IsDir():
			names = append(names, name)
		case e.IsDir() && store.CheckKey(name) == nil:
			below, empty, err := s.findLeftovers(ctx, name)
			if err != nil {
				return nil, false, err
			}
			if names = append(names, below...); empty {
				names = append(names, name)
			}
		}
	}
	return names, len(entries) == 0, nil
}

// ofLock adds what a run left that died while it took the lock.
func (s *Store) ofLock(ctx context.Context, names []string) ([]string, error) {
	of, err := lockObjects{s}.Names(ctx)
	for _, name := range of {
		if folders.IsPartial(name) {
			names = append(names, lockName(name))
		}
	}
	return names, err
}

// RemoveLeftover removes one of the names that Leftovers returned, and the
// folders that become empty by it. Any other name is refused.
func (s *Store) RemoveLeftover(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("remove leftover %s: %w", name, err)
	}
	if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." {
		return fmt.Errorf("remove leftover %q: is not a name below the store", name)
	}
	return s.wrap(ctx, "remove leftover", name, s.removeLeftover(ctx, name))
}

func (s *Store) removeLeftover(ctx context.Context, name string) error {
	if there, err := s.checkFolders(ctx, path.Dir(name)); err != nil || !there {
		return err
	}
	var err error
	if folders.IsPartial(path.Base(name)) {
		err = s.remove(ctx, name)
	} else if err = tell(ctx, s, func(c *wire.Client) error { return c.RemoveDirectory(s.at(name)) }); errors.Is(err, fs.ErrNotExist) {
		err = s.goneOrFile(ctx, name)
	}
	if err != nil {
		return err
	}
	return s.pruneUp(ctx, path.Dir(name))
}

// goneOrFile tells apart what the protocol calls "no such file" when a folder is
// removed: it is gone, or is none.
func (s *Store) goneOrFile(ctx context.Context, name string) error {
	infos, err := s.look(ctx, name)
	if err == nil && infos[0] != nil {
		err = fmt.Errorf("%s %w", name, errNoFolder)
	}
	return err
}
