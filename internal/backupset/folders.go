package backupset

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"dbbackup/internal/store"
)

// Folders are the sets' folders of a store, by their ids, as one listing shows them:
// no set was opened. What a run that is at work writes looks the same as what a
// killed one left: who relies on them holds the store's lock.
type Folders struct {
	IDs        []string // all of them, complete or not: what NewID must not repeat
	Unfinished []string // that runs left without finishing
	Resumable  []string // those of them that can be gone on with

	st     store.Store
	marked []string // complete, with what only a run's end removes
}

// ListFolders lists a store, oldest set first.
func ListFolders(ctx context.Context, st store.Store) (*Folders, error) {
	f := &Folders{st: st}
	err := f.list(ctx, func(setFolder) error { return nil })
	return f, err
}

// list lists the store, and calls fn for each set's folder.
func (f *Folders) list(ctx context.Context, fn func(setFolder) error) error {
	err := eachFolder(ctx, f.st, func(folder setFolder) error {
		f.IDs = append(f.IDs, folder.id)
		if folder.unfinished() {
			f.Unfinished = append(f.Unfinished, folder.id)
		}
		if folder.resumable() {
			f.Resumable = append(f.Resumable, folder.id)
		}
		if folder.has(unfinishedName) && folder.has(ManifestName) {
			f.marked = append(f.marked, folder.id)
		}
		return fn(folder)
	})
	if err != nil {
		return fmt.Errorf("list backup sets: %w", err)
	}
	for _, ids := range [][]string{f.IDs, f.Unfinished, f.Resumable} {
		sortByAge(ids, func(id string) string { return id })
	}
	return nil
}

// Store is the store that was listed.
func (f *Folders) Store() store.Store { return f.st }

// Tidy removes what a run that was killed right after its commit left in its
// set: scratch objects and the mark. It returns the ids of such sets.
func (f *Folders) Tidy(ctx context.Context) ([]string, error) {
	var ids []string
	for _, id := range f.marked {
		set, err := Open(ctx, f.st, id)
		if err != nil {
			continue // list says what is wrong with it
		}
		folder, err := listFolder(ctx, f.st, id)
		if err != nil {
			return ids, err
		}
		for _, name := range slices.Sorted(maps.Keys(folder.bytes)) {
			if !set.index.has(name) && isScratch(name) {
				if err := f.st.Delete(ctx, id+"/"+name); err != nil {
					return ids, err
				}
			}
		}
		if err := f.st.Delete(ctx, id+"/"+unfinishedName); err != nil {
			return ids, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// setFolder is what a store lists of one set.
type setFolder struct {
	id    string
	bytes map[string]int64 // size by name, relative to the set
	total int64

	manifestTime time.Time // when its manifest was written
}

func newFolder(id string) setFolder { return setFolder{id: id, bytes: map[string]int64{}} }

// listFolder lists one set's folder, which may be empty.
func listFolder(ctx context.Context, st store.Store, id string) (setFolder, error) {
	folder := newFolder(id)
	err := st.List(ctx, id+"/", func(info store.Info) error {
		folder.add(info)
		return nil
	})
	return folder, err
}

func (f *setFolder) add(info store.Info) {
	name := strings.TrimPrefix(info.Key, f.id+"/")
	if name == ManifestName {
		f.manifestTime = info.Modified
	}
	f.bytes[name] = info.Bytes
	f.total += info.Bytes
}

func (f *setFolder) has(name string) bool {
	_, ok := f.bytes[name]
	return ok
}

// isSet tells a set's folder from somebody else's.
func (f *setFolder) isSet() bool {
	_, _, named := parseID(f.id)
	return CheckID(f.id) == nil && (named || f.has(ManifestName) || f.has(unfinishedName))
}

// eachFolder calls fn for every set's folder. The keys of a folder follow each
// other in a store's order, so one folder is held at a time.
func eachFolder(ctx context.Context, st store.Store, fn func(setFolder) error) error {
	var current setFolder
	flush := func() error {
		if len(current.bytes) == 0 || !current.isSet() {
			return nil
		}
		return fn(current)
	}
	err := st.List(ctx, "", func(info store.Info) error {
		id, _, inFolder := strings.Cut(info.Key, "/")
		if !inFolder {
			return nil
		}
		if id != current.id {
			if err := flush(); err != nil {
				return err
			}
			current = newFolder(id)
		}
		current.add(info)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

// resumable tells a folder with the beginning of a set that can be gone on with.
func (f *setFolder) resumable() bool {
	return f.unfinished() && (f.has(RunName) || f.has(RunName+sealedSuffix))
}

func (f *setFolder) unfinished() bool { return f.has(unfinishedName) && !f.has(ManifestName) }
