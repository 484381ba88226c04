package pg

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
)

// SQLSTATEs that something here branches on (PostgreSQL manual, appendix A).
const (
	stateInvalidPassword   = "28P01"
	stateProtocolViolation = "08P01"
	stateInvalidAuth       = "28000"
	stateNoSuchDatabase    = "3D000"
	stateNoPrivilege       = "42501"
	stateTooManyConns      = "53300"
	stateCannotConnectNow  = "57P03"
	stateAdminShutdown     = "57P01"
	stateCrashShutdown     = "57P02"
	stateSerialization     = "40001" // of a session that ends: a recovery conflict
	stateDeadlock          = "40P01" // on a standby: with replay, over a page
)

// standbyHint is what to do about a recovery conflict.
const standbyHint = "raise max_standby_streaming_delay, or set hot_standby_feedback = on, on the standby; or back up the primary"

// endedSession reports whether the server ended the session with the error.
func endedSession(e *pgconn.PgError) bool {
	return e.SeverityUnlocalized == "FATAL" || e.SeverityUnlocalized == "PANIC"
}

func hasState(err error, states ...string) bool {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return false
	}
	for _, s := range states {
		if pgErr.Code == s {
			return true
		}
	}
	return false
}

// connectError words a failed connection without repeating its options.
func connectError(ctx context.Context, cfg *pgx.ConnConfig, database string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	where := fmt.Sprintf("connect to %s at %s:%d as %s", pgname.Printable(database), cfg.Host, cfg.Port, cfg.User)
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		kind, hint := fault.Unavailable, "check the host, the port and that the server is up"
		if isTLS(err) || !isNetwork(err) {
			kind, hint = fault.Precondition, "check sslmode, sslrootcert and target_session_attrs against what the server offers"
		}
		return fault.New(kind, hint, "%s: %w", where, cause(err))
	}
	kind, hint := fault.Failed, ""
	switch pgErr.Code {
	case stateInvalidPassword:
		kind, hint = fault.Precondition, "give the password in ~/.pgpass (mode 0600) or PGPASSWORD"
	case stateInvalidAuth:
		kind, hint = fault.Precondition, "pg_hba.conf on the server must let this role in from this host"
	case stateNoSuchDatabase:
		kind, hint = fault.NotFound, "`psql -l` lists the databases of the server"
	case stateTooManyConns, stateCannotConnectNow, stateAdminShutdown, stateCrashShutdown:
		kind = fault.Unavailable
	}
	if pgErr.Code == stateInvalidPassword && cfg.Password == "" {
		return fault.New(kind, hint, "%s: %w", where, ErrNoPassword)
	}
	return fault.New(kind, hint, "%s: %w", where, serverError(pgErr))
}

// ErrNoPassword means that the server asked for a password and none was given,
// by whatever way: who can ask a person for it may do so and try again.
var ErrNoPassword = errors.New("the server wants a password and none was given")

// isTLS reports whether a connection failed because the server's certificate
// is not trusted: trying again does not help.
func isTLS(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var record tls.RecordHeaderError
	return errors.As(err, &verification) || errors.As(err, &authority) ||
		errors.As(err, &hostname) || errors.As(err, &record)
}

// isNetwork reports whether a connection failed on its way. What else pgx may
// complain of is about what the server is (it refuses TLS, or is a standby
// where a primary was asked for), and stays.
func isNetwork(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, context.DeadlineExceeded)
}

func rootCause(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			var joined interface{ Unwrap() []error }
			if errors.As(err, &joined) && len(joined.Unwrap()) > 0 {
				err = joined.Unwrap()[len(joined.Unwrap())-1]
				continue
			}
			return err
		}
		err = next
	}
}

// cause strips pgconn's own wording, which repeats user and database.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op
	}
	return rootCause(err)
}

// serverError is a server's error with its SQLSTATE, detail and hint.
func serverError(e *pgconn.PgError) error {
	text := fmt.Sprintf("%s (SQLSTATE %s)", e.Message, e.Code)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return &statementError{text: text, pgErr: e}
}

type statementError struct {
	text  string
	pgErr *pgconn.PgError
}

func (e *statementError) Error() string { return e.text }
func (e *statementError) Unwrap() error { return e.pgErr }

// wrap words a statement's error: the step, then what the server said. A lost
// connection becomes fault.Unavailable.
func wrap(step string, err error) error {
	if err == nil {
		return nil
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		kind, hint := fault.Failed, ""
		switch pgErr.Code {
		case stateNoPrivilege:
			kind = fault.Precondition
		case stateAdminShutdown, stateCrashShutdown, stateCannotConnectNow:
			kind = fault.Unavailable
		case stateSerialization:
			if endedSession(pgErr) {
				hint = standbyHint
			}
		}
		if endedSession(pgErr) {
			kind = fault.Unavailable
		}
		return fault.New(kind, hint, "%s: %w", step, serverError(pgErr))
	}
	if Lost(err) {
		return fault.New(fault.Unavailable, "", "%s: the connection to the server was lost: %w", step, err)
	}
	return fmt.Errorf("%s: %w", step, err)
}

// Lost reports whether err means that a connection is gone.
func Lost(err error) bool {
	var netErr net.Error
	var file *fs.PathError // what a file could not do says Timeout, too, and is none of it
	if errors.As(err, &file) {
		return false
	}
	return errors.As(err, &netErr) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed) || pgconn.Timeout(err) ||
		hasState(err, stateAdminShutdown, stateCrashShutdown)
}

// stateOf returns the SQLSTATE of a server's error, or nothing.
func stateOf(err error) string {
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		return ""
	}
	return pgErr.Code
}

func hasAnyState(err error) bool { return stateOf(err) != "" }
