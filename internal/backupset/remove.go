package backupset

import (
	"context"
	"errors"
	"fmt"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// RemoveUnfinished removes a folder that a run left without finishing. One of a run
// that is at work looks the same: hold the store's lock. A set with a
// manifest, and one that lost it, are refused.
func RemoveUnfinished(ctx context.Context, st store.Store, id string) error {
	var folder setFolder
	if CheckID(id) == nil {
		var err error
		if folder, err = listFolder(ctx, st, id); err != nil {
			return wrapRemove(id, err)
		}
	}
	if !folder.unfinished() {
		return fault.New(fault.NotFound, "", "remove backup set %s: it is not unfinished", id)
	}
	return wrapRemove(id, erase(ctx, st, id))
}

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
