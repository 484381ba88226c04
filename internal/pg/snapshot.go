package pg

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Snapshot is an exported snapshot: the state of one database that every
// reader of a capture sees (B3).
type Snapshot struct {
	Name string // for SET TRANSACTION SNAPSHOT and pg_dump --snapshot
	XMin uint64 // 64-bit transaction ids (PostgreSQL manual, pg_snapshot)
	XMax uint64
	XIP  []uint64
	LSN  string // WAL position: written on a primary, replayed on a standby
	Time time.Time
}

// pingEvery keeps the session that holds a snapshot from looking idle to
// proxies between here and there, and is how late its loss is noticed.
const pingEvery = 5 * time.Second

// Keeper is the session that holds an exported snapshot open.
type Keeper struct {
	Snapshot Snapshot
	Encoding string // of the database (server_encoding)

	mu   sync.Mutex // the pings and Held share the session
	conn *Conn
}

// WithSnapshot exports a snapshot of the database and keeps it alive while fn
// runs. When the session that keeps it is lost, fn's context is cancelled and
// the loss is returned as fault.Unavailable: readers that come later could not
// import it any more.
func (e *Endpoint) WithSnapshot(ctx context.Context, database string, fn func(ctx context.Context, k *Keeper) error) error {
	conn, err := e.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only: nothing is lost
	snapshot, err := conn.export(ctx)
	if err != nil {
		return err
	}
	keeper := &Keeper{Snapshot: snapshot, Encoding: conn.c.PgConn().ParameterStatus("server_encoding"), conn: conn}
	group, groupCtx := errgroup.WithContext(ctx)
	finished := make(chan struct{})
	group.Go(func() error {
		defer close(finished)
		return fn(groupCtx, keeper)
	})
	group.Go(func() error { return keeper.ping(groupCtx, finished) })
	return group.Wait()
}

// Held asks the server whether the snapshot is still held. The error is
// fault.Unavailable when the session is gone.
func (k *Keeper) Held(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.conn.Exec(ctx, "keep the snapshot", "SELECT 1"); err != nil {
		return fmt.Errorf("the session that holds the snapshot is lost: %w", err)
	}
	return nil
}

// ping asks now and then until the work has finished.
func (k *Keeper) ping(ctx context.Context, finished <-chan struct{}) error {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-finished:
			return nil
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := k.Held(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (c *Conn) export(ctx context.Context) (Snapshot, error) {
	const step = "export a snapshot"
	if err := c.Exec(ctx, step, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
		return Snapshot{}, err
	}
	var s Snapshot
	var text string
	err := c.c.QueryRow(ctx, `SELECT pg_export_snapshot(), pg_current_snapshot()::text, now(),
		CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn()::text, '')
		     ELSE pg_current_wal_insert_lsn()::text END`).Scan(&s.Name, &text, &s.Time, &s.LSN)
	if err != nil {
		return Snapshot{}, wrap(step, err)
	}
	s.XMin, s.XMax, s.XIP, err = parseSnapshot(text)
	return s, wrap(step, err)
}

// parseSnapshot reads pg_snapshot's text form, xmin:xmax:xip,xip.
func parseSnapshot(text string) (xmin, xmax uint64, xip []uint64, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return 0, 0, nil, fmt.Errorf("snapshot %q is not xmin:xmax:xip", text)
	}
	numbers := append(parts[:2:2], strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' })...)
	parsed := make([]uint64, len(numbers))
	for i, n := range numbers {
		if parsed[i], err = strconv.ParseUint(n, 10, 64); err != nil {
			return 0, 0, nil, fmt.Errorf("snapshot %q: %w", text, err)
		}
	}
	return parsed[0], parsed[1], parsed[2:], nil
}
