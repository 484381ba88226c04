package pg

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/pgname"
)

// Blocker is a session that others wait for.
type Blocker struct {
	PID   int
	User  string
	State string
	Query string // shortened
	Since time.Duration
}

func (b Blocker) String() string {
	return fmt.Sprintf("pid %d (%s, %s for %s): %s", b.PID, pgname.Printable(b.User), b.State,
		b.Since.Round(time.Second), strings.Join(strings.Fields(b.Query), " "))
}

// Blockers lists the sessions that those of an application wait for.
func (c *Conn) Blockers(ctx context.Context, application string) ([]Blocker, error) {
	return c.blockers(ctx, "w.application_name = $1", application)
}

// BlockersOf lists the sessions that a backend waits for.
func (c *Conn) BlockersOf(ctx context.Context, pid uint32) ([]Blocker, error) {
	return c.blockers(ctx, "w.pid = $1", int32(pid)) //nolint:gosec // a pid
}

func (c *Conn) blockers(ctx context.Context, who string, arg any) ([]Blocker, error) {
	return rows(ctx, c, "look for lock waits", func(row pgx.CollectableRow) (b Blocker, err error) {
		return b, row.Scan(&b.PID, &b.User, &b.State, &b.Query, &b.Since)
	}, `SELECT DISTINCT b.pid, coalesce(b.usename::text, ''), coalesce(b.state, 'active'), left(coalesce(b.query, ''), 200),
	           coalesce(clock_timestamp() - b.state_change, interval '0')
	      FROM pg_stat_activity w
	     CROSS JOIN LATERAL unnest(pg_blocking_pids(w.pid)) p(pid)
	      JOIN pg_stat_activity b ON b.pid = p.pid
	     WHERE w.wait_event_type = 'Lock' AND `+who, arg)
}

// TerminateBackends ends the sessions of an application, and returns how many
// there were. A session that waits for a lock does not notice that its client
// has died.
func (c *Conn) TerminateBackends(ctx context.Context, application string) (int, error) {
	return value[int](ctx, c, "end sessions of "+application,
		`SELECT count(pg_terminate_backend(pid))::int FROM pg_stat_activity
		  WHERE application_name = $1 AND pid <> pg_backend_pid() AND usename = current_user`, application)
}
