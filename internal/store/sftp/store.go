package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/lease"
)

var (
	_ store.Place = (*Store)(nil)
	_ store.Roomy = roomy{}
)

const (
	fileMode   fs.FileMode = 0o600
	folderMode fs.FileMode = 0o700
)

// Store is a store on an SFTP server. It may be used by several goroutines.
type Store struct {
	loc   location
	links *links
	root  string // absolute, symbolic links resolved

	syncsFiles   bool // fsync@openssh.com is offered
	syncsFolders bool // and takes folders, too
	hardlinks    bool // hardlink@openssh.com is offered
	rename       renames

	lease lease.Options
}

// roomy is a Store whose server tells how much it can take.
type roomy struct{ *Store }

// Open opens the store in the folder that an sftp URL names:
//
//	sftp://user@host:port/absolute/path
//	sftp://user@host/~/below/the/login/folder
//
// with the parameters connections (how many objects are sent at once through
// connections of their own, 4) and timeout (how long a silent or unreachable
// server is waited for, 1m). Without Options.Create a missing folder is
// fault.NotFound. The folder may be a symbolic link: that is the operator's
// choice. Close hangs up.
func Open(ctx context.Context, u *url.URL, o Options) (store.Place, error) {
	loc, err := locate(u, o.User)
	if err != nil {
		return nil, err
	}
	first, err := dial(ctx, loc, &o) // who mistyped a host does not want to wait
	if err != nil {
		return nil, err
	}
	s := &Store{loc: loc, lease: o.lease, links: newLinks(loc, func(ctx context.Context) (*link, error) { return dial(ctx, loc, &o) })}
	if err := s.links.add(first); err != nil {
		return nil, err
	}
	s.syncsFiles = offers(first, "fsync@openssh.com")
	s.hardlinks = offers(first, "hardlink@openssh.com")
	if err := s.enter(ctx, o.Create); err != nil {
		s.links.close()
		return nil, err
	}
	if offers(first, "statvfs@openssh.com") {
		return roomy{s}, nil
	}
	return s, nil
}

func offers(l *link, extension string) bool {
	_, ok := l.HasExtension(extension)
	return ok
}

// enter finds the folder.
func (s *Store) enter(ctx context.Context, create bool) error {
	name, err := s.absolute(ctx)
	if err != nil {
		return s.explain(ctx, fault.Precondition, fmt.Errorf("open store %s: %w", s, err))
	}
	if create {
		if err := s.makeDurably(ctx, name); err != nil {
			return s.explain(ctx, fault.Precondition, fmt.Errorf("create store %s: %w", s, err))
		}
	}
	info, err := ask(ctx, s, func(c *wire.Client) (os.FileInfo, error) { return c.Stat(name) })
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("is not a folder: %w", fs.ErrNotExist)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "check the path of the store; the first backup into it creates it", "open store %s: %w", s, err)
	case err != nil:
		return s.explain(ctx, fault.Precondition, fmt.Errorf("open store %s: %w", s, err))
	}
	if s.root, err = ask(ctx, s, func(c *wire.Client) (string, error) { return c.RealPath(name) }); err != nil {
		return s.explain(ctx, fault.Precondition, fmt.Errorf("open store %s: %w", s, err))
	}
	s.syncsFolders = s.syncsFiles && s.syncFolder(ctx, s.root) == nil
	return nil
}

func (s *Store) absolute(ctx context.Context) (string, error) {
	if path.IsAbs(s.loc.path) {
		return s.loc.path, nil
	}
	login, err := ask(ctx, s, func(c *wire.Client) (string, error) { return c.RealPath(".") })
	return path.Join(login, s.loc.path), err
}

