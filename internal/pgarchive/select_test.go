package pgarchive

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// restoreSelected restores the selection into an empty database, where
// pg_restore must not complain about anything, and returns the database.
func restoreSelected(t *testing.T, c *pgtest.Cluster, toc *TOC, path string, s Selection) string {
	t.Helper()
	list := filepath.Join(t.TempDir(), "list")
	f, err := os.Create(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := errorsOf(toc.WriteList(f, s.Entries), f.Close()); err != nil {
		t.Fatal(err)
	}
	db := c.Database(t)
	pgTool(t, c, "pg_restore", "-e", "-L", list, "-d", db, path)
	return db
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// relationsIn lists schema.name of the relations in a database, with the number of
// rows of those that hold some.
func relationsIn(t *testing.T, c *pgtest.Cluster, db string) []string {
	t.Helper()
	var names []string
	for _, row := range c.Query(t, db, `select n.nspname || '.' || c.relname,
			case when c.relkind = 'r' or c.relkind = 'm' and c.relispopulated then
				(xpath('//n/text()', query_to_xml(format('select count(*) n from only %I.%I', n.nspname, c.relname), false, true, '')))[1]::text
			when c.relkind = 'm' then 'unfilled'
			else c.relkind::text end
		from pg_class c join pg_namespace n on n.oid = relnamespace
		where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and n.nspname !~ '^(pg_|information_)' order by 1`) {
		names = append(names, strings.TrimPrefix(row[0], "public.")+"="+row[1])
	}
	return names
}

func TestSelectionsRestore(t *testing.T) {
	c, db := zoo(t)
	path := dump(t, c, db, "-Fc")
	toc := open(t, path, WithoutSQL())
	for name, test := range map[string]struct {
		want []string // schema.table
		has  []string // relations afterwards, and rows or kind
		left []string // reasons
	}{
		"types of another schema, own sequence": {
			want: []string{"public.customers"},
			has:  []string{"customers=2000", "customers_id_seq=S", "orders=0"}, // the policy reads orders
			left: []string{"the rows of public.orders are not selected"},
		},
		"foreign key to a table not selected": {
			want: []string{"public.orders"},
			has:  []string{"orders=2000", "orders_id_seq=S"},
			left: []string{"foreign key orders_customer_fk of public.orders references public.customers, which is not selected", "publication pub of public.orders"},
		},
		"foreign key between selected tables": {
			want: []string{"public.orders", "public.customers"},
			has:  []string{"customers=2000", "customers_id_seq=S", "orders=2000", "orders_id_seq=S"},
			left: []string{"publication pub of public.orders"},
		},
		"partitioned table": {
			want: []string{"public.ev"},
			has:  []string{"ev=p", "ev_23=p", "ev_23_1=1", "ev_24=1"},
			left: []string{"foreign key ev_fk of public.ev references public.customers, which is not selected"},
		},
		"middle of a partition tree": {
			want: []string{"public.ev_23"},
			has:  []string{"ev=p", "ev_23=p", "ev_23_1=1"},
			left: []string{"foreign key ev_fk of public.ev references public.customers"},
		},
		"leaf, with the parents' foreign key": {
			want: []string{"public.ev_24", "public.customers", "public.orders"},
			has:  []string{"customers=2000", "customers_id_seq=S", "ev=p", "ev_24=1", "orders=2000", "orders_id_seq=S"},
			left: []string{"publication pub of public.orders"},
		},
		"view": {
			want: []string{"public.ov"},
			has:  []string{"customers=0", "orders=0", "ov=v"},
			left: []string{"the rows of public.customers are not selected", "the rows of public.orders are not selected"},
		},
		"view and a table below it": {
			want: []string{"public.ov", "public.orders"},
			has:  []string{"customers=0", "orders=2000", "orders_id_seq=S", "ov=v"},
			left: []string{"the rows of public.customers", "foreign key orders_customer_fk", "publication"},
		},
		"view on a partitioned table": {
			want: []string{"public.ev_view"},
			has:  []string{"ev=p", "ev_view=v"},
			left: []string{"the rows of public.ev_23_1", "the rows of public.ev_24"},
		},
		"views in a circle": {
			want: []string{"public.circle2"},
			has:  []string{"circle1=v", "circle2=v"},
		},
		"materialized view without its table": {
			want: []string{"public.mv"},
			has:  []string{"mv=unfilled", "orders=0"},
			left: []string{"materialized view public.mv is not filled: it reads public.orders", "the rows of public.orders"},
		},
		"materialized view over another": {
			want: []string{"public.mv2", "public.orders"},
			has:  []string{"mv=1", "mv2=1", "orders=2000", "orders_id_seq=S"},
			left: []string{"foreign key orders_customer_fk", "publication"},
		},
		"materialized view with some partitions": {
			want: []string{"public.ev_mv", "public.ev_24"},
			has:  []string{"ev=p", "ev_24=1", "ev_mv=unfilled"},
			left: []string{"foreign key ev_fk", "materialized view public.ev_mv is not filled: it reads public.ev_23_1"},
		},
		"materialized view with all partitions": {
			want: []string{"public.ev_mv", "public.ev"},
			has:  []string{"ev=p", "ev_23=p", "ev_23_1=1", "ev_24=1", "ev_mv=1"},
			left: []string{"foreign key ev_fk"},
		},
		"default from a sequence":   {want: []string{"public.usesseq"}, has: []string{"standalone=S", "usesseq=0"}},
		"sequence":                  {want: []string{"public.standalone"}, has: []string{"standalone=S"}},
		"characters of patterns":    {want: []string{"public.a%b*?"}, has: []string{"a%b*?=1"}},
		"newline":                   {want: []string{"public.new\nline"}, has: []string{"new\nline=2"}},
		"capitals":                  {want: []string{"public.Twin"}, has: []string{"Twin=1"}},
		"case twins, rule on one":   {want: []string{"public.twin"}, has: []string{"Twin=0", "twin=3"}, left: []string{"the rows of public.Twin"}},
		"same name, other schema":   {want: []string{`odd "s.twin`}, has: []string{`odd "s.twin=0`}},
		"space in name, longer one": {want: []string{"public.a b"}, has: []string{"a b=0"}, left: []string{"foreign key a b_x_fkey of public.a b references public.a,"}},
		"space in name, short one":  {want: []string{"public.a"}, has: []string{"a=0"}},
		"inheritance child":         {want: []string{"public.heir"}, has: []string{"base=0", "heir=0"}, left: []string{"the rows of public.base"}},
		"inheritance parent":        {want: []string{"public.base"}, has: []string{"base=0"}},
		"no columns":                {want: []string{"public.nothing"}, has: []string{"nothing=0"}},
		"type of an extension":      {want: []string{"public.ci"}, has: []string{"ci=1"}},
		"nothing":                   {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := toc.Select(func(schema, table string) bool { return slices.Contains(test.want, schema+"."+table) })
			has := relationsIn(t, c, restoreSelected(t, c, toc, path, s))
			slices.Sort(has)
			slices.Sort(test.has)
			if !slices.Equal(has, test.has) {
				t.Errorf("got relations %q, want %q", has, test.has)
			}
			compareReasons(t, s.Left, append(test.left, "large objects"))
		})
	}
}

// compareReasons wants each text in exactly one reason.
func compareReasons(t *testing.T, left []LeftOut, texts []string) {
	t.Helper()
	for _, text := range texts {
		if !slices.ContainsFunc(left, func(l LeftOut) bool { return strings.Contains(l.Reason, text) }) {
			t.Errorf("no reason says %q", text)
		}
	}
	if len(left) != len(texts) {
		t.Errorf("got %d reasons, want %d: %v", len(left), len(texts), left)
	}
}

// What belongs to a table must come with it.
func TestSelectionBringsWhatBelongsToTheTable(t *testing.T) {
	c, db := zoo(t)
	path := dump(t, c, db, "-Fd")
	toc := open(t, path)
	s := toc.Select(func(_, table string) bool {
		return table == "orders" || table == "customers" || table == "ev_24" || table == "standalone"
	})
	got := restoreSelected(t, c, toc, path, s)
	for what, query := range map[string]string{
		"comment":       `select obj_description('orders'::regclass)`,
		"FK comment":    `select obj_description(oid) from pg_constraint where conname = 'orders_customer_fk'`,
		"privileges":    `select relacl::text from pg_class where relname = 'orders'`,
		"columns' ones": `select attacl::text from pg_attribute where attrelid = 'orders'::regclass and attname = 'c'`,
		"index":         `select pg_get_indexdef('orders_c'::regclass)`,
		"statistics":    `select pg_get_statisticsobjdef(oid) from pg_statistic_ext`,
		"policy":        `select polname || pg_get_expr(polqual, polrelid) || relrowsecurity from pg_policy join pg_class c on c.oid = polrelid`,
		"default":       `select pg_get_expr(adbin, adrelid) from pg_attrdef where adrelid = 'customers'::regclass`,
		"owned by":      `select pg_get_serial_sequence('customers', 'id')`,
		"value":         `select last_value::text from customers_id_seq`,
		"other value":   `select last_value::text from standalone`,
		"identity":      `select attidentity || (select last_value from orders_id_seq) from pg_attribute where attrelid = 'orders'::regclass and attname = 'id'`,
		"keys":          `select string_agg(conname || contype::text || convalidated, ',' order by conname) from pg_constraint where conrelid in ('orders'::regclass, 'customers'::regclass, 'ev'::regclass, 'ev_24'::regclass)`,
		"trigger":       `select string_agg(tgname, ',') from pg_trigger where tgrelid = 'ev_24'::regclass and not tgisinternal`,
		"attached":      `select pg_get_expr(relpartbound, oid) from pg_class where relname = 'ev_24'`,
		"valid indexes": `select string_agg(indexrelid::regclass::text || indisvalid, ',' order by indexrelid::regclass::text) from pg_index where indrelid in ('ev'::regclass, 'ev_24'::regclass)`,
	} {
		if g, w := c.QueryString(t, got, query), c.QueryString(t, db, query); g != w || w == "NULL" {
			t.Errorf("%s: got %s, want %s", what, g, w)
		}
	}
}

// An archive without definitions still knows its tables.
func TestSelectFromDataOnlyArchive(t *testing.T) {
	c, db := zoo(t)
	toc := open(t, dump(t, c, db, "-Fc", "-a"))
	s := toc.Select(func(_, table string) bool { return table == "orders" || table == "standalone" })
	var got []string
	for _, e := range toc.Entries {
		if slices.Contains(s.Entries, e.ID) {
			got = append(got, e.Desc+" "+e.Tag)
		}
	}
	want := []string{"ENCODING ENCODING", "STDSTRINGS STDSTRINGS", "SEARCHPATH SEARCHPATH", "TABLE DATA orders", "SEQUENCE SET standalone"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// pg_dump 13 and before attached a partition inside its definition.
func TestSelectFollowsInlineAttach(t *testing.T) {
	definition := "CREATE TABLE public.leaf (\n    x integer\n);\nALTER TABLE ONLY \"My\"\"s\".\"order\" ATTACH PARTITION public.leaf FOR VALUES IN (1);\n"
	toc := &TOC{Entries: []Entry{
		{ID: 1, Desc: "TABLE", Schema: `My"s`, Tag: "order"},
		{ID: 2, Desc: "TABLE", Schema: "public", Tag: "other"},
		{ID: 3, Desc: "TABLE", Schema: "public", Tag: "leaf", Dependencies: []int{2, 1}, parent: attachedTo(definition)},
		{ID: 4, Desc: "TABLE DATA", Schema: "public", Tag: "leaf", Section: Data, HasData: true, Dependencies: []int{3}},
	}}
	s := toc.Select(func(_, table string) bool { return table == "order" })
	if want := []int{1, 2, 3, 4}; !slices.Equal(s.Entries, want) {
		t.Errorf("got %v, want %v", s.Entries, want)
	}
}

// A hostile archive may go in circles.
func TestSelectEndsInACircle(t *testing.T) {
	toc := &TOC{Entries: []Entry{
		{ID: 1, Desc: "TABLE", Schema: "s", Tag: "a", Dependencies: []int{2, 1}},
		{ID: 2, Desc: "TABLE", Schema: "s", Tag: "b", Dependencies: []int{1}},
		{ID: 3, Desc: "TABLE ATTACH", Schema: "s", Tag: "a", Dependencies: []int{1, 2}},
		{ID: 4, Desc: "TABLE ATTACH", Schema: "s", Tag: "b", Dependencies: []int{2, 1}},
		{ID: 5, Desc: "MATERIALIZED VIEW", Schema: "s", Tag: "m", Dependencies: []int{5, 1}},
		{ID: 6, Desc: "MATERIALIZED VIEW DATA", Schema: "s", Tag: "m", Dependencies: []int{5, 6}},
		{ID: 7, Desc: "TABLE DATA", Schema: "s", Tag: "b", Section: Data, Dependencies: []int{2}},
	}}
	for _, table := range []string{"a", "b", "m"} {
		s := toc.Select(func(_, name string) bool { return name == table })
		if len(s.Entries) < 4 {
			t.Errorf("%s: got %v", table, s.Entries)
		}
	}
}

// The memory of a table of contents of 10,000 tables must leave room in a
// process of 64 MB.
func TestManyTablesTakeLittleMemory(t *testing.T) {
	var entries int
	measure := func(opts ...Option) uint64 {
		a := newArchiveWriter(16, 0)
		a.count = 2 * 10_000
		a.toc(0, 0)
		for id := 4; id <= a.count; id++ {
			a.entry(id, 1, "TABLE DATA", 3, 2, 1<<20, "1")
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		toc, err := Read(bytes.NewReader(a.buf.Bytes()), opts...)
		if err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		entries = len(toc.Entries)
		return after.HeapAlloc - min(after.HeapAlloc, before.HeapAlloc)
	}
	if got := measure(WithoutSQL()); got > 12<<20 || entries != 20_000 {
		t.Errorf("%d entries take %d bytes", entries, got)
	}
}
