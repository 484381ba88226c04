package bucket

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// pageSize is how many keys one request lists: the most that S3 gives.
const pageSize = 1000

// List walks the objects page by page. Keys that this store could not have
// written are somebody else's, and hidden.
func (b *Bucket) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if err := errors.Join(ctx.Err(), checkPrefix(prefix)); err != nil {
		return fmt.Errorf("list objects: %w", err)
	}
	return b.walk(ctx, prefix, func(info store.Info) error {
		if store.CheckKey(info.Key) != nil {
			return nil
		}
		return fn(info)
	})
}

// checkPrefix refuses what no key can begin with.
func checkPrefix(prefix string) error {
	folder := strings.TrimSuffix(prefix, "/")
	if folder == "" {
		if prefix == "" {
			return nil
		}
		return fmt.Errorf("no key begins with %q", prefix)
	}
	return checkKey(folder)
}

// walk is List for all of the store's objects, its own ones too. An error of fn
// is returned as it is.
func (b *Bucket) walk(ctx context.Context, prefix string, fn func(store.Info) error) error {
	last := ""
	var token []byte
	for {
		objects, next, err := b.page(ctx, prefix, token, pageSize)
		if err != nil {
			return b.wrap(opList, "", err)
		}
		for _, object := range objects {
			key := b.short(object.Key)
			if key == object.Key && b.prefix != "" || key <= last && last != "" {
				return fault.New(fault.Integrity, "this service is not one to keep backups in: its listings cannot be relied on",
					"list store %s: the service listed %q after %q", b, object.Key, b.prefix+last)
			}
			last = key
			object.Key = key
			if err := fn(object); err != nil {
				return err
			}
		}
		if token = next; len(token) == 0 {
			return nil
		}
	}
}

// page lists one page, whole or not at all.
func (b *Bucket) page(ctx context.Context, prefix string, token []byte, size int) (objects []store.Info, next []byte, err error) {
	err = b.retry(ctx, "list objects", func(ctx context.Context) (err error) {
		objects, next, err = b.service.page(ctx, b.prefix+prefix, token, size)
		return err
	})
	return objects, next, err
}

// uploadMark separates the key from the id in the name of an unfinished upload.
const uploadMark = "?uploadId="

// Leftovers lists uploads in parts that runs which died left behind: they are
// no objects and cost as much. What a living run sends looks the same, so hold
// the lock from before Leftovers until after the last RemoveLeftover.
func (b *Bucket) Leftovers(ctx context.Context) ([]string, error) {
	var names []string
	err := b.retry(ctx, "list unfinished uploads", func(ctx context.Context) error {
		names = nil
		return b.service.uploads(ctx, b.prefix, func(key, id string) {
			if short := b.short(key); store.CheckKey(short) == nil && strings.HasPrefix(key, b.prefix) {
				names = append(names, short+uploadMark+id)
			}
		})
	})
	return names, b.wrap(opUploads, "", err)
}

// RemoveLeftover discards one of the uploads that Leftovers returned. One that
// is gone already is no error.
func (b *Bucket) RemoveLeftover(ctx context.Context, name string) error {
	i := strings.LastIndex(name, uploadMark)
	if i < 0 {
		return fmt.Errorf("remove leftover %q: is not the name of an unfinished upload", name)
	}
	key, id := name[:i], name[i+len(uploadMark):]
	full, err := b.full(key)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return fmt.Errorf("remove leftover %q: %w", name, err)
	}
	err = b.retry(ctx, "discard upload of "+key, func(ctx context.Context) error { return b.service.discard(ctx, full, id) })
	if err = b.wrap(opDiscard, key, err); errors.Is(err, store.ErrNotExist) {
		return nil
	}
	return err
}
