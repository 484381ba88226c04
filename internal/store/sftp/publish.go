package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/fault"

	"dbbackup/internal/store/folders"
)

// publish gives a closed temporary file its final name, and never replaces what
// has that name: fs.ErrExist.
func (s *Store) publish(ctx context.Context, temp, key string) error {
	if s.hardlinks {
		return s.publishByLink(ctx, temp, key)
	}
	return s.publishByRename(ctx, temp, key)
}

// publishByLink links, which fails where the name is taken, and removes the
// temporary name.
func (s *Store) publishByLink(ctx context.Context, temp, key string) error {
	err := s.onceOrTwice(ctx, func(c *wire.Client) error { return c.Link(s.at(temp), s.at(key)) },
		func() (bool, error) { return s.sameFile(ctx, temp, key) })
	if err != nil {
		return s.taken(ctx, key, err)
	}
	// The object is what it should be, with or without a second name: one that
	// is left is a leftover.
	_ = s.remove(ctx, temp)
	return nil
}

// onceOrTwice changes a name. Where the answer was lost it finds out whether
// that was done, by itself or by a request that the server still had.
func (s *Store) onceOrTwice(ctx context.Context, change func(*wire.Client) error, done func() (bool, error)) error {
	unsure := false
	for attempt := 1; ; attempt++ {
		l, err := s.links.any(ctx)
		if err != nil {
			return err
		}
		_, err = await(ctx, l, func() (struct{}, error) { return struct{}{}, change(l.Client) })
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errLost) && attempt < 4:
			unsure = true
			l.hangUp()
		case unsure && ctx.Err() == nil:
			if ours, look := done(); look != nil || !ours {
				return errors.Join(err, look)
			}
			return nil
		default:
			return err
		}
	}
}

// taken turns the general "failure" of version 3 into fs.ErrExist where the name
// is taken.
func (s *Store) taken(ctx context.Context, key string, err error) error {
	if hasCode(err, codeExists) {
		return fs.ErrExist
	}
	if !hasCode(err, codeFailure) {
		return notTaken(err)
	}
	if infos, look := s.look(ctx, key); look == nil && infos[0] != nil {
		return fs.ErrExist
	}
	return err
}

// sameFile reports whether two names are one file. The protocol has no numbers
// for files, but a mode that is given to one of two names is seen at the other.
func (s *Store) sameFile(ctx context.Context, temp, key string) (bool, error) {
	const mark fs.FileMode = 0o400
	if err := tell(ctx, s, func(c *wire.Client) error { return c.Chmod(s.at(temp), mark) }); err != nil {
		return false, err
	}
	infos, err := s.look(ctx, temp, key)
	if err != nil {
		return false, err
	}
	same := infos[0] != nil && infos[1] != nil && infos[1].Mode() == infos[0].Mode() && infos[1].Mode().Perm() == mark &&
		infos[1].Size() == infos[0].Size()
	return same, tell(ctx, s, func(c *wire.Client) error { return c.Chmod(s.at(temp), fileMode) })
}

// renames knows whether the server's rename never replaces, as version 3 asks.
type renames struct {
	mu    sync.Mutex
	known bool
	err   error
}

// publishByRename is for servers without hard links. Not all of them keep to
// the protocol, so that each is tried once.
func (s *Store) publishByRename(ctx context.Context, temp, key string) error {
	if err := s.checkRename(ctx); err != nil {
		return err
	}
	err := s.onceOrTwice(ctx, func(c *wire.Client) error { return c.Rename(s.at(temp), s.at(key)) },
		func() (bool, error) { // nobody else takes the temporary name away
			infos, err := s.look(ctx, temp, key)
			return err == nil && infos[0] == nil && infos[1] != nil, err
		})
	if err != nil {
		return s.taken(ctx, key, err)
	}
	return nil
}

// checkRename renames one file onto another, which must fail.
func (s *Store) checkRename(ctx context.Context) error {
	s.rename.mu.Lock()
	defer s.rename.mu.Unlock()
	if s.rename.known {
		return s.rename.err
	}
	replaced, err := s.tryRename(ctx)
	if err != nil {
		return fmt.Errorf("see whether a rename replaces: %w", err)
	}
	s.rename.known = true
	if replaced {
		s.rename.err = fault.New(fault.Precondition, "use a server that offers hardlink@openssh.com, such as OpenSSH",
			"the server replaces files when it renames, and offers no hard links: an object could be overwritten")
	}
	return s.rename.err
}

func (s *Store) tryRename(ctx context.Context) (replaced bool, err error) {
	from, to := folders.Partial("probe"), folders.Partial("probe")
	defer func() {
		after, cancel := afterwards(ctx)
		defer cancel()
		err = errors.Join(err, s.remove(after, from), s.remove(after, to))
	}()
	for _, name := range []string{from, to} {
		if err := s.putProbe(ctx, name); err != nil {
			return false, err
		}
	}
	err = tell(ctx, s, func(c *wire.Client) error { return c.Rename(s.at(from), s.at(to)) })
	if answeredNo(err) {
		return false, nil
	}
	return err == nil, err
}

// probe does all that an object needs.
func (s *Store) probe(ctx context.Context) (err error) {
	name, final := folders.Partial("probe"), folders.Partial("probe")
	defer func() {
		after, cancel := afterwards(ctx)
		defer cancel()
		err = errors.Join(err, s.remove(after, name), s.remove(after, final))
	}()
	if err := s.putProbe(ctx, name); err != nil {
		return err
	}
	if err := s.publish(ctx, name, final); answeredNo(err) {
		return fault.New(fault.Precondition, "the server's file system may know no hard links (FAT and some FUSE ones do not): choose another folder",
			"give a file its name: %w", err)
	} else if err != nil {
		return err
	}
	return s.syncUp(ctx, path.Dir(name))
}

// answeredNo reports whether the server refused, for whatever reason.
func answeredNo(err error) bool {
	var refused *wire.StatusError
	return errors.As(err, &refused) || errors.Is(err, fs.ErrPermission)
}

func (s *Store) putProbe(ctx context.Context, name string) error {
	return tell(ctx, s, func(c *wire.Client) error {
		file, err := createFile(c, s.at(name))
		if err != nil {
			if info, look := c.Lstat(s.at(name)); look == nil && info.Mode().IsRegular() {
				return nil // made before the answer was lost
			}
			return err
		}
		_, err = file.Write([]byte("probe\n"))
		return errors.Join(err, s.sync(file), file.Close())
	})
}
