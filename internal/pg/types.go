package pg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// typeInfo is one data type that a column uses, directly or through others.
type typeInfo struct {
	oid    uint32
	kind   string // typtype
	length int16  // typlen
	array  bool
	binary bool     // has send and receive functions
	print  string   // what decides how its values read
	parts  []uint32 // the types that its values consist of
}

type typeSet map[uint32]*typeInfo

// typesQuery follows the types of columns to their elements, bases, subtypes
// and attributes. pg_range's multirange column exists since version 14.
const typesQuery = `
	WITH RECURSIVE used(oid) AS (
		SELECT DISTINCT a.atttypid
		  FROM pg_attribute a
		  JOIN pg_class c ON c.oid = a.attrelid
		  JOIN pg_namespace n ON n.oid = c.relnamespace
		 WHERE a.attnum > 0 AND NOT a.attisdropped AND ` + ordinaryTable + `
		 UNION
		SELECT p.oid FROM used u JOIN pg_type t ON t.oid = u.oid CROSS JOIN LATERAL (` + typeParts + `) p(oid) WHERE p.oid <> 0)
	SELECT t.oid, t.typtype::text, t.typlen, t.typelem <> 0 AND t.typlen = -1 AND t.typcategory = 'A',
	       t.typsend <> 0 AND t.typreceive <> 0,
	       concat_ws('|', n.nspname, t.typname, t.typtype, t.typlen, t.typoutput::oid,
	         (SELECT string_agg(concat_ws(':', e.oid, e.enumlabel, e.enumsortorder), ',' ORDER BY e.enumsortorder)
	            FROM pg_enum e WHERE e.enumtypid = t.oid),
	         (SELECT string_agg(concat_ws(':', a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped), ',' ORDER BY a.attnum)
	            FROM pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0),
	         (SELECT string_agg(x.extname || ' ' || x.extversion, ',')
	            FROM pg_depend d JOIN pg_extension x ON x.oid = d.refobjid
	           WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')),
	       ARRAY(SELECT p.oid FROM (` + typeParts + `) p(oid) WHERE p.oid <> 0)
	  FROM used u JOIN pg_type t ON t.oid = u.oid JOIN pg_namespace n ON n.oid = t.typnamespace`

const typeParts = `
	SELECT CASE WHEN t.typtype = 'd' THEN 0 ELSE t.typelem END UNION ALL SELECT t.typbasetype
	 UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
	 UNION ALL SELECT r.rngtypid FROM pg_range r WHERE (to_jsonb(r)->>'rngmultitypid')::oid = t.oid
	 UNION ALL SELECT x.atttypid FROM pg_attribute x
	            WHERE t.typtype = 'c' AND x.attrelid = t.typrelid AND x.attnum > 0 AND NOT x.attisdropped`

func (c *Conn) types(ctx context.Context, step string) (typeSet, error) {
	set := typeSet{}
	_, err := rows(ctx, c, step, func(row pgx.CollectableRow) (struct{}, error) {
		t := &typeInfo{}
		err := row.Scan(&t.oid, &t.kind, &t.length, &t.array, &t.binary, &t.print, &t.parts)
		set[t.oid] = t
		return struct{}{}, err
	}, typesQuery)
	return set, err
}

// OIDs of built-in types (src/include/catalog/pg_type.dat).
const (
	oidBytea   = 17
	oidText    = 25
	oidXML     = 142
	oidBpchar  = 1042
	oidVarchar = 1043
	firstOwn   = 16384 // FirstNormalObjectId: what initdb made lies below
)

// namesObjects are the reg* types, whose text is a name and whose binary form an
// OID, and aclitem, whose text names roles.
var namesObjects = []uint32{24, 1033, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, 8326}

// closure calls fn for a type and all that it consists of, each once.
func (s typeSet) closure(oid uint32, fn func(t *typeInfo)) {
	seen := map[uint32]bool{}
	var visit func(oid uint32)
	visit = func(oid uint32) {
		t := s[oid]
		if t == nil || seen[oid] {
			return
		}
		seen[oid] = true
		fn(t)
		for _, part := range t.parts {
			visit(part)
		}
	}
	visit(oid)
}

// base follows domains to what they stand on.
func (s typeSet) base(oid uint32) *typeInfo {
	for t := s[oid]; t != nil; t = s[t.parts[0]] {
		if t.kind != "d" || len(t.parts) == 0 {
			return t
		}
	}
	return &typeInfo{oid: oid}
}

