package pg

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"dbbackup/internal/pgname"
)

// Stream is a session that moves rows as raw COPY streams, in one direction or the
// other. Its client encoding is the database's own, so that nothing is
// converted on the way (a conversion fails above 256 MB); Quote makes names that
// can be used in its statements. It is not safe for concurrent use; the caller
// closes it.
type Stream struct {
	c        *pgconn.PgConn
	pid      uint32
	database string
	version  int
	encoding string
	lost     error  // why the session cannot be used any more
	buffer   []byte // of CopyOut, which small tables are read by thousands with
}

// streamSettings are those that make rows read and load the same whatever the role, the
// database or the server set, beside sessionSettings: what text stands for
// (array_nulls, xmloption, lc_monetary), and what it looks like (TimeZone).
const streamSettings = `
	SET timezone = 'UTC';
	SET lc_monetary = 'C';
	SET array_nulls = on;
	SET xmloption = content;
	SET default_transaction_read_only = off`

// ConnectStream opens a session for COPY streams. A server that is unavailable
// is tried again as Retry says.
func (e *Endpoint) ConnectStream(ctx context.Context, database string) (*Stream, error) {
	conn, err := e.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	s := &Stream{pid: conn.PID(), database: database, version: conn.version}
	if s.c, err = withTurns(conn.c.PgConn()); err != nil {
		return nil, errors.Join(wrap("prepare session", err), conn.Close(ctx))
	}
	s.encoding = s.c.ParameterStatus("server_encoding")
	sql := "SET client_encoding = " + pgname.Literal(s.encoding) + ";" + streamSettings
	if _, err := s.query(ctx, "prepare session", sql); err != nil {
		_ = s.Close(ctx) // it was only read from
		return nil, err
	}
	return s, nil
}

// PID is the backend's. It may be asked for while the session is in use.
func (s *Stream) PID() uint32 { return s.pid }

// Encoding is the database's (server_encoding).
func (s *Stream) Encoding() string { return s.encoding }

// Close ends the session. A session that is gone already is no error.
func (s *Stream) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if s.lost != nil {
		_ = s.c.Conn().Close() // nothing is to be said to a lost server
		return nil
	}
	return s.c.Close(ctx)
}

// Quote quotes a name for the statements of a session whose client encoding is
// the database's: where that is not UTF-8 the name's characters are escaped.
func (s *Stream) Quote(name string) string { return QuoteFor(s.encoding, name) }

// QuoteFor is Quote without a session.
func QuoteFor(encoding, name string) string {
	if escaped, ok := escapeFor(encoding, name, '"'); ok {
		return `U&"` + escaped + `"`
	}
	return pgname.Ident(name)
}

// LiteralFor quotes a string for such a session.
func LiteralFor(encoding, text string) string {
	if escaped, ok := escapeFor(encoding, text, '\''); ok {
		return `U&'` + escaped + `'`
	}
	return pgname.Literal(text)
}

