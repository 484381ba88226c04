package pg

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/pgname"
)

// Identity is what must be the same for two snapshots to be moments of one history.
type Identity struct {
	System      string `json:"system"`   // the server's system identifier; empty: unknown
	Timeline    int64  `json:"timeline"` // 0: unknown
	DatabaseOID uint32 `json:"database_oid"`
}

// Known reports whether the identity can be relied on.
func (i Identity) Known() bool { return i.System != "" && i.Timeline != 0 && i.DatabaseOID != 0 }

// Identity asks for that of the session's database. What the role may not ask,
// and a timeline that is about to change, is unknown.
func (c *Conn) Identity(ctx context.Context) (Identity, error) {
	const step = "ask for the identity of the server"
	var id Identity
	var standby bool
	err := c.c.QueryRow(ctx, `SELECT oid, pg_is_in_recovery() FROM pg_database WHERE datname = current_database()`).Scan(&id.DatabaseOID, &standby)
	if err != nil {
		return id, wrap(step, err)
	}
	err = c.c.QueryRow(ctx, `SELECT system_identifier::text FROM pg_control_system()`).Scan(&id.System)
	if hasState(err, stateNoPrivilege) {
		return id, nil
	}
	if err != nil {
		return id, wrap(step, err)
	}
	// The control file's timeline is that of the last checkpoint, and lags behind
	// a promotion. A primary knows the one that it writes; on a standby the
	// places that may know have to agree.
	sql := `SELECT ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint`
	if standby {
		sql = `SELECT CASE WHEN count(DISTINCT t) = 1 THEN max(t) ELSE 0 END FROM (
			SELECT timeline_id FROM pg_control_checkpoint()
			 UNION ALL SELECT min_recovery_end_timeline FROM pg_control_recovery() WHERE min_recovery_end_timeline > 0
			 UNION ALL SELECT received_tli FROM pg_stat_wal_receiver WHERE received_tli > 0) x(t)`
	}
	err = c.c.QueryRow(ctx, sql).Scan(&id.Timeline)
	if hasState(err, stateNoPrivilege) {
		return id, nil
	}
	return id, wrap(step, err)
}

// Reached is a WAL position that a snapshot which is taken now cannot lie before:
// inserted on a primary, replayed on a standby; 0: unknown.
func (c *Conn) Reached(ctx context.Context) (uint64, error) {
	text, err := value[string](ctx, c, "ask for the position of the WAL", `
		SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn()::text, '')
		       ELSE pg_current_wal_insert_lsn()::text END`)
	return ParseLSN(text), err
}

// ParseLSN reads a pg_lsn; 0 for what is none.
func ParseLSN(text string) uint64 {
	high, low, _ := strings.Cut(text, "/")
	h, highErr := strconv.ParseUint(high, 16, 32)
	l, lowErr := strconv.ParseUint(low, 16, 32)
	if highErr != nil || lowErr != nil {
		return 0
	}
	return h<<32 | l
}

// BeginExported begins the session's transaction and exports its snapshot. Both
// last until the session ends.
func (c *Conn) BeginExported(ctx context.Context) (Snapshot, error) { return c.export(ctx) }

// ServerEncoding is the database's.
func (c *Conn) ServerEncoding() string { return c.c.PgConn().ParameterStatus("server_encoding") }

// PID is the backend's.
func (c *Conn) PID() uint32 { return c.c.PgConn().PID() }

// ExportSnapshot exports the snapshot of the session's transaction once more.
func (c *Conn) ExportSnapshot(ctx context.Context) (string, error) {
	return value[string](ctx, c, "export the snapshot", "SELECT pg_export_snapshot()")
}

// ImportSnapshot begins the session's transaction under an exported snapshot.
func (c *Conn) ImportSnapshot(ctx context.Context, name string) error {
	if err := c.Exec(ctx, "import the snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"); err != nil {
		return err
	}
	return c.Exec(ctx, "import the snapshot", "SET TRANSACTION SNAPSHOT "+pgname.Literal(name))
}

// Ping asks whether the session is alive.
func (c *Conn) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return c.Exec(ctx, "keep the snapshot", "SELECT 1")
}

