package pg

import (
	"context"
	"fmt"
	"hash/fnv"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/pgname"
)

// Extensions lists the extensions that the server could create.
func (c *Conn) Extensions(ctx context.Context) ([]string, error) {
	return c.strings(ctx, "list available extensions", `SELECT name::text FROM pg_available_extensions ORDER BY 1`)
}

// HasCollation reports whether the server's operating system knows a libc
// locale, as far as the catalog tells: names differ in the spelling of the
// encoding (en_US.UTF-8, en_US.utf8).
func (c *Conn) HasCollation(ctx context.Context, locale string) (bool, error) {
	return value[bool](ctx, c, "look for locale "+locale, `
		SELECT upper($1) IN ('C', 'POSIX', 'C.UTF-8', 'C.UTF8', '') OR EXISTS (
		       SELECT 1 FROM pg_collation WHERE collprovider = 'c'
		          AND translate(lower(collcollate), '-', '') = translate(lower($1), '-', ''))
		    OR EXISTS (SELECT 1 FROM pg_database
		        WHERE translate(lower(datcollate), '-', '') = translate(lower($1), '-', ''))`, locale)
}

// HasICU reports whether the server was built with ICU.
func (c *Conn) HasICU(ctx context.Context) (bool, error) {
	return value[bool](ctx, c, "look for ICU", `SELECT EXISTS (SELECT 1 FROM pg_collation WHERE collprovider = 'i')`)
}

// UserObjects counts what is in the database beyond what initdb put there.
func (c *Conn) UserObjects(ctx context.Context) (int64, error) {
	return value[int64](ctx, c, "look for objects in database "+pgname.Printable(c.database), `
		SELECT (SELECT count(*) FROM pg_class WHERE oid >= 16384 AND relnamespace <> 'pg_toast'::regnamespace)
		     + (SELECT count(*) FROM pg_proc WHERE oid >= 16384)
		     + (SELECT count(*) FROM pg_type WHERE oid >= 16384 AND typrelid = 0)
		     + (SELECT count(*) FROM pg_namespace WHERE oid >= 16384 AND nspname !~ '^pg_(toast_)?temp')
		     + (SELECT count(*) FROM pg_extension WHERE oid >= 16384)
		     + (SELECT count(*) FROM pg_largeobject_metadata)`)
}

// FilledTables returns those of tables that exist and hold rows, and those
// that do not exist.
func (c *Conn) FilledTables(ctx context.Context, tables []pgname.Table) (filled, missing []pgname.Table, err error) {
	for _, t := range tables {
		exists, err := value[bool](ctx, c, "look for table "+t.Printable(), `SELECT to_regclass($1) IS NOT NULL`, t.String())
		if err != nil {
			return nil, nil, err
		}
		if !exists {
			missing = append(missing, t)
			continue
		}
		has, err := value[bool](ctx, c, "look into table "+t.Printable(), `SELECT EXISTS (SELECT 1 FROM ONLY `+t.String()+`)`)
		if err != nil {
			return nil, nil, err
		}
		if has {
			filled = append(filled, t)
		}
	}
	return filled, missing, nil
}

// EndSessions ends all sessions in a database but this one, and waits for
// them to be gone.
func (c *Conn) EndSessions(ctx context.Context, database string) error {
	return c.endSessions(ctx, database, "")
}

// EndOwnSessions is EndSessions for those of this role only: a pooler keeps
// them when their clients have gone.
func (c *Conn) EndOwnSessions(ctx context.Context, database string) error {
	return c.endSessions(ctx, database, " AND usename = current_user")
}

func (c *Conn) endSessions(ctx context.Context, database, which string) error {
	step := "end the sessions in database " + pgname.Printable(database)
	where := ` FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()` + which
	_, err := value[int](ctx, c, step, `SELECT count(pg_terminate_backend(pid, 5000))::int`+where, database)
	if hasState(err, "42883") { // before version 14 it takes no timeout
		_, err = value[int](ctx, c, step, `SELECT count(pg_terminate_backend(pid))::int`+where, database)
	}
	return err
}

