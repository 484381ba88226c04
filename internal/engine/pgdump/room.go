package pgdump

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/child"
	"dbbackup/internal/fault"
)

// noRoom is below what a store has left for anybody's next write.
const noRoom = 1 << 20

// explainRoom says how much is free and how much the dump was expected to need,
// if the store being full is what failed. pg_dump's exit status does not tell,
// so the store is asked, before what was written is discarded.
func (c *capture) explainRoom(err error) error {
	var exit *child.ExitError
	if c.req.Free == nil || !errors.Is(err, unix.ENOSPC) && (!errors.As(err, &exit) || exit.Cause != nil) {
		return err
	}
	what := "the store is full"
	free, inodes, freeErr := c.req.Free()
	switch {
	case freeErr == nil && inodes == 0:
		what = fmt.Sprintf("the store has no inodes left (%d bytes are free)", free)
	case freeErr == nil && free < noRoom:
		what = fmt.Sprintf("the store is full (%d bytes are free)", free)
	case !errors.Is(err, unix.ENOSPC):
		return err
	}
	return fault.New(fault.Failed, "free space or delete old backup sets, then run again",
		"%s, and the dump needs about %s: %w", what, bytesize.Format(c.req.Expected), err)
}