// makeDurably makes a folder and its missing parents, and syncs each parent
// that received an entry, where the server can.
func (s *Store) makeDurably(ctx context.Context, name string) error {
	info, err := ask(ctx, s, func(c *wire.Client) (os.FileInfo, error) { return c.Stat(name) })
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file", name)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := path.Dir(name)
	if parent != name {
		if err := s.makeDurably(ctx, parent); err != nil {
			return err
		}
	}
	if err := s.makeFolder(ctx, name); err != nil {
		return err
	}
	if s.syncsFiles {
		_ = s.syncFolder(ctx, parent) // whether folders can be synced at all is not known yet; Warnings tells
	}
	return nil
}

// Close hangs up. Objects being written fail.
func (s *Store) Close() error {
	s.links.close()
	return nil
}

// String returns the URL of the store. It holds no secret: none is taken in one.
func (s *Store) String() string { return s.loc.String() }

// Warnings says what about the place is unsafe, one sentence each.
func (s *Store) Warnings() []string {
	var warnings []string
	ctx, cancel := context.WithTimeout(context.Background(), s.loc.silence)
	defer cancel()
	info, err := ask(ctx, s, func(c *wire.Client) (os.FileInfo, error) { return c.Stat(s.root) })
	switch {
	case err != nil:
		warnings = append(warnings, fmt.Sprintf("the store %s cannot be examined: %v", s, err))
	case info.Mode().Perm()&0o022 != 0:
		warnings = append(warnings, fmt.Sprintf("the store %s can be written by others (mode %04o): anyone of them can replace or delete backups; run chmod 0700 on it", s, info.Mode().Perm()))
	}
	switch {
	case !s.syncsFiles:
		warnings = append(warnings, fmt.Sprintf("the server of %s does not offer fsync@openssh.com: a backup that was reported as done can be lost when the server loses power soon after", s))
	case !s.syncsFolders:
		warnings = append(warnings, fmt.Sprintf("the server of %s does not sync folders: the name of a backup that was reported as done can be lost when the server loses power soon after", s))
	}
	return warnings
}

// CheckWritable writes, syncs, publishes and removes a small file. Any failure
// is fault.Precondition: the run has not begun.
func (s *Store) CheckWritable(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		err = s.probe(ctx)
	}
	if err != nil {
		return s.explain(ctx, fault.Precondition, fmt.Errorf("write to store %s: %w", s, err))
	}
	return nil
}

// Free returns what an ordinary user can still write. inodes is the largest
// number where the file system has no limit.
func (r roomy) Free() (bytes, inodes uint64, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*r.loc.silence)
	defer cancel()
	bytes, inodes, err = r.freeNow(ctx)
	if err != nil {
		return 0, 0, r.wrap(ctx, "ask for free space of", r.String(), err)
	}
	return bytes, inodes, nil
}

func (s *Store) freeNow(ctx context.Context) (bytes, inodes uint64, err error) {
	st, err := ask(ctx, s, func(c *wire.Client) (*wire.StatVFS, error) { return c.StatVFS(s.root) })
	if err != nil {
		return 0, 0, err
	}
	if st.Files == 0 {
		return st.Bavail * st.Frsize, math.MaxUint64, nil
	}
	return st.Bavail * st.Frsize, st.Favail, nil
}

// ask puts a question to the server that may be put again: where the link was
// lost before the answer came, it goes out once more on another.
func ask[T any](ctx context.Context, s *Store, question func(*wire.Client) (T, error)) (T, error) {
	var none T
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		l, err := s.links.any(ctx)
		if err != nil {
			return none, err
		}
		value, err := await(ctx, l, func() (T, error) { return question(l.Client) })
		if !errors.Is(err, errLost) || attempt == 4 {
			return value, err
		}
		l.hangUp()
	}
}

// tell is ask for what has no answer but that it was done.
func tell(ctx context.Context, s *Store, request func(*wire.Client) error) error {
	_, err := ask(ctx, s, func(c *wire.Client) (struct{}, error) { return struct{}{}, request(c) })
	return err
}

// at returns the path of a name below the root.
func (s *Store) at(name string) string { return path.Join(s.root, name) }

// afterwards returns a context for what has to be tidied up although ctx ended.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 2*patience)
}
