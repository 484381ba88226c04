package pgtool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dbbackup/internal/child"
)

const (
	versionTime  = 10 * time.Second
	versionBytes = 4096
)

// errNotATool is a program that runs and is not the one its name says.
var errNotATool = errors.New("its --version is not that of a PostgreSQL program")

// errWrapper is Debian's pg_wrapper under a program's name.
var errWrapper = errors.New("it is Debian's pg_wrapper, which chooses a version by itself")

// present reports whether a file or symlink of that name is there at all.
func present(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && !info.IsDir()
}

// isWrapper reports whether path leads to Debian's pg_wrapper.
func isWrapper(path string) bool {
	target, err := filepath.EvalSymlinks(path)
	return err == nil && filepath.Base(target) == "pg_wrapper"
}

// version asks the program at path, which should be tool, for its version.
func (s Search) version(ctx context.Context, tool, path string) (Version, error) {
	if isWrapper(path) {
		return Version{}, errWrapper
	}
	ctx, cancel := context.WithTimeoutCause(ctx, versionTime,
		fmt.Errorf("no answer to --version within %s", versionTime))
	defer cancel()
	var out limitedBuffer
	_, err := child.Run(ctx, child.Command{
		Name: tool, Path: path, Args: []string{"--version"},
		Env: s.versionEnv(), Stdout: &out, Grace: time.Second,
	})
	if err != nil {
		return Version{}, err
	}
	v, ok := parseVersion(tool, string(out.kept))
	if !ok {
		return Version{}, errNotATool
	}
	return v, nil
}

func (s Search) versionEnv() []string {
	base := s.Env
	if base == nil {
		base = []string{"PATH=" + s.Path}
	}
	return Environ(base, nil)
}

// limitedBuffer takes as much as a version can be and ends the child beyond.
type limitedBuffer struct{ kept []byte }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if len(b.kept)+len(p) > versionBytes {
		return 0, errNotATool
	}
	b.kept = append(b.kept, p...)
	return len(p), nil
}

// whatIsWrong says in a few words why the program at a path is not usable.
func whatIsWrong(err error) string {
	switch {
	case errors.Is(err, errNotATool):
		return errNotATool.Error()
	case errors.Is(err, fs.ErrNotExist):
		return "no such program"
	case errors.Is(err, fs.ErrPermission):
		return "it is not executable"
	}
	return err.Error()
}
