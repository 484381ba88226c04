package pg

import (
	"context"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/pgname"
)

// Shape is a table as a native reader must know it: what to read, how, and what
// decides how its rows look beside the rows themselves.
type Shape struct {
	pgname.Table
	OID      uint32
	Filenode uint32 // pg_class.relfilenode, as the session's snapshot sees it
	Heap     bool   // its access method is heap: pages and tuple ids mean what they say

	Columns []string // to capture, in order: not dropped, not generated
	Bytea   bool     // holds bytea
	// Portable says that COPY's binary form of the rows means the same in another database.
	Portable bool
	// Unstable says that rows may read differently although nothing of the table
	// changed: what a reg* value names was renamed.
	Unstable    bool
	Fingerprint string // of columns and types

	Where string       // the condition of an extension's configuration table
	Via   pgname.Table // load through this partitioned parent; empty: into the table itself

	parent uint32
	kind   string
	skip   bool // belongs to an extension that makes its rows itself
	wide   []wideColumn
}

type wideColumn struct {
	name    string
	measure string // a function of the column that tells its bytes

	portable bool   // its binary form means the same in another database
	bytes    string // see WideColumn
}

// Shapes reads the tables of the session's database that hold rows, by oid.
// Under a snapshot it tells them as they were then.
func (c *Conn) Shapes(ctx context.Context) ([]Shape, error) { return c.readShapes(ctx, true) }

// ShapePrints is Shapes without the columns: what is needed to find out whether
// a table changed.
func (c *Conn) ShapePrints(ctx context.Context) ([]Shape, error) { return c.readShapes(ctx, false) }

