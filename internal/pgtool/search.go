package pgtool

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"dbbackup/internal/fault"
)

// Search says where the programs may be.
type Search struct {
	BinDir string   // the operator's choice; when set, nothing else is searched
	Path   string   // the value of $PATH; relative entries are ignored
	Roots  []string // patterns of directories; nil: DefaultRoots
	Env    []string // the environment for --version; nil: PATH only
}

// DefaultRoots are the directories that packages install into.
func DefaultRoots() []string {
	return []string{
		"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
		"/usr/pgsql-*/bin",                   // PGDG on Red Hat
		"/usr/lib/postgresql[0-9]*/bin",      // SUSE
		"/usr/libexec/postgresql[0-9]*",      // Alpine
		"/usr/local/pgsql/bin",               // from source
		"/opt/homebrew/opt/postgresql@*/bin", // Homebrew, ARM
		"/usr/local/opt/postgresql@*/bin",    // Homebrew, Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
	}
}

// need is what a search is for.
type need struct {
	tool    string  // the program that must be found, and decides the version
	atLeast Version // an older one cannot do it
	because string  // what atLeast comes from: "the server is 15.18"
	prefer  Version // this major version first, then the next newer one
	// preferOverPath lets an installed program of the preferred version come
	// before one in PATH of another version.
	preferOverPath bool
}

// ForServer finds the programs to dump a server with: not older than it, its
// own major version first. What cannot be had is a fault.Precondition.
func (s Search) ForServer(ctx context.Context, serverVersionNum int) (Tools, error) {
	server := VersionOf(serverVersionNum)
	return s.find(ctx, need{
		tool:    PgDump,
		atLeast: server,
		because: fmt.Sprintf("the server is PostgreSQL %s", server),
		prefer:  server,
	})
}

// ForArchive finds the programs to restore an archive into a server with: of
// minMajor at least, the major version of the pg_dump that wrote the archive,
// and preferably of the server's own: what a newer one emits, an older server
// may refuse. What cannot be had is a fault.Precondition.
func (s Search) ForArchive(ctx context.Context, serverVersionNum int, minMajor int) (Tools, error) {
	return s.find(ctx, need{
		tool:           PgRestore,
		atLeast:        Version{Major: minMajor},
		because:        fmt.Sprintf("the archive was written by pg_dump %d", minMajor),
		prefer:         VersionOf(serverVersionNum),
		preferOverPath: true,
	})
}

// All are the installations that were found, BinDir's and PATH's first, then
// by version. What does not run is left out.
func (s Search) All(ctx context.Context) []Tools {
	var dirs []string
	if s.BinDir != "" {
		dirs = append(dirs, s.BinDir)
	}
	if path, ok := s.inPath(PgDump); ok {
		dirs = append(dirs, filepath.Dir(path))
	}
	var all []Tools
	for _, dir := range dirs {
		if t, err := s.inspect(ctx, PgDump, filepath.Join(dir, PgDump)); err == nil {
			all = append(all, t)
		}
	}
	for _, t := range s.installed(ctx, PgDump) {
		if !slices.ContainsFunc(all, func(seen Tools) bool { return seen.Dir == t.Dir }) {
			all = append(all, t)
		}
	}
	return all
}

// find applies the rules: the operator's directory, else PATH, else what is
// installed.
func (s Search) find(ctx context.Context, n need) (Tools, error) {
	if s.BinDir != "" {
		return s.chosen(ctx, n, filepath.Join(s.BinDir, n.tool))
	}
	path, inPath := s.inPath(n.tool)
	var other Tools // PATH's, that serves but is not of the preferred version
	if inPath {
		tools, err := s.chosen(ctx, n, path)
		if err != nil || !n.preferOverPath || tools.Version.sameMajor(n.prefer) {
			return tools, err
		}
		other = tools
	}
	best, ok := n.best(s.installed(ctx, n.tool))
	switch {
	case inPath && !(ok && best.Version.sameMajor(n.prefer)):
		return other, nil
	case !ok:
		return Tools{}, fault.New(fault.Precondition, n.install(),
			"find %s: none in PATH or the usual directories that serves, and %s", n.tool, n.because)
	}
	return s.complete(ctx, best)
}

