package pg

import (
	"context"
	"fmt"
	"strings"

	"dbbackup/internal/pgname"

	"github.com/jackc/pgx/v5"
)

// Database is one database of a cluster with everything that is its own and
// not its content: what pg_dump calls the database properties. Settings may
// hold secrets, so the whole is stored with mode 0600.
type Database struct {
	OID             uint32    `json:"oid"`
	Name            string    `json:"name"`
	Owner           string    `json:"owner"`
	Encoding        string    `json:"encoding"`
	Provider        string    `json:"locale_provider"` // libc, icu or builtin
	Collate         string    `json:"collate"`
	CType           string    `json:"ctype"`
	Locale          string    `json:"locale"` // of icu and builtin
	ICURules        string    `json:"icu_rules"`
	Tablespace      string    `json:"tablespace"`
	Template        bool      `json:"template"`
	AllowConn       bool      `json:"allow_connections"`
	ConnectionLimit int       `json:"connection_limit"`
	Grants          []Grant   `json:"grants"` // nil: the default privileges
	Comment         string    `json:"comment"`
	Labels          []Label   `json:"labels"`
	Settings        []Setting `json:"settings"`
	Bytes           int64     `json:"bytes"` // pg_database_size, -1 when the role may not ask
}

// Grant is one privilege on a database.
type Grant struct {
	Grantor   string `json:"grantor"`
	Grantee   string `json:"grantee"` // empty: PUBLIC
	Privilege string `json:"privilege"`
	Grantable bool   `json:"grantable"`
}

// Setting is one ALTER DATABASE ... SET, or ALTER ROLE ... IN DATABASE ... SET.
type Setting struct {
	Role  string `json:"role"` // empty: all roles
	Name  string `json:"name"`
	Value string `json:"value"` // as the catalog stores it
}

// Label is a security label.
type Label struct {
	Provider string `json:"provider"`
	Label    string `json:"label"`
}

// Invalid reports whether the database is what an interrupted DROP DATABASE
// left: no one can connect to it any more.
func (d Database) Invalid() bool { return d.ConnectionLimit == -2 }

// A database that a restore fills bears a name of this prefix and a comment that
// begins so, until it is whole.
const (
	UnfinishedPrefix  = "dbbackup_restoring_"
	UnfinishedComment = "dbbackup: unfinished restore"
)

// Unfinished reports whether a restore is filling the database, or left it. One
// that was renamed since is somebody's.
func (d Database) Unfinished() bool {
	return strings.HasPrefix(d.Name, UnfinishedPrefix) && strings.HasPrefix(d.Comment, UnfinishedComment)
}

// databaseQuery reads columns that only some versions have through to_jsonb,
// so that one text serves them all. A database that has no size any more was
// dropped since the snapshot, which its size does not know.
const databaseQuery = `
	SELECT * FROM (
	SELECT d.oid, d.datname::text AS name, coalesce(o.rolname::text, ''), pg_encoding_to_char(d.encoding)::text,
	       CASE to_jsonb(d)->>'datlocprovider' WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
	       coalesce(d.datcollate::text, ''), coalesce(d.datctype::text, ''),
	       coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale', ''),
	       coalesce(to_jsonb(d)->>'daticurules', ''), coalesce(t.spcname::text, ''),
	       d.datistemplate, d.datallowconn, d.datconnlimit, d.datacl IS NOT NULL,
	       coalesce(shobj_description(d.oid, 'pg_database'), ''),
	       CASE WHEN d.datconnlimit <> -2 AND (has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE'))
	            THEN pg_database_size(d.oid) ELSE -1 END AS bytes
	  FROM pg_database d
	  LEFT JOIN pg_roles o ON o.oid = d.datdba
	  LEFT JOIN pg_tablespace t ON t.oid = d.dattablespace
	) AS listed
	 WHERE bytes IS NOT NULL
	 ORDER BY name`

