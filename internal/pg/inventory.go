package pg

import (
	"context"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/pgname"
)

// Inventory is what a database holds, as far as a backup must know it before
// it begins.
type Inventory struct {
	Tables           []Table
	Lockable         int64 // relations that pg_dump locks
	LargeObjects     int64
	LargeObjectBytes int64 // on disk
	EstimatedRows    int64 // the planner's, -1 when no table was ever analysed
	Extensions       []string
	Roles            []string // that objects, privileges and policies name
	Tablespaces      []string // that objects name, beside the database's own
	Gaps             InventoryGaps
}

// InventoryGaps is what this role cannot capture, or what is no data of this
// database.
type InventoryGaps struct {
	Unreadable    []pgname.Table // tables without the SELECT privilege
	RowSecurity   []pgname.Table // tables whose rows are filtered for this role
	Foreign       []pgname.Table // foreign tables: their data is elsewhere
	Unlogged      []pgname.Table // unlogged tables on a standby: empty there
	Subscriptions int64          // subscriptions, when the role is no superuser: pg_dump leaves them out
	LargeObjects  int64          // large objects of others, which only a superuser reads
	UserMappings  int64          // user mappings whose options are hidden from the role
}

// Table is one table that holds rows, or a partitioned parent.
type Table struct {
	pgname.Table
	OID        uint32
	Kind       string // relkind: r, p or m
	HeapBytes  int64
	ToastBytes int64
	Rows       int64 // estimate, -1 unknown
	Wide       bool  // has bytea, text or jsonb columns with out-of-line storage
	ParentOID  uint32
}

// Bytes is what a dump reads of the table: no indexes.
func (t Table) Bytes() int64 { return t.HeapBytes + t.ToastBytes }

// tablesQuery asks for no size of a table that somebody holds, or is about to
// hold, exclusively: that would wait for the lock (and others behind it). The
// planner's page count stands in.
const tablesQuery = `
	WITH held AS MATERIALIZED (
		SELECT DISTINCT relation FROM pg_locks
		 WHERE locktype = 'relation' AND mode = 'AccessExclusiveLock' AND pid IS DISTINCT FROM pg_backend_pid()
		   AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
	SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
	       CASE WHEN c.relkind = 'p' THEN 0
	            WHEN h.relation IS NOT NULL THEN c.relpages::bigint * current_setting('block_size')::int
	            ELSE pg_table_size(c.oid) - t.bytes END, t.bytes,
	       c.reltuples::bigint, t.bytes > 0, coalesce(i.inhparent, 0)
	  FROM pg_class c
	  JOIN pg_namespace n ON n.oid = c.relnamespace
	  LEFT JOIN held h ON h.relation = c.oid
	  LEFT JOIN pg_inherits i ON c.relispartition AND i.inhrelid = c.oid
	 CROSS JOIN LATERAL (SELECT CASE WHEN c.reltoastrelid = 0 OR h.relation IS NOT NULL THEN 0
	                                 ELSE pg_total_relation_size(c.reltoastrelid) END) t(bytes)
	 WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
	   AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
	 ORDER BY n.nspname, c.relname`

// Tables lists the tables of the database by schema and name.
func (c *Conn) Tables(ctx context.Context) ([]Table, error) {
	return rows(ctx, c, "list the tables of database "+pgname.Printable(c.database),
		func(row pgx.CollectableRow) (t Table, err error) {
			return t, row.Scan(&t.OID, &t.Schema, &t.Name, &t.Kind, &t.HeapBytes, &t.ToastBytes, &t.Rows, &t.Wide, &t.ParentOID)
		}, tablesQuery)
}

