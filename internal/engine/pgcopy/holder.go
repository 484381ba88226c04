package pgcopy

import (
	"context"
	"fmt"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// Who wants to change a table waits for the leader's lock, and whoever comes later
// waits behind it: also a worker, that would wait for itself in a circle that the
// server cannot see. So the second keeper holds all locks, too, and reads what a
// worker cannot.

// queueWait is how long a worker waits for a lock. Nobody but who waits for the
// leader can be in its way.
const queueWait = 500 * time.Millisecond

// errQueued ends an attempt that a session behind the leader's locks stands in the
// way of.
var errQueued = fault.New(fault.Unavailable, "", "a session that waits for our locks stands in the way")

func (c *capture) tableNames() []pgname.Table {
	names := make([]pgname.Table, len(c.shapes))
	for i := range c.shapes {
		names[i] = c.shapes[i].Table
	}
	return names
}

// lockHolder lets the second keeper lock what the leader has locked.
func (c *capture) lockHolder(ctx context.Context, stream *pg.Stream) error {
	err := stream.LockTables(ctx, c.tableNames())
	if pg.IsLockTimeout(err) {
		return errQueued
	}
	return err
}

// readHeld runs a job in the second keeper's session.
func (c *capture) readHeld(ctx context.Context, w *worker, j *job) error {
	k := c.holder
	k.mu.Lock()
	defer k.mu.Unlock()
	stream, ok := k.session.(*pg.Stream)
	if !ok || k.lost {
		return fmt.Errorf("%s: %w", j.what, errQueued)
	}
	err := j.run(ctx, &worker{c: c, limits: w.limits, stream: stream, codec: w.codec, buffer: w.buffer})
	k.lost = stream.Lost()
	if err == nil {
		return nil
	}
	if k.lost || pg.IsLockTimeout(err) {
		err = fmt.Errorf("%w: %w", errQueued, err)
	}
	return fmt.Errorf("%s: %w", j.what, err)
}
