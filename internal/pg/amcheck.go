package pg

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/pgname"
)

// amcheckSchema is where Amcheck makes the extension.
const amcheckSchema = "dbbackup_amcheck"

// Amcheck makes the extension amcheck in the database, where it is not there
// already, and returns its schema; nothing where the server does not have it,
// or has one that does not know heapallindexed.
func (c *Conn) Amcheck(ctx context.Context) (schema string, err error) {
	const step = "look for amcheck"
	const where = `SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'amcheck'`
	found, err := c.strings(ctx, step, where)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		available, err := value[bool](ctx, c, step, `SELECT EXISTS (SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck')`)
		if err != nil || !available {
			return "", err
		}
		if err := c.createAmcheck(ctx); err != nil {
			return "", err
		}
		found = []string{amcheckSchema}
	}
	// Version 1.1 of the extension, of PostgreSQL 11, brought heapallindexed.
	usable, err := value[bool](ctx, c, step, `SELECT to_regprocedure($1) IS NOT NULL`,
		pgname.Qualified(found[0], "bt_index_check")+"(regclass, boolean)")
	if err != nil || !usable {
		return "", err
	}
	return found[0], nil
}

// createAmcheck makes the extension whatever the database's own settings and
// event triggers say: those of the restored database are not at work yet.
func (c *Conn) createAmcheck(ctx context.Context) error {
	statements := []string{"SET TRANSACTION READ WRITE"}
	super, err := value[bool](ctx, c, "ask for privileges", `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`)
	if err != nil {
		return err
	}
	if super { // event triggers do not fire then
		statements = append(statements, "SET LOCAL session_replication_role = replica")
	}
	return c.Transact(ctx, "create extension amcheck", append(statements,
		"CREATE SCHEMA IF NOT EXISTS "+amcheckSchema, "CREATE EXTENSION amcheck SCHEMA "+amcheckSchema))
}

// Index is a B-tree index that is valid.
type Index struct {
	OID   uint32
	Name  pgname.Table // of the index
	Table pgname.Table
	Bytes int64
}

// BTreeIndexes lists the database's B-tree indexes that can be checked, the
// largest first.
func (c *Conn) BTreeIndexes(ctx context.Context) ([]Index, error) {
	return rows(ctx, c, "list the indexes of database "+pgname.Printable(c.database),
		func(row pgx.CollectableRow) (i Index, err error) {
			return i, row.Scan(&i.OID, &i.Name.Schema, &i.Name.Name, &i.Table.Schema, &i.Table.Name, &i.Bytes)
		}, `
		SELECT c.oid, n.nspname::text, c.relname::text, tn.nspname::text, t.relname::text, pg_relation_size(c.oid)
		  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		  JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
		  JOIN pg_am a ON a.oid = c.relam
		 WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence <> 't' AND i.indisvalid AND i.indisready
		 ORDER BY 6 DESC, 1`)
}

// CheckIndex lets amcheck, in that schema, compare a B-tree index with itself
// and with its table. IsRefused tells what it found from what kept it.
func (c *Conn) CheckIndex(ctx context.Context, schema string, index Index) error {
	return c.Exec(ctx, "check index "+index.Name.Printable(),
		fmt.Sprintf("SELECT %s(%d::oid::regclass, true)", pgname.Qualified(schema, "bt_index_check"), index.OID))
}
