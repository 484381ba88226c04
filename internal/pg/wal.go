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

// What a standby has replayed was durable before, and its position is zero.
const walQuery = `CASE WHEN standby THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END::bigint,
	CASE WHEN standby THEN 0 ELSE pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0') END::bigint,
	(SELECT setting::bigint FROM pg_settings WHERE name = 'wal_writer_delay')
	FROM pg_is_in_recovery() standby`

// WAL asks for it.
func (c *Conn) WAL(ctx context.Context) (WALPosition, error) {
	var p WALPosition
	var delay int64
	err := c.c.QueryRow(ctx, "SELECT "+walQuery).Scan(&p.Inserted, &p.Flushed, &delay)
	p.Within = walWithin(delay)
	return p, wrap("ask for the position of the WAL", err)
}

func walWithin(delay int64) time.Duration { return 3 * time.Duration(delay) * time.Millisecond }

// Moment is what was visible at some time, and where the WAL was after that: before it
// lies the end of every transaction that had ended by then.
type Moment struct {
	Visible string // pg_snapshot's text form; the same means that no transaction with an id ended between
	WALPosition
	At time.Time // not before the WAL was there
}

// Moment asks for the one that the session's next statement sees.
func (c *Conn) Moment(ctx context.Context) (Moment, error) {
	var m Moment
	var delay int64
	err := c.c.QueryRow(ctx, "SELECT pg_current_snapshot()::text, "+walQuery).Scan(&m.Visible, &m.Inserted, &m.Flushed, &delay)
	m.Within, m.At = walWithin(delay), time.Now()
	return m, wrap("ask for the position of the WAL", err)
}
