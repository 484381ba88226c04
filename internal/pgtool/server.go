package pgtool

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"dbbackup/internal/fault"
)

// The names of the programs that make and run a server.
const (
	Initdb   = "initdb"
	Postgres = "postgres"
)

// ServerPrograms are the programs that make and run a server of one version,
// by their absolute paths.
type ServerPrograms struct {
	Dir      string
	Version  Version
	Initdb   string
	Postgres string
}

// Server finds the programs to run a server of a major version (10 or later),
// and no other: a newer one refuses what an older one accepts. BinDir and Path
// are looked into first, and passed over when they hold another version or
// client programs only: what an operator chose there are clients. What cannot
// be had is a fault.Precondition.
func (s Search) Server(ctx context.Context, major int) (ServerPrograms, error) {
	var others []string
	for _, dir := range s.serverDirs() {
		found, err := s.ServerIn(ctx, dir)
		switch {
		case ctx.Err() != nil:
			return ServerPrograms{}, err
		case err == nil && found.Version.Major == major:
			return found, nil
		case err == nil:
			others = append(others, fmt.Sprintf("; %s holds %s", found.Dir, found.Version))
		}
	}
	return ServerPrograms{}, fault.New(fault.Precondition, installServer(major),
		"find the server programs of PostgreSQL %d: not in %s%s", major, s.places(), strings.Join(others, ""))
}

// ServerIn are the server programs in one directory. When they are not there,
// or do not run, the error is a fault.Precondition.
func (s Search) ServerIn(ctx context.Context, dir string) (ServerPrograms, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ServerPrograms{}, err
	}
	found := ServerPrograms{Dir: dir, Initdb: filepath.Join(dir, Initdb), Postgres: filepath.Join(dir, Postgres)}
	for _, path := range []string{found.Initdb, found.Postgres} {
		found.Version, err = s.version(ctx, filepath.Base(path), path)
		if ctx.Err() != nil {
			return ServerPrograms{}, fmt.Errorf("find %s: %w", Postgres, context.Cause(ctx))
		}
		if err != nil {
			return ServerPrograms{}, fault.New(fault.Precondition,
				"name the directory with the server's initdb and postgres", "use %s: %s", path, whatIsWrong(err))
		}
	}
	return found, nil
}

// serverDirs are the directories that hold something called postgres, those
// that were chosen first.
func (s Search) serverDirs() []string {
	chosen := filepath.SplitList(s.Path)
	if dir, err := filepath.Abs(s.BinDir); err == nil && s.BinDir != "" {
		chosen = append([]string{dir}, chosen...)
	}
	var dirs []string
	for _, dir := range chosen {
		if filepath.IsAbs(dir) && present(filepath.Join(dir, Postgres)) {
			dirs = append(dirs, dir)
		}
	}
	for _, root := range s.roots() {
		paths, _ := filepath.Glob(filepath.Join(root, Postgres)) // a bad pattern finds nothing
		for _, path := range paths {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	return dirs
}

// places says where a server was searched for.
func (s Search) places() string {
	places := append(s.roots(), "PATH")
	if s.BinDir != "" {
		places = append([]string{s.BinDir}, places...)
	}
	return strings.Join(places, ", ")
}

func installServer(major int) string {
	return fmt.Sprintf("install the server of that version (Debian: apt-get install postgresql-%d), "+
		"or name a running server with --drill-target", major)
}
