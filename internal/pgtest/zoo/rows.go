package zoo

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// relations lists what holds rows: tables, leaves of partition trees and
// populated materialized views. A tree that is hashed by an enum's value is one
// entry, its root: which leaf a row lives in depends on the enum's OIDs, which
// differ between databases.
const relations = `
WITH by_oid AS (
    SELECT p.partrelid FROM pg_partitioned_table p
    WHERE p.partstrat = 'h' AND EXISTS (
        SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs) AND t.typtype = 'e'))
SELECT DISTINCT coalesce(root.relation, c.oid)::regclass::text, root.relation IS NULL
FROM pg_class c
LEFT JOIN LATERAL (
    SELECT r.relid::oid AS relation FROM pg_partition_ancestors(c.oid) WITH ORDINALITY AS r(relid, depth)
    WHERE r.relid IN (SELECT partrelid FROM by_oid) ORDER BY r.depth DESC LIMIT 1) root ON true
WHERE c.relkind IN ('r', 'm') AND c.relispopulated AND c.relpersistence <> 't' AND c.oid >= 16384
AND c.relnamespace NOT IN (SELECT oid FROM pg_namespace WHERE nspname IN ('information_schema', 'pg_catalog'))
ORDER BY 1`

// collectRows adds the number and the hash of each relation's own rows. The
// server's text of a row stands for its content; the sum does not depend on
// the order of the rows.
func collectRows(ctx context.Context, conn *pgx.Conn, into facts) error {
	var name string
	var only bool
	var names []string
	rows, err := conn.Query(ctx, relations)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	_, err = pgx.ForEachRow(rows, []any{&name, &only}, func() error {
		if only {
			name = "ONLY " + name
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	for _, name := range names {
		var found string
		const digest = `SELECT format('%%s rows, hash %%s', count(*), sum(hashtextextended("every row"::text COLLATE "C", 0)::numeric)) FROM %s AS "every row"`
		if err := conn.QueryRow(ctx, fmt.Sprintf(digest, name)).Scan(&found); err != nil {
			return fmt.Errorf("read rows of %s: %w", name, err)
		}
		into["rows of "+name] = found
	}
	return nil
}

// collectSequences adds the position of each sequence.
func collectSequences(ctx context.Context, conn *pgx.Conn, into facts) error {
	rows, err := conn.Query(ctx, "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'S' AND oid >= 16384 ORDER BY 1")
	if err != nil {
		return fmt.Errorf("list sequences: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list sequences: %w", err)
	}
	for _, name := range names {
		var found string
		if err := conn.QueryRow(ctx, "SELECT format('at %s, called %s', last_value, is_called) FROM "+name).Scan(&found); err != nil {
			return fmt.Errorf("read sequence %s: %w", name, err)
		}
		into["sequence "+name] = found
	}
	return nil
}