// TryLock takes a session lock on a name within this server, so that two
// restores do not fill the same database. It is held until the session ends.
func (c *Conn) TryLock(ctx context.Context, name string) (bool, error) {
	h := fnv.New64a()
	fmt.Fprintf(h, "dbbackup restore %s", name)
	return value[bool](ctx, c, "lock "+pgname.Printable(name), `SELECT pg_try_advisory_lock($1)`, int64(h.Sum64())) //nolint:gosec // the bits are what counts
}

// Commented lists the databases whose comment begins with prefix, with their
// comments.
func (c *Conn) Commented(ctx context.Context, prefix string) (map[string]string, error) {
	found := map[string]string{}
	_, err := rows(ctx, c, "look for unfinished restores", func(row pgx.CollectableRow) (struct{}, error) {
		var name, comment string
		err := row.Scan(&name, &comment)
		found[name] = comment
		return struct{}{}, err
	}, `SELECT datname::text, shobj_description(oid, 'pg_database') FROM pg_database
	     WHERE starts_with(shobj_description(oid, 'pg_database'), $1)`, prefix)
	return found, err
}

// TablesToAnalyze lists the tables and materialized views of which statistics are
// wanted, the largest first. Parents of foreign tables are left out, because their
// statistics would be read from the foreign servers.
func (c *Conn) TablesToAnalyze(ctx context.Context) ([]pgname.Table, error) {
	return rows(ctx, c, "list tables to analyze", func(row pgx.CollectableRow) (t pgname.Table, err error) {
		return t, row.Scan(&t.Schema, &t.Name)
	}, `WITH RECURSIVE parent AS (
		     SELECT inhparent AS oid FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE c.relkind = 'f'
		      UNION SELECT inhparent FROM pg_inherits JOIN parent ON parent.oid = inhrelid)
		SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND c.oid >= 16384
		   AND c.oid NOT IN (SELECT oid FROM parent) ORDER BY pg_relation_size(c.oid) DESC, c.oid`)
}

// Analyze collects statistics on one table.
func (c *Conn) Analyze(ctx context.Context, t pgname.Table) error {
	return c.Exec(ctx, "analyze table "+t.Printable(), "ANALYZE "+t.String())
}

// Subscriptions lists the subscriptions of a database by name.
func (c *Conn) Subscriptions(ctx context.Context, database string) ([]string, error) {
	return c.strings(ctx, "list subscriptions", `SELECT s.subname::text FROM pg_subscription s
		JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = $1 ORDER BY 1`, database)
}

// DropSubscriptions drops the subscriptions of the session's database without
// asking their publishers, whose slots stay. A database that has some cannot be
// dropped.
func (c *Conn) DropSubscriptions(ctx context.Context) error {
	names, err := c.Subscriptions(ctx, c.database)
	if err != nil {
		return err
	}
	for _, name := range names {
		sub := pgname.Ident(name)
		for _, sql := range []string{"ALTER SUBSCRIPTION " + sub + " DISABLE",
			"ALTER SUBSCRIPTION " + sub + " SET (slot_name = NONE)", "DROP SUBSCRIPTION " + sub} {
			if err := c.Exec(ctx, "drop subscription "+pgname.Printable(name), sql); err != nil {
				return err
			}
		}
	}
	return nil
}

// DatabaseBytes is pg_database_size.
func (c *Conn) DatabaseBytes(ctx context.Context, database string) (int64, error) {
	return value[int64](ctx, c, "size of database "+pgname.Printable(database),
		`SELECT pg_database_size(oid) FROM pg_database WHERE datname = $1`, database)
}

// KnownSettings are the names of the server's settings, in lower case.
func (c *Conn) KnownSettings(ctx context.Context) (map[string]bool, error) {
	names, err := c.strings(ctx, "list settings", `SELECT lower(name) FROM pg_settings`)
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = true
	}
	return known, err
}
