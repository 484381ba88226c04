package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"

	"dbbackup/internal/store"
)

// Leftovers returns what runs that died left behind: temporary files, staged
// folders and empty folders, as names below the root, in order. What a living
// run is writing looks the same, so hold the lock from before Leftovers until
// after the last RemoveLeftover.
func (d *Dir) Leftovers(ctx context.Context) ([]string, error) {
	names, _, err := d.findLeftovers(ctx, ".")
	if err != nil {
		return nil, d.wrap("find leftovers in", d.path, err)
	}
	slices.Sort(names)
	return names, nil
}

// findLeftovers also says whether the folder is empty.
func (d *Dir) findLeftovers(ctx context.Context, folder string) (names []string, empty bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	entries, err := d.entries(folder)
	if err != nil {
		return nil, false, err
	}
	for _, e := range entries {
		name := path.Join(folder, e.Name())
		switch {
		case ownName(e.Name()):
			names = append(names, name)
		case e.IsDir() && store.CheckKey(name) == nil:
			below, empty, err := d.findLeftovers(ctx, name)
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

// RemoveLeftover removes one of the names that Leftovers returned, and the
// folders that become empty by it. Any other name is refused.
func (d *Dir) RemoveLeftover(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("remove leftover %s: %w", name, err)
	}
	if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." {
		return fmt.Errorf("remove leftover %q: is not a name below the store", name)
	}
	return d.wrap("remove leftover", name, d.removeLeftover(name))
}

func (d *Dir) removeLeftover(name string) error {
	if err := d.checkFolders(path.Dir(name)); err != nil {
		return notMissing(err)
	}
	remove := d.removeFolder
	if ownName(path.Base(name)) {
		remove = d.root.RemoveAll
	}
	if err := remove(name); err != nil {
		return notMissing(err)
	}
	return d.pruneUp(path.Dir(name))
}

// notMissing forgives that a leftover is gone already.
func notMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
