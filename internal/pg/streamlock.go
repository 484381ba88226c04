package pg

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dbbackup/internal/pgname"
)

// LockTables takes ACCESS SHARE locks within the session's transaction, at once or
// not at all: then the error is IsLockTimeout, and the transaction goes on.
func (s *Stream) LockTables(ctx context.Context, tables []pgname.Table) error {
	const batch = 100
	for from := 0; from < len(tables); from += batch {
		some := tables[from:min(from+batch, len(tables))]
		step := "lock table " + some[0].Printable() + " and others"
		if err := s.Exec(ctx, step, "SAVEPOINT locks"); err != nil {
			return err
		}
		err := s.Exec(ctx, step, s.lockSQL(some, "ACCESS SHARE")+" NOWAIT")
		if err != nil && !s.Lost() {
			if backErr := s.Exec(ctx, step, "ROLLBACK TO SAVEPOINT locks"); backErr != nil {
				return err
			}
		}
		// Out of it in any case: a snapshot cannot be exported from within.
		if endErr := s.Exec(ctx, step, "RELEASE SAVEPOINT locks"); err == nil {
			err = endErr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// KeepVacuumAway locks tables against VACUUM and ANALYZE, which pass over what they
// cannot lock at once, in a transaction that lasts until the session ends. Rows can be
// written meanwhile. wait bounds how long it waits for each.
func (s *Stream) KeepVacuumAway(ctx context.Context, tables []pgname.Table, wait time.Duration) error {
	return s.Exec(ctx, "keep autovacuum away", fmt.Sprintf("BEGIN; SET LOCAL lock_timeout = %d; ", wait.Milliseconds())+
		s.lockSQL(tables, "SHARE UPDATE EXCLUSIVE"))
}

func (s *Stream) lockSQL(tables []pgname.Table, mode string) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = "ONLY " + s.Quote(t.Schema) + "." + s.Quote(t.Name)
	}
	return "LOCK TABLE " + strings.Join(names, ", ") + " IN " + mode + " MODE"
}

// WaitForLocks bounds how long each statement of the session waits for a lock;
// after that the error is IsLockTimeout.
func (s *Stream) WaitForLocks(ctx context.Context, wait time.Duration) error {
	return s.Exec(ctx, "prepare session", fmt.Sprintf("SET lock_timeout = %d", wait.Milliseconds()))
}

// WaitsForLock reports whether a session of an application, other than some
// backends, waits for a lock.
func (c *Conn) WaitsForLock(ctx context.Context, application string, but []uint32) (bool, error) {
	others := make([]int32, len(but))
	for i, pid := range but {
		others[i] = int32(pid) //nolint:gosec // a pid
	}
	return value[bool](ctx, c, "look for sessions that wait", `SELECT count(*) > 0 FROM pg_stat_activity
		WHERE application_name = $1 AND wait_event_type = 'Lock' AND NOT pid = ANY ($2::int[])`, application, others)
}