// Databases returns all databases of the cluster by name.
func (c *Conn) Databases(ctx context.Context) ([]Database, error) {
	acl := map[uint32]bool{}
	all, err := rows(ctx, c, "list databases", func(row pgx.CollectableRow) (Database, error) {
		var d Database
		var hasACL bool
		err := row.Scan(&d.OID, &d.Name, &d.Owner, &d.Encoding, &d.Provider, &d.Collate, &d.CType, &d.Locale,
			&d.ICURules, &d.Tablespace, &d.Template, &d.AllowConn, &d.ConnectionLimit, &hasACL, &d.Comment, &d.Bytes)
		acl[d.OID] = hasACL
		return d, err
	}, databaseQuery)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if err := c.databaseDetails(ctx, &all[i], acl[all[i].OID]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// DatabaseNamed returns one database by its exact name, or false.
func (c *Conn) DatabaseNamed(ctx context.Context, name string) (Database, bool, error) {
	all, err := c.Databases(ctx)
	if err != nil {
		return Database{}, false, err
	}
	for _, d := range all {
		if d.Name == name {
			return d, true, nil
		}
	}
	return Database{}, false, nil
}

func (c *Conn) databaseDetails(ctx context.Context, d *Database, hasACL bool) (err error) {
	step := "read the properties of database " + pgname.Printable(d.Name)
	d.Settings, err = rows(ctx, c, step, func(row pgx.CollectableRow) (s Setting, err error) {
		return s, row.Scan(&s.Role, &s.Name, &s.Value)
	}, `SELECT coalesce(r.rolname::text, ''), split_part(s, '=', 1), substr(s, strpos(s, '=') + 1)
	      FROM pg_db_role_setting x CROSS JOIN LATERAL unnest(x.setconfig) WITH ORDINALITY u(s, n)
	      LEFT JOIN pg_roles r ON r.oid = x.setrole
	     WHERE x.setdatabase = $1 ORDER BY r.rolname NULLS FIRST, n`, d.OID)
	if err != nil {
		return err
	}
	d.Labels, err = rows(ctx, c, step, func(row pgx.CollectableRow) (l Label, err error) {
		return l, row.Scan(&l.Provider, &l.Label)
	}, `SELECT provider, label FROM pg_shseclabel WHERE classoid = 'pg_database'::regclass AND objoid = $1 ORDER BY 1`, d.OID)
	if err != nil || !hasACL {
		return err
	}
	d.Grants, err = rows(ctx, c, step, func(row pgx.CollectableRow) (g Grant, err error) {
		return g, row.Scan(&g.Grantor, &g.Grantee, &g.Privilege, &g.Grantable)
	}, `SELECT coalesce(f.rolname::text, ''), coalesce(t.rolname::text, ''), a.privilege_type, a.is_grantable
	      FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) WITH ORDINALITY a(grantor, grantee, privilege_type, is_grantable, n)
	      LEFT JOIN pg_roles f ON f.oid = a.grantor LEFT JOIN pg_roles t ON t.oid = a.grantee
	     WHERE d.oid = $1 ORDER BY n`, d.OID)
	if d.Grants == nil {
		d.Grants = []Grant{} // an empty list is not the default
	}
	return err
}

// CreateSQL is the statement that makes the database empty, under a name.
// Everything that can be set later is left to PropertiesSQL.
func (d Database) CreateSQL(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE DATABASE %s WITH TEMPLATE = template0 ENCODING = %s",
		pgname.Ident(name), pgname.Literal(d.Encoding))
	if d.Provider != "libc" {
		fmt.Fprintf(&b, " LOCALE_PROVIDER = %s", d.Provider)
	}
	fmt.Fprintf(&b, " LC_COLLATE = %s LC_CTYPE = %s", pgname.Literal(d.Collate), pgname.Literal(d.CType))
	if d.Locale != "" {
		fmt.Fprintf(&b, " %s_LOCALE = %s", strings.ToUpper(d.Provider), pgname.Literal(d.Locale))
	}
	if d.ICURules != "" {
		fmt.Fprintf(&b, " ICU_RULES = %s", pgname.Literal(d.ICURules))
	}
	if d.Tablespace != "" && d.Tablespace != "pg_default" {
		fmt.Fprintf(&b, " TABLESPACE = %s", pgname.Ident(d.Tablespace))
	}
	return b.String()
}

// PropertiesSQL are the statements that give a database, under a name, its
// owner, privileges, comment, labels, limits and settings.
func (d Database) PropertiesSQL(name string, o PropertyOptions) []string {
	db := pgname.Ident(name)
	var sql []string
	if o.Owner && d.Owner != "" {
		sql = append(sql, fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", db, pgname.Ident(o.role(d.Owner))))
	}
	if o.Grants && d.Grants != nil {
		sql = append(sql, d.grantSQL(db, o)...)
	}
	if d.Comment != "" {
		sql = append(sql, fmt.Sprintf("COMMENT ON DATABASE %s IS %s", db, pgname.Literal(d.Comment)))
	}
	for _, l := range d.Labels {
		sql = append(sql, fmt.Sprintf("SECURITY LABEL FOR %s ON DATABASE %s IS %s",
			pgname.Ident(l.Provider), db, pgname.Literal(l.Label)))
	}
	if d.ConnectionLimit >= 0 {
		sql = append(sql, fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d", db, d.ConnectionLimit))
	}
	for _, s := range d.Settings {
		if s.Role != "" && !o.Owner {
			continue
		}
		sql = append(sql, s.sql(db, o))
	}
	if d.Template {
		sql = append(sql, fmt.Sprintf("ALTER DATABASE %s IS_TEMPLATE true", db))
	}
	return sql
}

// PropertyOptions say which properties are wanted.
type PropertyOptions struct {
	Owner    bool // owner, and settings of single roles
	Grants   bool
	MapRoles map[string]string // source role to target role
}

func (o PropertyOptions) role(name string) string {
	if to, ok := o.MapRoles[name]; ok {
		return to
	}
	return name
}

// grantSQL replaces whatever privileges the database has by d's. Privileges
// that another role than the owner granted are granted as that role, which
// holds them WITH GRANT OPTION by then: aclexplode keeps their order.
func (d Database) grantSQL(db string, o PropertyOptions) []string {
	sql := []string{fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM PUBLIC", db)}
	if d.Owner != "" {
		sql = append(sql, fmt.Sprintf("REVOKE ALL ON DATABASE %s FROM %s", db, pgname.Ident(o.role(d.Owner))))
	}
	for _, g := range d.Grants {
		to, option := "PUBLIC", ""
		if g.Grantee != "" {
			to = pgname.Ident(o.role(g.Grantee))
		}
		if g.Grantable && g.Grantee != d.Owner {
			option = " WITH GRANT OPTION"
		}
		grant := fmt.Sprintf("GRANT %s ON DATABASE %s TO %s%s", g.Privilege, db, to, option)
		if g.Grantor != "" && g.Grantor != d.Owner {
			sql = append(sql, "SET LOCAL ROLE "+pgname.Ident(o.role(g.Grantor)), grant, "RESET ROLE")
			continue
		}
		sql = append(sql, grant)
	}
	return sql
}

func (s Setting) sql(db string, o PropertyOptions) string {
	who := "DATABASE " + db
	if s.Role != "" {
		who = fmt.Sprintf("ROLE %s IN DATABASE %s", pgname.Ident(o.role(s.Role)), db)
	}
	return fmt.Sprintf("ALTER %s SET %s TO %s", who, settingName(s.Name), s.values())
}

// settingName quotes each part of a setting's name: an extension's has a dot.
func settingName(name string) string {
	parts := strings.Split(name, ".")
	for i := range parts {
		parts[i] = pgname.Ident(parts[i])
	}
	return strings.Join(parts, ".")
}

// listSettings hold a list of identifiers, which the catalog stores flattened
// and SET wants as separate literals (pg_dump's variable_is_guc_list_quote).
var listSettings = map[string]bool{
	"local_preload_libraries": true, "search_path": true, "session_preload_libraries": true,
	"shared_preload_libraries": true, "temp_tablespaces": true, "unix_socket_directories": true,
}

func (s Setting) values() string {
	if !listSettings[strings.ToLower(s.Name)] {
		return pgname.Literal(s.Value)
	}
	var literals []string
	for _, item := range splitIdentifiers(s.Value) {
		literals = append(literals, pgname.Literal(item))
	}
	if len(literals) == 0 {
		return "''"
	}
	return strings.Join(literals, ", ")
}

// splitIdentifiers undoes the server's flattening: comma-separated, parts
// with special characters in double quotes.
func splitIdentifiers(s string) []string {
	var items []string
	var b strings.Builder
	quoted, any := false, false
	flush := func() {
		if any {
			items = append(items, b.String())
		}
		b.Reset()
		any = false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			b.WriteByte('"')
			i++
		case c == '"':
			quoted, any = !quoted, true
		case c == ',' && !quoted:
			flush()
		case c == ' ' && !quoted:
		default:
			b.WriteByte(c)
			any = true
		}
	}
	flush()
	return items
}

func replaceOnce(s, old, replacement string) string { return strings.Replace(s, old, replacement, 1) }
