package pg

import (
	"context"
	"time"
)

// WALPosition is how far the server has come with its WAL, in bytes from its
// beginning.
type WALPosition struct {
	Inserted, Flushed int64
	// Within is how long after its end a transaction that nobody waited for may
	// not be durable yet (PostgreSQL manual, "Asynchronous Commit").
	Within time.Duration
}

// WAL asks for it. What a standby has replayed was durable before, and its
// position is zero.
func (c *Conn) WAL(ctx context.Context) (WALPosition, error) {
	var p WALPosition
	var delay int64
	err := c.c.QueryRow(ctx, `SELECT CASE WHEN standby THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END::bigint,
		       CASE WHEN standby THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') END::bigint,
		       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_writer_delay')
		  FROM pg_is_in_recovery() standby`).Scan(&p.Inserted, &p.Flushed, &delay)
	p.Within = 3 * time.Duration(delay) * time.Millisecond
	return p, wrap("ask for the position of the WAL", err)
}