// chosen uses the program at path or refuses it.
func (s Search) chosen(ctx context.Context, n need, path string) (Tools, error) {
	t, err := s.inspect(ctx, n.tool, path)
	if ctx.Err() != nil {
		return Tools{}, fmt.Errorf("find %s: %w", n.tool, context.Cause(ctx))
	}
	if err != nil {
		return Tools{}, fault.New(fault.Precondition, s.hint(ctx, n), "use %s: %s", path, whatIsWrong(err))
	}
	if t.Version.olderThan(n.atLeast) {
		return Tools{}, fault.New(fault.Precondition, s.hint(ctx, n),
			"use %s: it is %s %s, and %s", path, n.tool, t.Version, n.because)
	}
	return s.complete(ctx, t)
}

// hint names a directory that would do, or the package to install.
func (s Search) hint(ctx context.Context, n need) string {
	if best, ok := n.best(s.installed(ctx, n.tool)); ok {
		return fmt.Sprintf("use --pg-bin %s (%s)", best.Dir, best.Version)
	}
	return n.install()
}

// install says which package to install, and what to do with one elsewhere.
func (n need) install() string {
	wanted := n.prefer
	if wanted.olderThan(n.atLeast) {
		wanted = n.atLeast
	}
	return fmt.Sprintf("apt-get install postgresql-client-%d, or name the directory of another installation with --pg-bin", wanted.Major)
}

// best chooses among installations in order of version: the preferred major
// version, else the smallest newer one, else the smallest that serves.
func (n need) best(installed []Tools) (Tools, bool) {
	rank := func(t Tools) int {
		switch {
		case t.Version.sameMajor(n.prefer):
			return 0
		case !t.Version.olderThan(n.prefer):
			return 1
		}
		return 2
	}
	serving := slices.DeleteFunc(slices.Clone(installed), func(t Tools) bool { return t.Version.olderThan(n.atLeast) })
	if len(serving) == 0 {
		return Tools{}, false
	}
	return slices.MinFunc(serving, func(a, b Tools) int { return rank(a) - rank(b) }), true
}

// inPath is the first program of that name in PATH that is no pg_wrapper.
func (s Search) inPath(tool string) (path string, ok bool) {
	for _, dir := range filepath.SplitList(s.Path) {
		path := filepath.Join(dir, tool)
		if filepath.IsAbs(dir) && present(path) && !isWrapper(path) {
			return path, true
		}
	}
	return "", false
}

func (s Search) roots() []string {
	if s.Roots == nil {
		return DefaultRoots()
	}
	return slices.Clone(s.Roots)
}

// installed are the usable installations below Roots that have tool, by
// version, and of one major version the newest minor first.
func (s Search) installed(ctx context.Context, tool string) []Tools {
	var found []Tools
	for _, root := range s.roots() {
		paths, _ := filepath.Glob(filepath.Join(root, tool)) // a bad pattern finds nothing
		for _, path := range paths {
			if t, err := s.inspect(ctx, tool, path); err == nil {
				found = append(found, t)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Tools) int {
		return cmp.Or(cmp.Compare(a.Version.Major, b.Version.Major), -cmp.Compare(a.Version.Minor, b.Version.Minor))
	})
	return found
}

// inspect asks the program at path for its version and looks at what stands
// beside it.
func (s Search) inspect(ctx context.Context, tool, path string) (Tools, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return Tools{}, err
	}
	v, err := s.version(ctx, tool, path)
	if err != nil {
		return Tools{}, err
	}
	t := Tools{Dir: filepath.Dir(path), Version: v}
	for _, name := range names() {
		beside := filepath.Join(t.Dir, name)
		if name == tool || (present(beside) && !isWrapper(beside)) {
			*t.path(name) = beside
		}
	}
	return t, nil
}

// complete takes the programs that are missing beside the chosen one from an
// installation of the same major version. So a wrapper script for one program,
// alone in its directory, works.
func (s Search) complete(ctx context.Context, t Tools) (Tools, error) {
	for _, name := range names() {
		if *t.path(name) != "" {
			continue
		}
		n := need{tool: name, prefer: t.Version, atLeast: t.Version}
		others := slices.DeleteFunc(s.installed(ctx, name), func(o Tools) bool { return !o.Version.sameMajor(t.Version) })
		if len(others) == 0 {
			return Tools{}, fault.New(fault.Precondition, n.install(),
				"find %s: not beside the programs in %s, and no other %d is installed", name, t.Dir, t.Version.Major)
		}
		*t.path(name) = *others[0].path(name)
	}
	return t, nil
}