// Inventory reads what the database holds.
func (c *Conn) Inventory(ctx context.Context) (inv Inventory, err error) {
	if inv.Tables, err = c.Tables(ctx); err != nil {
		return inv, err
	}
	inv.EstimatedRows = estimatedRows(inv.Tables)
	step := "take stock of database " + pgname.Printable(c.database)
	err = c.c.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p', 'S', 'f', 'v', 'm') AND oid >= 16384),
		       (SELECT count(*) FROM pg_largeobject_metadata),
		       pg_total_relation_size('pg_largeobject')`).Scan(&inv.Lockable, &inv.LargeObjects, &inv.LargeObjectBytes)
	if err != nil {
		return inv, wrap(step, err)
	}
	if inv.LargeObjects == 0 {
		inv.LargeObjectBytes = 0
	}
	if inv.Extensions, err = c.strings(ctx, step, `SELECT extname::text FROM pg_extension ORDER BY 1`); err != nil {
		return inv, err
	}
	if inv.Roles, err = c.strings(ctx, step, rolesQuery); err != nil {
		return inv, err
	}
	if inv.Tablespaces, err = c.strings(ctx, step, `SELECT DISTINCT t.spcname::text FROM pg_class c
		JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE c.oid >= 16384 ORDER BY 1`); err != nil {
		return inv, err
	}
	inv.Gaps, err = c.gaps(ctx, step)
	return inv, err
}

// rolesQuery: pg_shdepend knows the roles that objects, privileges and
// policies of this database name. The bootstrap role is pinned and therefore
// not in there, but owns things nearly always.
const rolesQuery = `
	SELECT rolname::text FROM pg_roles WHERE oid = 10 OR oid IN (
	       SELECT refobjid FROM pg_shdepend
	        WHERE refclassid = 'pg_authid'::regclass AND (
	              dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
	           OR classid = 'pg_database'::regclass
	              AND objid = (SELECT oid FROM pg_database WHERE datname = current_database())))
	 ORDER BY 1`

func estimatedRows(tables []Table) int64 {
	sum, known := int64(0), false
	for _, t := range tables {
		if t.Kind == "r" && t.Rows >= 0 {
			sum, known = sum+t.Rows, true
		}
	}
	if !known {
		return -1
	}
	return sum
}

// userTable restricts a query on pg_class c and pg_namespace n to what pg_dump
// captures with data.
const userTable = ` FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't' `

func (c *Conn) gaps(ctx context.Context, step string) (g InventoryGaps, err error) {
	named := func(where string) (tables []pgname.Table) {
		if err != nil {
			return nil
		}
		tables, err = rows(ctx, c, step, func(row pgx.CollectableRow) (t pgname.Table, err error) {
			return t, row.Scan(&t.Schema, &t.Name)
		}, `SELECT n.nspname::text, c.relname::text`+userTable+where+` ORDER BY 1, 2`)
		return tables
	}
	g.Unreadable = named(`AND c.relkind IN ('r', 'p') AND NOT has_table_privilege(c.oid, 'SELECT')`)
	g.RowSecurity = named(`AND c.relkind IN ('r', 'p') AND row_security_active(c.oid)`)
	g.Foreign = named(`AND c.relkind = 'f'`)
	g.Unlogged = named(`AND c.relkind IN ('r', 'm') AND c.relpersistence = 'u' AND pg_is_in_recovery()`)
	if err != nil {
		return g, err
	}
	err = c.c.QueryRow(ctx, `
		SELECT CASE WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN 0
		            ELSE (SELECT count(oid) FROM pg_subscription
		                   WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())) END,
		       (SELECT count(*) FROM pg_largeobject_metadata m WHERE NOT `+readableLargeObject+`),
		       CASE WHEN (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN 0
		            ELSE (SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NULL) END`).
		Scan(&g.Subscriptions, &g.LargeObjects, &g.UserMappings)
	return g, wrap(step, err)
}

// readableLargeObject is true for a row m of pg_largeobject_metadata that this
// role may read. has_largeobject_privilege exists only since version 18.
const readableLargeObject = `(
	(SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
	OR pg_has_role(m.lomowner, 'USAGE')
	OR EXISTS (SELECT 1 FROM aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT'
	           AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE'))))`

// UnreadableLargeObjects lists up to limit large objects that this role may
// not read.
func (c *Conn) UnreadableLargeObjects(ctx context.Context, limit int) ([]string, error) {
	return c.strings(ctx, "list large objects",
		`SELECT m.oid::text FROM pg_largeobject_metadata m WHERE NOT `+readableLargeObject+` ORDER BY m.oid LIMIT $1`, limit)
}
