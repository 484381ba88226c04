package pgcopy

import (
	"context"
	"time"

	"dbbackup/internal/pg"
)

// ended is where the WAL was, and when, after the snapshot was taken: before it
// lies the end of every transaction that the snapshot sees as ended.
type ended struct {
	pg.WALPosition
	at time.Time
}

// A server commits asynchronously where it is told to, and takes aborts back
// always: after a crash these transactions never were, and their numbers are given out
// once more, below the horizon. A proof would take rows of the second
// transaction for those of the first one. So nothing that a proof can start from
// comes to be before all that has ended is durable, which the WAL writer sees to
// within a bounded time.
func (c *capture) awaitDurable(ctx context.Context) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		now, err := c.leader.WAL(ctx)
		if err != nil {
			return err
		}
		if now.Flushed >= c.ended.Inserted || time.Since(c.ended.at) > c.ended.Within {
			return nil
		}
		c.signs.Add(1)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
}