func (c *Conn) readShapes(ctx context.Context, columns bool) ([]Shape, error) {
	step := "read the tables of database " + pgname.Printable(c.database)
	types, err := c.types(ctx, step)
	if err != nil {
		return nil, err
	}
	all, err := rows(ctx, c, step, func(row pgx.CollectableRow) (s Shape, err error) {
		return s, row.Scan(&s.OID, &s.Schema, &s.Name, &s.Filenode, &s.Heap, &s.parent, &s.kind, &s.skip, &s.Where)
	}, shapesQuery)
	if err != nil {
		return nil, err
	}
	index := make(map[uint32]*Shape, len(all))
	for i := range all {
		index[all[i].OID] = &all[i]
	}
	if err := c.shapeColumns(ctx, step, index, types, columns); err != nil {
		return nil, err
	}
	if columns {
		err = c.shapeRoutes(ctx, step, index)
	}
	if err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, s := range all {
		if s.kind == "r" && !s.skip {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

// ordinaryTable restricts pg_class c, pg_namespace n to what may hold rows that
// are captured.
const ordinaryTable = ` c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
	AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
	AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) `

const shapesQuery = `
	SELECT c.oid, n.nspname::text, c.relname::text, c.relfilenode, coalesce(am.amname = 'heap', false),
	       coalesce(i.inhparent, 0), c.relkind::text,
	       e.oid IS NOT NULL AND NOT coalesce(c.oid = ANY (e.extconfig), false),
	       coalesce(e.extcondition[array_position(e.extconfig, c.oid)], '')
	  FROM pg_class c
	  JOIN pg_namespace n ON n.oid = c.relnamespace
	  LEFT JOIN pg_am am ON am.oid = c.relam
	  LEFT JOIN pg_inherits i ON c.relispartition AND i.inhrelid = c.oid
	  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
	        AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
	  LEFT JOIN pg_extension e ON e.oid = d.refobjid
	 WHERE ` + ordinaryTable + ` ORDER BY c.oid`

const columnsQuery = `
	SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, a.attcollation,
	       a.attisdropped, a.attgenerated <> '', coalesce(a.attmissingval::text, '')
	  FROM pg_attribute a
	  JOIN pg_class c ON c.oid = a.attrelid
	  JOIN pg_namespace n ON n.oid = c.relnamespace
	 WHERE a.attnum > 0 AND ` + ordinaryTable + ` ORDER BY a.attrelid, a.attnum`

// shapeColumns adds the columns to the tables.
func (c *Conn) shapeColumns(ctx context.Context, step string, index map[uint32]*Shape, types typeSet, keep bool) error {
	r, err := c.c.Query(ctx, columnsQuery)
	if err != nil {
		return wrap(step, err)
	}
	prints := make(map[uint32]*shapePrint, len(index))
	var col column
	_, err = pgx.ForEachRow(r, []any{&col.table, &col.number, &col.name, &col.typ, &col.typmod, &col.collation,
		&col.dropped, &col.generated, &col.missing}, func() error {
		s, ok := index[col.table]
		if !ok {
			return nil
		}
		p := prints[col.table]
		if p == nil {
			p = newShapePrint(s)
			prints[col.table] = p
		}
		p.add(s, col, types)
		if !keep {
			s.Columns, s.wide = nil, nil
		}
		return nil
	})
	if err != nil {
		return wrap(step, err)
	}
	for oid, s := range index {
		p := prints[oid]
		if p == nil {
			p = newShapePrint(s) // a table without columns
		}
		p.finish(s)
	}
	return nil
}

// shapeRoutes finds the partitions that have to be loaded through their parent: a
// hash of an enum, and of what may hold one, depends on OIDs, which differ in
// another database.
func (c *Conn) shapeRoutes(ctx context.Context, step string, index map[uint32]*Shape) error {
	unsafe, err := rows(ctx, c, step, pgx.RowTo[uint32], `
		SELECT DISTINCT p.partrelid FROM pg_partitioned_table p
		 CROSS JOIN LATERAL unnest(p.partclass::oid[]) x(oid)
		  JOIN pg_opclass o ON o.oid = x.oid
		 WHERE p.partstrat = 'h' AND o.opcname IN ('enum_ops', 'array_ops', 'record_ops', 'range_ops', 'multirange_ops')`)
	if err != nil {
		return err
	}
	byOID := map[uint32]bool{}
	for _, oid := range unsafe {
		byOID[oid] = true
	}
	for _, s := range index {
		root, through := s, false
		for parent, ok := index[s.parent]; ok; parent, ok = index[parent.parent] {
			root, through = parent, through || byOID[parent.OID]
		}
		if through {
			s.Via = root.Table
			s.Columns = root.Columns // the same names, in the order that the root has them
		}
	}
	return nil
}

// RelationSize is how much a table takes.
type RelationSize struct{ Heap, Toast int64 }

// Sizes returns the sizes of tables that the session has locked, by oid. They are
// those of now, not of the snapshot.
func (c *Conn) Sizes(ctx context.Context, oids []uint32) (map[uint32]RelationSize, error) {
	sizes := make(map[uint32]RelationSize, len(oids))
	_, err := rows(ctx, c, "ask for the sizes of tables", func(row pgx.CollectableRow) (struct{}, error) {
		var oid uint32
		var s RelationSize
		err := row.Scan(&oid, &s.Heap, &s.Toast)
		sizes[oid] = s
		return struct{}{}, err
	}, `SELECT c.oid, coalesce(pg_relation_size(c.oid), 0),
	           CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE coalesce(pg_relation_size(c.reltoastrelid), 0) END
	      FROM pg_class c WHERE c.oid = ANY ($1)`, oids)
	return sizes, err
}

// Sequences lists the sequences whose values are captured.
func (c *Conn) Sequences(ctx context.Context) ([]pgname.Table, error) {
	return rows(ctx, c, "list sequences", func(row pgx.CollectableRow) (t pgname.Table, err error) {
		return t, row.Scan(&t.Schema, &t.Name)
	}, `SELECT n.nspname::text, c.relname::text
	      FROM pg_class c
	      JOIN pg_namespace n ON n.oid = c.relnamespace
	      LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	            AND d.refclassid = 'pg_extension'::regclass
	      LEFT JOIN pg_extension e ON e.oid = d.refobjid
	     WHERE c.relkind = 'S' AND c.relpersistence <> 't'
	       AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
	       AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery())
	       AND (e.oid IS NULL OR c.oid = ANY (e.extconfig))
	     ORDER BY c.oid`)
}

// MaterializedView is one, and whether it was populated.
type MaterializedView struct {
	pgname.Table
	OID       uint32
	Populated bool
	Reads     []uint32 // other materialized views, also through views
}

// MaterializedViews lists them in an order in which they can be refreshed.
func (c *Conn) MaterializedViews(ctx context.Context) ([]MaterializedView, error) {
	all, err := rows(ctx, c, "list materialized views", func(row pgx.CollectableRow) (v MaterializedView, err error) {
		return v, row.Scan(&v.OID, &v.Schema, &v.Name, &v.Populated, &v.Reads)
	}, `WITH RECURSIVE reads(view, relation) AS (
		    SELECT c.oid, c.oid FROM pg_class c WHERE c.relkind = 'm'
		     UNION
		    SELECT r.view, d.refobjid
		      FROM reads r
		      JOIN pg_class c ON c.oid = r.relation AND (c.relkind = 'v' OR c.oid = r.view)
		      JOIN pg_rewrite w ON w.ev_class = c.oid
		      JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid AND d.refclassid = 'pg_class'::regclass)
		SELECT c.oid, n.nspname::text, c.relname::text, c.relispopulated,
		       ARRAY(SELECT DISTINCT r.relation FROM reads r JOIN pg_class m ON m.oid = r.relation AND m.relkind = 'm'
		              WHERE r.view = c.oid AND r.relation <> c.oid)
		  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE c.relkind = 'm' AND c.relpersistence <> 't'
		   AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
		 ORDER BY c.oid`)
	if err != nil {
		return nil, err
	}
	return inOrder(all), nil
}

// inOrder sorts views behind those that they read.
func inOrder(views []MaterializedView) []MaterializedView {
	index := map[uint32]int{}
	for i, v := range views {
		index[v.OID] = i
	}
	ordered, seen := make([]MaterializedView, 0, len(views)), map[uint32]bool{}
	var visit func(i int)
	visit = func(i int) {
		if seen[views[i].OID] {
			return
		}
		seen[views[i].OID] = true
		for _, oid := range views[i].Reads {
			if j, ok := index[oid]; ok {
				visit(j)
			}
		}
		ordered = append(ordered, views[i])
	}
	for i := range views {
		visit(i)
	}
	return ordered
}
