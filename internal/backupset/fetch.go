package backupset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/store"
)

// Local reports whether child processes write the set's objects themselves, by
// way of Stage.
func (w *Writer) Local() bool {
	_, ok := w.st.(store.Local)
	return ok && w.seal == nil
}

// Local reports whether the set's objects are files of this machine, which
// Path names.
func (s *Set) Local() bool {
	_, ok := s.st.(store.Local)
	return ok && !s.Sealed()
}

// fetches is how many files of a folder are read at once.
const fetches = 4

// Fetch returns the path of an object, or of a folder of objects, for a child
// process to read, wherever the store is. What is not a file of this machine is
// copied to a private temporary place first, and checked on the way. done
// removes the copy; where there is none it does nothing.
func (s *Set) Fetch(ctx context.Context, name string) (path string, done func() error, err error) {
	if s.Local() {
		path, err = s.Path(name)
		return path, func() error { return nil }, err
	}
	folder, err := os.MkdirTemp("", "dbbackup-fetched-")
	if err != nil {
		return "", nil, fmt.Errorf("fetch object %s: %w", name, err)
	}
	done = func() error { return os.RemoveAll(folder) }
	path = filepath.Join(folder, filepath.Base(name))
	if err := s.fetch(ctx, name, path); err != nil {
		return "", nil, errors.Join(fmt.Errorf("fetch object %s of backup set %s to %s: %w", name, s.ID(), path, err), done())
	}
	return path, done, nil
}

func (s *Set) fetch(ctx context.Context, name, path string) error {
	one := func(name, path string) error {
		return s.Reread(func() error { return s.fetchObject(ctx, name, path) })
	}
	if _, ok := s.Object(name); ok {
		return one(name, path)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetches)
	objects := s.Below(name)
	if len(objects) == 0 {
		return damaged(nil, "it is not in the manifest")
	}
	for _, o := range objects {
		to := filepath.Join(path, filepath.FromSlash(o.Name[len(name):]))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		group.Go(func() error { return one(o.Name, to) })
	}
	return group.Wait()
}

func (s *Set) fetchObject(ctx context.Context, name, path string) (err error) {
	in, err := s.OpenObject(ctx, name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, untilDone(ctx, in))
	return err
}
