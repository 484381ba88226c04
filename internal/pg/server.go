package pg

import (
	"context"
	"time"

	"dbbackup/internal/fault"
)

// Server is what a server and the role on it are.
type Server struct {
	Version          string // e.g. "15.18 (Debian 15.18-0+deb12u1)"
	VersionNum       int    // e.g. 150018
	SystemIdentifier string // empty when the role may not ask
	Timeline         int    // 0 when the role may not ask
	Standby          bool
	Superuser        bool
	BypassRLS        bool
	CreateDB         bool
	CreateRole       bool
	ReadsPasswords   bool   // may read pg_authid
	BootstrapRole    string // the role that initdb made, which owns the system catalogs
	LockBudget       int64  // locks that all transactions together can hold for certain
	MaxLocksPerTx    int
	MaxConnections   int
	DataDirectory    string // empty when the role may not ask
	ReadOnly         bool   // default_transaction_read_only of a session of this role
}

const serverQuery = `
	SELECT current_setting('server_version'), current_setting('server_version_num')::int,
	       pg_is_in_recovery(), r.rolsuper, r.rolsuper OR r.rolbypassrls, r.rolsuper OR r.rolcreatedb,
	       r.rolsuper OR r.rolcreaterole, has_table_privilege('pg_catalog.pg_authid', 'SELECT'),
	       (SELECT rolname::text FROM pg_roles WHERE oid = 10),
	       current_setting('max_locks_per_transaction')::bigint,
	       current_setting('max_connections')::bigint, current_setting('max_prepared_transactions')::bigint,
	       coalesce(current_setting('data_directory', true), ''),
	       current_setting('default_transaction_read_only')::bool
	  FROM pg_roles r WHERE r.rolname = current_user`

// Server asks for the server's facts.
func (c *Conn) Server(ctx context.Context) (Server, error) {
	var s Server
	var locks, conns, prepared int64
	// data_directory raises an error for a role outside pg_read_all_settings.
	sql := serverQuery
	if ok, err := c.readsAllSettings(ctx); err != nil {
		return s, err
	} else if !ok {
		sql = replaceOnce(sql, "coalesce(current_setting('data_directory', true), '')", "''")
	}
	err := c.c.QueryRow(ctx, sql).Scan(&s.Version, &s.VersionNum, &s.Standby, &s.Superuser, &s.BypassRLS,
		&s.CreateDB, &s.CreateRole, &s.ReadsPasswords, &s.BootstrapRole, &locks, &conns, &prepared,
		&s.DataDirectory, &s.ReadOnly)
	if err != nil {
		return s, wrap("ask for the server's facts", err)
	}
	s.LockBudget = locks * (conns + prepared)
	s.MaxLocksPerTx, s.MaxConnections = int(locks), int(conns)
	return s, c.identity(ctx, &s)
}

// readsAllSettings reports whether no setting is hidden from the role.
func (c *Conn) readsAllSettings(ctx context.Context) (bool, error) {
	return value[bool](ctx, c, "ask for privileges", `SELECT pg_has_role('pg_read_all_settings', 'USAGE')`)
}

// identity fills in what pg_control knows. A role that may not ask gets none.
func (c *Conn) identity(ctx context.Context, s *Server) error {
	err := c.c.QueryRow(ctx, `SELECT s.system_identifier::text, k.timeline_id
		FROM pg_control_system() s, pg_control_checkpoint() k`).Scan(&s.SystemIdentifier, &s.Timeline)
	if hasState(err, stateNoPrivilege) {
		return nil
	}
	return wrap("ask for the server's identity", err)
}

// RefusePooler fails when a pooler between here and the server hands the
// statements of one session to several backends: snapshots, locks and
// settings do not survive that (T80). A pooler in session mode is fine.
func (e *Endpoint) RefusePooler(ctx context.Context) error {
	a, err := e.Connect(ctx, e.Database)
	if err != nil {
		return err
	}
	defer a.Close(ctx) //nolint:errcheck // the answer is known by then
	if behind, err := a.pooled(ctx); err != nil || !behind {
		return err
	}
	b, err := e.Connect(ctx, e.Database)
	if err != nil {
		return err
	}
	defer b.Close(ctx) //nolint:errcheck // the answer is known by then
	return refuseSharing(ctx, a, b)
}

// pooled reports whether the session is with a pooler, which makes up the
// backend's pid that it tells a client.
func (c *Conn) pooled(ctx context.Context) (bool, error) {
	pid, err := value[uint32](ctx, c, "ask for the backend", "SELECT pg_backend_pid()")
	return pid != c.c.PgConn().PID(), err
}

// refuseSharing occupies the backend that served a last with a transaction of b, and
// asks a again: in session mode a still has its own.
func refuseSharing(ctx context.Context, a, b *Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	before, err := value[uint32](ctx, a, "ask for the backend", "SELECT pg_backend_pid()")
	if err != nil {
		return err
	}
	err = b.Exec(ctx, "begin", "BEGIN")
	if err != nil && !hasState(err, stateProtocolViolation) { // refused by a pooler in statement mode
		return err
	}
	if err == nil {
		after, err := value[uint32](ctx, a, "ask for the backend", "SELECT pg_backend_pid()")
		if err == nil && before == after {
			return nil
		}
	}
	return fault.New(fault.Precondition, "connect to the PostgreSQL server itself, or to a pool in session mode",
		"a connection pooler in transaction mode, or in statement mode, stands between here and the server: no snapshot survives that")
}
