package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"dbbackup/internal/store"
	"dbbackup/internal/store/folders"
)

// List calls fn for every regular file whose key begins with prefix.
func (s *Store) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	start := "."
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		start = prefix[:i]
		if err := store.CheckKey(start); err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
	}
	there, err := s.checkFolders(ctx, start)
	switch {
	case errors.Is(err, errNoFolder), err == nil && !there:
		return ctx.Err() // no keys can be there
	case err != nil:
		return s.wrap(ctx, "list", prefix, err)
	}
	return s.walk(ctx, start, prefix, fn)
}

// walk visits one folder in key order. A folder that was removed since it was
// seen holds nothing.
func (s *Store) walk(ctx context.Context, folder, prefix string, fn func(store.Info) error) error {
	entries, err := s.entries(ctx, folder)
	if errors.Is(err, fs.ErrNotExist) && folder != "." {
		return nil
	}
	if err != nil {
		return s.wrap(ctx, "list folder", folder, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
		key := path.Join(folder, e.Name())
		switch {
		case store.CheckKey(key) != nil:
		case e.IsDir() && folders.Overlaps(key+"/", prefix):
			err = s.walk(ctx, key, prefix, fn)
		case e.Mode().IsRegular() && strings.HasPrefix(key, prefix):
			err = fn(info(key, e))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func info(key string, e os.FileInfo) store.Info {
	return store.Info{Key: key, Bytes: e.Size(), Modified: e.ModTime()}
}

// Delete removes an object, as durably as the server can, and the folders that
// it leaves empty.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return fmt.Errorf("delete object: %w", err)
	}
	err := s.delete(ctx, key)
	if errors.Is(err, fs.ErrPermission) {
		err = fmt.Errorf("%w: %w", store.ErrDenied, err)
	}
	return s.wrap(ctx, "delete object", key, err)
}

func (s *Store) delete(ctx context.Context, key string) error {
	info, err := s.lookUp(ctx, key)
	switch {
	case err != nil:
		return err
	case info == nil:
		return nil
	case info.IsDir():
		return errors.New("is a folder")
	}
	if err := s.remove(ctx, key); err != nil {
		return err
	}
	folder := path.Dir(key)
	if s.syncsFolders {
		if err := s.syncFolder(ctx, s.at(folder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.pruneUp(ctx, folder)
}
