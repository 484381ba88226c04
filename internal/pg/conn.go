package pg

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/pgname"
)

// Conn is one session. It is not safe for concurrent use; the caller closes it.
type Conn struct {
	c        *pgx.Conn
	database string
	version  int // server_version_num
}

// closeTimeout bounds the goodbye to a server that no longer answers.
const closeTimeout = 5 * time.Second

// Close ends the session. A session that is gone already is no error.
func (c *Conn) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return c.c.Close(ctx)
}

// Database is the database that the session is in, as the server says.
func (c *Conn) Database() string { return c.database }

// VersionNum is server_version_num, e.g. 150018.
func (c *Conn) VersionNum() int { return c.version }

// sessionSettings are those of pg_dump's setup_connection, less the ones that
// only exist in some versions and the client encoding, which is UTF8 from the start
// because only names and numbers are read.
//
// statement_timeout comes first: a role's own may be short. The last ones let
// the server notice that this side has vanished, and drop the snapshot.
const sessionSettings = `
	SET statement_timeout = 0;
	SET search_path = pg_catalog;
	SET datestyle = ISO;
	SET intervalstyle = postgres;
	SET extra_float_digits = 3;
	SET bytea_output = hex;
	SET standard_conforming_strings = on;
	SET synchronize_seqscans = off;
	SET row_security = off;
	SET lock_timeout = 0;
	SET idle_in_transaction_session_timeout = 0;
	SET client_min_messages = warning;
	SET jit = off;
	SET tcp_keepalives_idle = 30;
	SET tcp_keepalives_interval = 10;
	SET tcp_keepalives_count = 3;
	SET tcp_user_timeout = 60000`

// versionedSettings exist from a version on.
var versionedSettings = []struct {
	from int
	sql  string
}{
	{140000, "SET idle_session_timeout = 0"},
	{140000, "SET client_connection_check_interval = '10s'"},
	{170000, "SET transaction_timeout = 0"},
}

// prepare makes the session read the same whatever the role, the database or
// the server set, and proves that it is in the database that was asked for.
func (c *Conn) prepare(ctx context.Context) error {
	if _, err := c.c.PgConn().Exec(ctx, sessionSettings).ReadAll(); err != nil {
		return wrap("prepare session", err)
	}
	var name string
	err := c.c.QueryRow(ctx, `SELECT current_database()::text, current_setting('server_version_num')::int`).Scan(&name, &c.version)
	if err != nil {
		return wrap("ask for the database's name", err)
	}
	if name != c.database {
		return fmt.Errorf("asked for database %s, the server answers from %s",
			pgname.Printable(c.database), pgname.Printable(name))
	}
	for _, s := range versionedSettings {
		if c.version >= s.from {
			if _, err := c.c.Exec(ctx, s.sql); err != nil && !hasState(err, "22023") {
				return wrap("prepare session", err)
			}
		}
	}
	return nil
}

// Exec runs one statement. step says what it is for, in errors.
func (c *Conn) Exec(ctx context.Context, step, sql string) error {
	_, err := c.c.Exec(ctx, sql)
	return wrap(step, err)
}

// Transact runs statements in one transaction: all of them or none.
func (c *Conn) Transact(ctx context.Context, step string, statements []string) error {
	tx, err := c.c.Begin(ctx)
	if err != nil {
		return wrap(step, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit this does nothing
	for _, sql := range statements {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return wrap(step, err)
		}
	}
	return wrap(step, tx.Commit(ctx))
}

// strings reads a one-column result.
func (c *Conn) strings(ctx context.Context, step, sql string, args ...any) ([]string, error) {
	return rows(ctx, c, step, pgx.RowTo[string], sql, args...)
}

// rows reads a whole result.
func rows[T any](ctx context.Context, c *Conn, step string, to pgx.RowToFunc[T], sql string, args ...any) ([]T, error) {
	r, err := c.c.Query(ctx, sql, args...)
	if err != nil {
		return nil, wrap(step, err)
	}
	all, err := pgx.CollectRows(r, to)
	return all, wrap(step, err)
}

// value reads a result of one row and one column.
func value[T any](ctx context.Context, c *Conn, step, sql string, args ...any) (T, error) {
	var v T
	err := c.c.QueryRow(ctx, sql, args...).Scan(&v)
	return v, wrap(step, err)
}
