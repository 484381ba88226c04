package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Codes that the library has no name for: later drafts of the protocol have
// them, and servers of version 3 send them.
const (
	codeExists  = 11
	codeFull    = 14
	codeQuota   = 15
	codeFailure = 4
)

// explain gives err the kind and a hint, if the cause is one that an operator
// can remove. Version 3 says "failure" for most causes, so the server is asked
// what else is known.
func (s *Store) explain(ctx context.Context, kind fault.Kind, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if errors.Is(err, errLost) {
		return fault.New(fault.Unavailable, "check the network and the server, then run again", "%w", err)
	}
	if fault.KindOf(err) != fault.Failed {
		return err // it tells itself
	}
	hint := s.hintFor(ctx, err)
	if hint == "" && kind == fault.Failed {
		return err
	}
	return fault.New(kind, hint, "%w", err)
}

func (s *Store) hintFor(ctx context.Context, err error) string {
	const quota = "the disk quota of this user on the server is used up: raise it or delete old backup sets, then run again"
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "the server's user may not do that there: check the owner, the mode and lsattr of " + s.String() + ", and sshd_config (ForceCommand internal-sftp -R or -P)"
	case hasCode(err, codeQuota):
		return quota
	case hasCode(err, codeFull) || hasCode(err, codeFailure):
		return s.hintFailure(ctx)
	}
	return ""
}

func (s *Store) hintFailure(ctx context.Context) string {
	bytes, inodes, err := s.freeNow(ctx)
	switch {
	case err != nil:
		return "the server does not say why: look whether its disk is full, a quota used up, or the file system read-only"
	case inodes == 0:
		return fmt.Sprintf("the server's file system has no inodes left (%s are free): delete files or old backup sets, then run again", bytesize.Format(int64(bytes))) //nolint:gosec // far below 2^63
	case bytes < blockBytes:
		return "the server's file system is full: free space or delete old backup sets, then run again"
	}
	return fmt.Sprintf("the server does not say why (%s are free): look whether a quota is used up, the file system read-only, or the name too long", bytesize.Format(int64(bytes))) //nolint:gosec // far below 2^63
}

func hasCode(err error, code uint32) bool {
	var status *wire.StatusError
	return errors.As(err, &status) && status.Code == code
}

// wrap names the step and the key, and turns the protocol's words for missing
// and taken into the store's.
func (s *Store) wrap(ctx context.Context, step, key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %s: %w", step, key, store.ErrNotExist)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s %s: %w", step, key, store.ErrExist)
	}
	return s.explain(ctx, fault.Failed, fmt.Errorf("%s %s: %w", step, key, err))
}