// LockTables takes ACCESS SHARE locks within the session's transaction, which
// hold until it ends: so long nobody can drop, truncate or rewrite the tables. wait
// bounds the wait for each that somebody holds; 0 waits for ever. The error names
// the table that could not be locked (IsLockTimeout), or is not there any more
// (IsGone), and the locks taken before it are kept.
func (c *Conn) LockTables(ctx context.Context, tables []pgname.Table, wait time.Duration) error {
	const batch = 100
	for from := 0; from < len(tables); from += batch {
		some := tables[from:min(from+batch, len(tables))]
		err := c.lockTables(ctx, some, " NOWAIT")
		if !IsLockTimeout(err) && !IsGone(err) {
			if err != nil {
				return err
			}
			continue
		}
		for _, t := range some {
			if err := c.lockOne(ctx, t, wait); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Conn) lockOne(ctx context.Context, t pgname.Table, wait time.Duration) error {
	if err := c.Exec(ctx, "lock", fmt.Sprintf("SET LOCAL lock_timeout = %d", wait.Milliseconds())); err != nil {
		return err
	}
	return c.lockTables(ctx, []pgname.Table{t}, "")
}

// lockTables locks within a savepoint, so that a lock which is refused does not
// end the transaction and its snapshot.
func (c *Conn) lockTables(ctx context.Context, tables []pgname.Table, option string) error {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = "ONLY " + t.String()
	}
	step := "lock table " + tables[0].Printable()
	if len(tables) > 1 {
		step = fmt.Sprintf("lock %d tables", len(tables))
	}
	if err := c.Exec(ctx, step, "SAVEPOINT locks"); err != nil {
		return err
	}
	err := c.Exec(ctx, step, "LOCK TABLE "+strings.Join(names, ", ")+" IN ACCESS SHARE MODE"+option)
	if err != nil {
		if backErr := c.Exec(ctx, step, "ROLLBACK TO SAVEPOINT locks"); backErr != nil {
			return err
		}
	}
	// Out of it in any case: a snapshot cannot be exported from within.
	if endErr := c.Exec(ctx, step, "RELEASE SAVEPOINT locks"); err == nil {
		return endErr
	}
	return err
}

// SequenceValue is a sequence's state, which no snapshot covers.
type SequenceValue struct {
	pgname.Table
	Last   int64
	Called bool
}

// SequenceValues reads sequences as they are now, some at a time.
func (c *Conn) SequenceValues(ctx context.Context, names []pgname.Table) ([]SequenceValue, error) {
	const batch = 100
	var all []SequenceValue
	for from := 0; from < len(names); from += batch {
		some := names[from:min(from+batch, len(names))]
		parts := make([]string, len(some))
		for i, t := range some {
			parts[i] = fmt.Sprintf("SELECT %d, last_value, is_called FROM %s", i, t)
		}
		values, err := rows(ctx, c, "read sequences from "+some[0].Printable()+" on", func(row pgx.CollectableRow) (v SequenceValue, err error) {
			var i int
			err = row.Scan(&i, &v.Last, &v.Called)
			if err == nil {
				v.Table = some[i]
			}
			return v, err
		}, strings.Join(parts, " UNION ALL "))
		if err != nil {
			return nil, err
		}
		all = append(all, values...)
	}
	return all, nil
}

// BlockedByUs lists the sessions that wait for a lock of one of our sessions, by
// their backends' pids.
func (c *Conn) BlockedByUs(ctx context.Context, pids []uint32) ([]Blocker, error) {
	ours := make([]int32, len(pids))
	for i, pid := range pids {
		ours[i] = int32(pid) //nolint:gosec // a pid
	}
	return rows(ctx, c, "look for sessions that wait for us", func(row pgx.CollectableRow) (b Blocker, err error) {
		return b, row.Scan(&b.PID, &b.User, &b.State, &b.Query, &b.Since)
	}, `SELECT w.pid, coalesce(w.usename::text, ''), coalesce(w.state, 'active'), left(coalesce(w.query, ''), 200),
	           coalesce(clock_timestamp() - w.query_start, interval '0')
	      FROM pg_stat_activity w
	     WHERE w.wait_event_type = 'Lock' AND pg_blocking_pids(w.pid) && $1::int[] AND NOT w.pid = ANY ($1::int[])
	       AND w.application_name NOT LIKE 'dbbackup%'`, ours)
}

// ReplicationLag is how many bytes of WAL the slowest connected standby has not
// replayed. A role that may not see it gets 0.
func (c *Conn) ReplicationLag(ctx context.Context) (int64, error) {
	return value[int64](ctx, c, "ask for the replication lag", `
		SELECT CASE WHEN pg_is_in_recovery() THEN
		            coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)
		       ELSE coalesce((SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) FROM pg_stat_replication), 0) END::bigint`)
}

// OldestSnapshot is how long the oldest other transaction on the server has held its snapshot.
func (c *Conn) OldestSnapshot(ctx context.Context) (time.Duration, error) {
	return value[time.Duration](ctx, c, "ask for the oldest snapshot", `
		SELECT coalesce(max(clock_timestamp() - xact_start), interval '0') FROM pg_stat_activity
		 WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'
		   AND application_name NOT LIKE 'dbbackup%'`)
}

// BlockSize is the server's, in bytes.
func (c *Conn) BlockSize(ctx context.Context) (int64, error) {
	return value[int64](ctx, c, "ask for the block size", `SELECT current_setting('block_size')::bigint`)
}

// LargeObjectBatch is a range of large objects by oid, both ends included.
type LargeObjectBatch struct {
	First, Last uint32
	Count       int64
}

// LargeObjectBatches cuts the large objects into ranges of about limit each, or
// of about so many bytes, if they are large. The ranges are of oids, as wide as the
// oids are apart on average: one that comes or goes changes its range only.
func (c *Conn) LargeObjectBatches(ctx context.Context, limit, bytes int64) ([]LargeObjectBatch, error) {
	const step = "list large objects"
	var count, first, last, size int64
	err := c.c.QueryRow(ctx, `SELECT count(*), coalesce(min(oid::bigint), 0), coalesce(max(oid::bigint), 0), pg_relation_size('pg_largeobject')
		FROM pg_largeobject_metadata`).Scan(&count, &first, &last, &size)
	if err != nil || count == 0 {
		return nil, wrap(step, err)
	}
	each := max(min(limit, bytes/max(size/count, 1)), 1)
	width := int64(1)
	for width < each*((last-first+1)/count) {
		width *= 2 // a power of two stays the same for many nights
	}
	return rows(ctx, c, step, func(row pgx.CollectableRow) (b LargeObjectBatch, err error) {
		return b, row.Scan(&b.First, &b.Last, &b.Count)
	}, `SELECT min(oid::bigint), max(oid::bigint), count(*) FROM pg_largeobject_metadata
	     GROUP BY oid::bigint / $1 ORDER BY 1`, width)
}