// escapeFor writes a UTF-8 text in ASCII, where the encoding makes that
// necessary (PostgreSQL manual, "Identifiers with Unicode Escapes").
func escapeFor(encoding, text string, quote rune) (escaped string, needed bool) {
	if encoding == "UTF8" || encoding == "SQL_ASCII" {
		return "", false
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\\' || r == quote:
			b.WriteRune(r)
			b.WriteRune(r)
		case r < 0x80:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\+%06X`, r)
			needed = true
		}
	}
	return b.String(), needed
}

// query runs statements by the simple protocol and returns the rows of the last
// one that has any, as text; NULL is "".
func (s *Stream) query(ctx context.Context, step, sql string) ([][]string, error) {
	results, err := s.c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, s.fail(step, err)
	}
	var rows [][]string
	for _, result := range results {
		if len(result.FieldDescriptions) == 0 {
			continue
		}
		rows = rows[:0]
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// fail words an error, and remembers when the session is gone.
func (s *Stream) fail(step string, err error) error {
	if Lost(err) || s.c.IsClosed() {
		s.lost = err
	}
	return wrap(step, err)
}

// Lost reports whether the session is gone.
func (s *Stream) Lost() bool { return s.lost != nil || s.c.IsClosed() }

// Exec runs statements. step says what they are for, in errors.
func (s *Stream) Exec(ctx context.Context, step, sql string) error {
	_, err := s.query(ctx, step, sql)
	return err
}

// Rows runs a statement and returns its rows as text; NULL is "".
func (s *Stream) Rows(ctx context.Context, step, sql string) ([][]string, error) {
	return s.query(ctx, step, sql)
}

// Int64s runs a statement that returns one row of integers.
func (s *Stream) Int64s(ctx context.Context, step, sql string) ([]int64, error) {
	rows, err := s.query(ctx, step, sql)
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 {
		return nil, fmt.Errorf("%s: %d rows in place of one", step, len(rows))
	}
	numbers := make([]int64, len(rows[0]))
	for i, text := range rows[0] {
		if numbers[i], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, fmt.Errorf("%s: %w", step, err)
		}
	}
	return numbers, nil
}

// ImportSnapshot begins the session's transaction under an exported snapshot
// (B3). It lasts until the session ends. A snapshot that is not held any more is
// IsUnknownSnapshot.
func (s *Stream) ImportSnapshot(ctx context.Context, name string) error {
	return s.Exec(ctx, "import the snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET TRANSACTION SNAPSHOT "+pgname.Literal(name))
}

// BeginSnapshot begins the session's transaction under a snapshot of its own.
func (s *Stream) BeginSnapshot(ctx context.Context) error {
	return s.Exec(ctx, "begin", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
}

// ExportSnapshot exports the snapshot of the session's transaction, also one
// that it imported itself.
func (s *Stream) ExportSnapshot(ctx context.Context) (string, error) {
	rows, err := s.query(ctx, "export the snapshot", "SELECT pg_export_snapshot()")
	if err != nil {
		return "", err
	}
	return rows[0][0], nil
}

// Released runs fn in a savepoint that is rolled back, so that the locks and descriptors
// which fn's statements took are given back although the transaction goes on.
func (s *Stream) Released(ctx context.Context, fn func() error) error {
	if err := s.Exec(ctx, "set a savepoint", "SAVEPOINT chunk"); err != nil {
		return err
	}
	err := fn()
	if s.Lost() {
		return err
	}
	if back := s.Exec(ctx, "return to the savepoint", "ROLLBACK TO SAVEPOINT chunk; RELEASE SAVEPOINT chunk"); err == nil {
		return back
	}
	return err
}

// IsUnknownSnapshot reports whether a snapshot could not be imported because
// nobody holds it any more (SQLSTATE 22023 or, since version 17, 42704).
func IsUnknownSnapshot(err error) bool { return hasState(err, "22023", "42704") }

// IsTooLarge reports whether the server could not put a row or a value into one
// message: a string buffer or an allocation would exceed 1 GB. "invalid memory
// alloc request size" is an internal error (XX000), as others are.
func IsTooLarge(err error) bool { return hasState(err, "54000", "53200", "XX000") }

// IsLockTimeout reports whether a lock was not granted in time.
func IsLockTimeout(err error) bool { return hasState(err, "55P03") }

// IsGone reports whether a relation, a column or a schema of the statement does
// not exist.
func IsGone(err error) bool { return hasState(err, "42P01", "42703", "3F000") }

// IsRefused reports whether the server refused a statement and the session goes
// on: the statement itself is what is wrong.
func IsRefused(err error) bool {
	return hasAnyState(err) && !Lost(err)
}

// SQLState returns the server's code for an error, or nothing.
func SQLState(err error) string { return stateOf(err) }

// ping is short, for keepers.
const pingTimeout = 20 * time.Second

// Ping asks whether the session is alive.
func (s *Stream) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return s.Exec(ctx, "keep the snapshot", "SELECT 1")
}

// IsForbidden reports whether the role lacks the privilege for a statement.
func IsForbidden(err error) bool { return hasState(err, stateNoPrivilege) }
