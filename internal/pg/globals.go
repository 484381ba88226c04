package pg

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Role is a role as a restore compares it. Passwords are not among it.
type Role struct {
	Name            string
	Superuser       bool
	Inherit         bool
	CreateRole      bool
	CreateDB        bool
	Login           bool
	Replication     bool
	BypassRLS       bool
	ConnectionLimit int
	MemberOf        []string
}

// Roles lists the roles of the cluster, less the predefined ones.
func (c *Conn) Roles(ctx context.Context) ([]Role, error) {
	return rows(ctx, c, "list roles", func(row pgx.CollectableRow) (r Role, err error) {
		return r, row.Scan(&r.Name, &r.Superuser, &r.Inherit, &r.CreateRole, &r.CreateDB, &r.Login,
			&r.Replication, &r.BypassRLS, &r.ConnectionLimit, &r.MemberOf)
	}, `SELECT r.rolname::text, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin,
	           r.rolreplication, r.rolbypassrls, r.rolconnlimit,
	           ARRAY(SELECT DISTINCT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
	                  WHERE m.member = r.oid ORDER BY 1)
	      FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1`)
}

// Tablespace is a tablespace of the cluster.
type Tablespace struct{ Name, Owner, Location string }

// Tablespaces lists the tablespaces that are not built in.
func (c *Conn) Tablespaces(ctx context.Context) ([]Tablespace, error) {
	return rows(ctx, c, "list tablespaces", func(row pgx.CollectableRow) (t Tablespace, err error) {
		return t, row.Scan(&t.Name, &t.Owner, &t.Location)
	}, `SELECT t.spcname::text, coalesce(r.rolname::text, ''), pg_tablespace_location(t.oid)
	      FROM pg_tablespace t LEFT JOIN pg_roles r ON r.oid = t.spcowner
	     WHERE t.spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1`)
}

// ServerFile is a configuration file of the server.
type ServerFile struct {
	Name    string // e.g. pg_hba.conf
	Content []byte
}

// ServerFiles reads the server's own configuration files. Those that this
// role may not read are returned by name in hidden.
func (c *Conn) ServerFiles(ctx context.Context) (files []ServerFile, hidden []string, err error) {
	sources := []struct{ name, path string }{
		{"postgresql.conf", "current_setting('config_file')"},
		{"postgresql.auto.conf", "current_setting('data_directory') || '/postgresql.auto.conf'"},
		{"pg_hba.conf", "current_setting('hba_file')"},
		{"pg_ident.conf", "current_setting('ident_file')"},
	}
	for _, s := range sources {
		content, err := value[[]byte](ctx, c, "read "+s.name, "SELECT pg_read_binary_file("+s.path+", 0, 16777216, true)")
		switch {
		case hasState(err, stateNoPrivilege):
			hidden = append(hidden, s.name)
		case err != nil:
			return nil, nil, err
		case content != nil:
			files = append(files, ServerFile{s.name, content})
		}
	}
	return files, hidden, nil
}

// ServerSetting is a setting that differs from its built-in default.
type ServerSetting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Unit   string `json:"unit,omitempty"`
	Source string `json:"source"`
}

// ServerSettings lists the settings of the server that are not the built-in
// defaults, less those of this session. Without all, some are hidden from this role:
// shared_preload_libraries is among them.
func (c *Conn) ServerSettings(ctx context.Context) (settings []ServerSetting, all bool, err error) {
	if all, err = c.readsAllSettings(ctx); err != nil {
		return nil, false, err
	}
	settings, err = rows(ctx, c, "list settings", func(row pgx.CollectableRow) (s ServerSetting, err error) {
		return s, row.Scan(&s.Name, &s.Value, &s.Unit, &s.Source)
	}, `SELECT name, coalesce(reset_val, ''), coalesce(unit, ''), source FROM pg_settings
	     WHERE source NOT IN ('default', 'session', 'client', 'override') ORDER BY name`)
	return settings, all, err
}