// portable reports whether the binary form of a type means the same in another
// database: it holds no OID, neither of an element's type nor of what a reg*
// value names, and both servers have the code for it built in.
func (s typeSet) portable(oid uint32) bool {
	t := s.base(oid)
	switch {
	case !t.binary || slices.Contains(namesObjects, t.oid) || t.oid == oidXML:
		return false
	case t.kind == "e": // its label
		return true
	case t.kind == "r" || t.kind == "m":
		return len(t.parts) > 0 && s.portable(t.parts[0])
	case t.kind == "b" && t.oid < firstOwn:
		return !t.array || len(t.parts) > 0 && t.parts[0] < firstOwn && s.portable(t.parts[0])
	}
	return false
}

// unstable reports whether values of the type read differently after something
// else was renamed.
func (s typeSet) unstable(oid uint32) bool {
	found := false
	s.closure(oid, func(t *typeInfo) { found = found || slices.Contains(namesObjects, t.oid) })
	return found
}

// column is one row of columnsQuery.
type column struct {
	table     uint32
	number    int16
	name      string
	typ       uint32
	typmod    int32
	collation uint32
	dropped   bool
	generated bool
	missing   string
}

// shapePrint collects what a table's columns say.
type shapePrint struct {
	sum   hash.Hash
	types map[uint32]bool
}

func newShapePrint(s *Shape) *shapePrint {
	s.Portable = true
	return &shapePrint{sum: sha256.New(), types: map[uint32]bool{}}
}

func (p *shapePrint) add(s *Shape, col column, types typeSet) {
	fmt.Fprintf(p.sum, "%d %q %d %d %d %t %t %q\n", col.number, col.name, col.typ, col.typmod, col.collation, col.dropped, col.generated, col.missing)
	if col.dropped || col.generated {
		return
	}
	s.Columns = append(s.Columns, col.name)
	if !p.types[col.typ] {
		p.types[col.typ] = true
		var prints []string
		types.closure(col.typ, func(t *typeInfo) { prints = append(prints, fmt.Sprintf("%d %s\n", t.oid, t.print)) })
		slices.Sort(prints)
		for _, text := range prints {
			p.sum.Write([]byte(text))
		}
	}
	base := types.base(col.typ)
	s.Bytea = s.Bytea || base.oid == oidBytea
	s.Portable = s.Portable && types.portable(col.typ)
	s.Unstable = s.Unstable || types.unstable(col.typ)
	if base.length == -1 {
		s.wide = append(s.wide, wideColumn{col.name, measure(base.oid), types.portable(col.typ), sliced(base.oid)})
	}
}

// measure names a function that tells the bytes of a value without fetching it
// from its TOAST table, where there is one.
func measure(oid uint32) string {
	switch oid {
	case oidBytea, oidText, oidBpchar, oidVarchar:
		return "octet_length"
	}
	return "pg_column_size"
}

func (p *shapePrint) finish(s *Shape) {
	s.Fingerprint = hex.EncodeToString(p.sum.Sum(nil)[:16])
}

// WideExpression is SQL for how many bytes a row is about, or nothing where no
// row can be wide. quote quotes a column's name.
func (s *Shape) WideExpression(quote func(string) string) string {
	var terms []string
	for _, c := range s.wide {
		terms = append(terms, fmt.Sprintf("coalesce(%s(%s)::bigint, 0)", c.measure, quote(c.name)))
	}
	return strings.Join(terms, " + ")
}

// WideColumn is a column whose values can be large.
type WideColumn struct {
	Portable bool // its binary form means the same in another database
	// Bytes is SQL that makes bytes of a value, %s, so that slices can be taken;
	// they are what the value's binary form holds. Empty: there is no such form.
	Bytes string
}

// WideColumns are the columns whose values can be large, by name.
func (s *Shape) WideColumns() map[string]WideColumn {
	all := map[string]WideColumn{}
	for _, c := range s.wide {
		all[c.name] = WideColumn{Portable: c.portable, Bytes: c.bytes}
	}
	return all
}

// sliced is how bytes are made of values of a type; of characters by converting them to
// the encoding that they are in.
func sliced(oid uint32) string {
	switch oid {
	case oidBytea:
		return "%s"
	case oidText, oidVarchar, oidBpchar:
		return "convert_to(%s::text, getdatabaseencoding())"
	}
	return ""
}
