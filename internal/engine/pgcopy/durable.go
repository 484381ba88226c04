package pgcopy

import (
	"context"
	"time"

	"dbbackup/internal/pg"
)

// A server commits asynchronously where it is told to, and takes aborts back
// always: after a crash these transactions never were, and their numbers are given out
// once more, below the horizon. A proof would take rows of the second
// transaction for those of the first one. So nothing that a proof can start from
// comes to be before all that has ended is durable, which the WAL writer sees to
// within a bounded time: chunks are read meanwhile, and not kept.

// ending asks for a moment at which all transactions that the leader's snapshot
// sees as ended had ended. Where none ended since an earlier one that was told of, it
// is that: an idle server writes what is not of a transaction when it likes.
func (c *capture) ending(ctx context.Context, leader *pg.Conn) (pg.Moment, error) {
	now, err := leader.Moment(ctx)
	if err == nil && c.req.Before.Visible == now.Visible {
		return c.req.Before, nil
	}
	return now, err
}

// awaitDurable waits until all that has ended is durable, and then lets chunks be
// kept.
func (c *capture) awaitDurable(ctx context.Context) error {
	if !c.isDurable(c.ended.WALPosition) {
		if err := c.apart(ctx, c.pollDurable); err != nil {
			return err
		}
	}
	close(c.durable)
	return nil
}

func (c *capture) isDurable(now pg.WALPosition) bool {
	return now.Flushed >= c.ended.Inserted || time.Since(c.ended.At) > c.ended.Within
}

func (c *capture) pollDurable(ctx context.Context, conn *pg.Conn) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		now, err := conn.WAL(ctx)
		if err != nil {
			return err
		}
		if c.isDurable(now) {
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
