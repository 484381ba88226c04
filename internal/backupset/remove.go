package backupset

import (
	"context"
	"errors"
	"fmt"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Unfinished returns the ids of the folders that runs left without finishing.
// Those of a run that is at work look the same: hold the store's lock.
func Unfinished(ctx context.Context, st store.Store) ([]string, error) {
	var ids []string
	err := eachFolder(ctx, st, func(folder setFolder) error {
		if folder.unfinished() {
			ids = append(ids, folder.id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find unfinished backup sets: %w", err)
	}
	return ids, nil
}

// RemoveUnfinished removes a folder that Unfinished returned. A set with a
// manifest, and one that lost it, are refused.
func RemoveUnfinished(ctx context.Context, st store.Store, id string) error {
	folder := newFolder(id)
	if CheckID(id) == nil {
		err := st.List(ctx, id+"/", func(info store.Info) error {
			folder.add(info)
			return nil
		})
		if err != nil {
			return wrapRemove(id, err)
		}
	}
	if !folder.unfinished() {
		return fault.New(fault.NotFound, "", "remove backup set %s: it is not unfinished", id)
	}
	return wrapRemove(id, erase(ctx, st, id))
}

func (f *setFolder) unfinished() bool { return f.has(unfinishedName) && !f.has(ManifestName) }

// Remove removes a set, damaged or not. It stops being one first: killed at any
// point, Remove leaves either the whole set or an unfinished folder (T90).
func Remove(ctx context.Context, st store.Store, id string) error {
	if err := CheckID(id); err != nil {
		return fault.New(fault.Usage, "", "remove backup set: %w", err)
	}
	if err := putMark(ctx, st, id); err != nil && !errors.Is(err, store.ErrExist) {
		return wrapRemove(id, err)
	}
	return wrapRemove(id, erase(ctx, st, id))
}

func wrapRemove(id string, err error) error {
	if err != nil {
		return fmt.Errorf("remove backup set %s: %w", id, err)
	}
	return nil
}

// erase deletes what is under an id that carries the mark: the manifest first,
// the mark last.
func erase(ctx context.Context, st store.Store, id string) error {
	if err := st.Delete(ctx, id+"/"+ManifestName); err != nil {
		return err
	}
	mark := id + "/" + unfinishedName
	var keys []string
	err := st.List(ctx, id+"/", func(info store.Info) error {
		if info.Key != mark {
			keys = append(keys, info.Key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := st.Delete(ctx, key); err != nil {
			return err
		}
	}
	return st.Delete(ctx, mark)
}
