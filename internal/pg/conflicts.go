package pg

import (
	"context"
	"time"

	"dbbackup/internal/fault"
)

// Conflicts notices what a standby cancels in a database because replay of the
// WAL needs what it reads. PostgreSQL's own programs tell of that in the words
// of the server alone, whose language is anybody's: its counters tell, too.
type Conflicts struct {
	endpoint *Endpoint // nil on a primary, which cancels nothing for replay
	database string
	before   int64
}

// WatchConflicts begins to count a database's conflicts. On a primary there
// are none, and nothing is asked.
func WatchConflicts(ctx context.Context, e *Endpoint, standby bool, database string) (*Conflicts, error) {
	if !standby {
		return &Conflicts{}, nil
	}
	c := &Conflicts{endpoint: e, database: database}
	var err error
	c.before, err = c.count(ctx)
	return c, err
}

// A session adds what happened to it to the counters when it ends, which may be
// after its client has ended.
const conflictsWithin, askConflictsEvery = 2 * time.Second, 100 * time.Millisecond

// Cancelled reports whether the standby cancelled what failed with err. Where the
// server did not say why itself, as pg_dump's does not to us, the counters are asked
// for a while. What cannot be found out was not cancelled.
func (c *Conflicts) Cancelled(ctx context.Context, err error) bool {
	if c.endpoint == nil {
		return false
	}
	if SQLState(err) != "" {
		return hasState(err, stateSerialization, stateDeadlock)
	}
	ctx, cancel := context.WithTimeout(ctx, conflictsWithin)
	defer cancel()
	for {
		if n, err := c.count(ctx); err != nil || n > c.before {
			return err == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(askConflictsEvery):
		}
	}
}

func (c *Conflicts) count(ctx context.Context) (int64, error) {
	conn, err := c.endpoint.Connect(ctx, c.endpoint.Database)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	return value[int64](ctx, conn, "count recovery conflicts",
		`SELECT coalesce((SELECT confl_tablespace + confl_lock + confl_snapshot + confl_bufferpin + confl_deadlock
		    FROM pg_stat_database_conflicts WHERE datname = $1), 0)`, c.database)
}

// CancelledError is what a capture fails with that a standby cancelled: of the
// kind that is tried again.
func CancelledError(err error) error {
	return fault.New(fault.Unavailable, standbyHint, "the standby cancelled the capture, because replay of the WAL needed what it read: %w", err)
}
