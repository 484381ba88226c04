package pgarchive

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dbbackup/internal/fault"
)

// Both formats must list what pg_restore -l lists, in its order.
func TestOpenListsWhatPgRestoreLists(t *testing.T) {
	c, db := zoo(t)
	for name, format := range map[string]Format{"-Fc": Custom, "-Fd": Directory} {
		t.Run(name, func(t *testing.T) {
			path := dump(t, c, db, name)
			toc := open(t, path)
			if toc.Format != format || toc.ArchiveVersion != "1.14" || toc.Compression != "gzip" || toc.Database != db {
				t.Errorf("got header %v %s %s %q", toc.Format, toc.ArchiveVersion, toc.Compression, toc.Database)
			}
			if !strings.HasPrefix(toc.DumpVersion, "15.") || !strings.HasPrefix(toc.ServerVersion, "15.") {
				t.Errorf("got versions %q, %q", toc.DumpVersion, toc.ServerVersion)
			}
			if age := time.Since(toc.Created); age < 0 || age > time.Hour {
				t.Errorf("created %v ago", age)
			}
			var ids []int
			for i := range toc.Entries {
				ids = append(ids, toc.Entries[i].ID)
			}
			var got strings.Builder
			if err := toc.WriteList(&got, ids); err != nil {
				t.Fatal(err)
			}
			listed := pgTool(t, c, "pg_restore", "-l", "-v", path)
			want := regexp.MustCompile(`(?m)^;.*\n`).ReplaceAllString(listed, "")
			if got.String() != want {
				t.Errorf("got list\n%s\nwant\n%s", got.String(), want)
			}
			compareDependencies(t, toc, listed)
		})
	}
}

func TestOpenWithoutSQLKeepsTheRest(t *testing.T) {
	c, db := zoo(t)
	path := dump(t, c, db, "-Fc")
	full, lean := open(t, path), open(t, path, WithoutSQL())
	if len(full.Entries) != len(lean.Entries) || len(full.Entries) == 0 {
		t.Fatalf("got %d entries with and %d without SQL", len(full.Entries), len(lean.Entries))
	}
	if def := find(t, full, "TABLE", "public", "orders").Definition; !strings.HasPrefix(def, "CREATE TABLE public.orders") {
		t.Errorf("got definition %q", def)
	}
	if stmt := find(t, full, "TABLE DATA", "public", "orders").CopyStatement; stmt != "COPY public.orders (id, c, note) FROM stdin;\n" {
		t.Errorf("got copy statement %q", stmt)
	}
	for i, e := range full.Entries {
		e.Definition, e.DropStatement, e.CopyStatement = "", "", ""
		if !reflect.DeepEqual(e, lean.Entries[i]) {
			t.Errorf("got %+v without SQL, want %+v", lean.Entries[i], e)
		}
	}
}

func TestListings(t *testing.T) {
	c, db := zoo(t)
	toc := open(t, dump(t, c, db, "-Fc"))
	for name, got := range map[string][]string{
		"roles":       toc.Roles(),
		"tablespaces": toc.Tablespaces(),
		"extensions":  toc.Extensions(),
		"schemas":     toc.Schemas(),
	} {
		want := map[string][]string{
			"roles": {c.User}, "extensions": {"citext"}, "schemas": {`odd "s`, "types"},
		}[name]
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	var names []string
	for _, e := range toc.Tables() {
		names = append(names, e.Name())
	}
	want := c.QueryString(t, db, `select string_agg(relnamespace::regnamespace || '.' || relname, '|' order by relname, 1)
		from pg_class where relkind in ('r', 'p') and relnamespace in (select oid from pg_namespace where nspname !~ '^(pg_|information)')`)
	slices.Sort(names)
	wanted := strings.Split(strings.ReplaceAll(want, `"odd ""s"`, `odd "s`), "|")
	slices.Sort(wanted)
	if !slices.Equal(names, wanted) {
		t.Errorf("got tables %q, want %q", names, wanted)
	}
}

func TestOpenRefusesWhatIsNoArchive(t *testing.T) {
	c, db := zoo(t)
	archive := dump(t, c, db, "-Fc")
	head, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	newer := slices.Clone(head)
	newer[6] = 17
	folder := dump(t, c, db, "-Fd")
	toc, err := os.ReadFile(filepath.Join(folder, "toc.dat"))
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		content []byte
		kind    fault.Kind
		text    string
	}{
		"empty":         {nil, fault.Integrity, "does not begin with PGDMP"},
		"text":          {[]byte("hello, world"), fault.Integrity, "does not begin with PGDMP"},
		"plain dump":    {[]byte("--\n-- PostgreSQL database dump\n--\n"), fault.Integrity, "plain SQL dump"},
		"magic only":    {head[:5], fault.Integrity, "ends at byte 5"},
		"newer version": {newer, fault.Precondition, "archive version 1.17"},
		"cut":           {head[:2000], fault.Integrity, "ends at byte"},
		"a folder's":    {toc, fault.Integrity, "that of a directory format archive"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			if err := os.WriteFile(path, test.content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path)
			mustContain(t, err, path, test.text)
			if !fault.Is(err, test.kind) {
				t.Errorf("got kind %v, want %v", fault.KindOf(err), test.kind)
			}
		})
	}
	_, err = Open(t.TempDir())
	mustContain(t, err, "no toc.dat")
}

// The memory limit must stop a table of contents that is too large for it.
func TestReadHoldsItsMemoryLimit(t *testing.T) {
	c, db := zoo(t)
	path := dump(t, c, db, "-Fc")
	_, err := Open(path, WithMemoryLimit(20_000))
	mustContain(t, err, "more than 20000 bytes of memory")
	if !fault.Is(err, fault.Integrity) {
		t.Errorf("got kind %v", fault.KindOf(err))
	}
}

func TestRunsByTablespace(t *testing.T) {
	place := func(id int, space string) Entry { return Entry{ID: id, Tablespace: space, placed: true} }
	toc := &TOC{Entries: []Entry{{ID: 1}, place(2, "fast"), {ID: 3}, place(4, "quick"), place(5, ""), {ID: 6}, place(7, "slow"), place(8, "")}}
	for name, test := range map[string]struct {
		ids     []int
		mapping map[string]string
		want    []Run
	}{
		"as they are": {[]int{1, 2, 3, 4, 5, 6, 7, 8}, nil, []Run{
			{"fast", []int{1, 2, 3}}, {"quick", []int{4}}, {"", []int{5, 6}}, {"slow", []int{7}}, {"", []int{8}}}},
		"two become one": {[]int{8, 4, 2, 1}, map[string]string{"quick": "fast"}, []Run{{"fast", []int{1, 2, 4}}, {"", []int{8}}}},
		"all to default": {[]int{2, 4, 5, 7}, map[string]string{"fast": "", "quick": "", "slow": ""}, []Run{{"", []int{2, 4, 5, 7}}}},
		"none":           {[]int{1, 3}, nil, []Run{{"", []int{1, 3}}}},
		"nothing":        {nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := toc.RunsByTablespace(test.ids, test.mapping); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// compareDependencies reads the lines "; depends on: 1 2" after an entry's own.
func compareDependencies(t *testing.T, toc *TOC, listed string) {
	t.Helper()
	want := map[int][]int{}
	id := 0
	for line := range strings.Lines(listed) {
		if _, deps, found := strings.Cut(line, "depends on: "); found {
			for _, dep := range strings.Fields(deps) {
				n, _ := strconv.Atoi(dep)
				want[id] = append(want[id], n)
			}
		} else if number, _, found := strings.Cut(line, "; "); found {
			id, _ = strconv.Atoi(number)
		}
	}
	if len(want) == 0 {
		t.Fatal("pg_restore lists no dependencies")
	}
	for i := range toc.Entries {
		if e := &toc.Entries[i]; !slices.Equal(e.Dependencies, want[e.ID]) {
			t.Errorf("%s: got dependencies %v, want %v", e, e.Dependencies, want[e.ID])
		}
	}
}

func TestOnlyDataKeepsWhatCompleteNeeds(t *testing.T) {
	c, db := zoo(t)
	for _, format := range []string{"-Fc", "-Fd"} {
		path := dump(t, c, db, format)
		all, some := open(t, path, WithoutSQL()), open(t, path, WithoutSQL(), OnlyData())
		want := 0
		for i := range all.Entries {
			if all.Entries[i].HasData {
				want++
			}
		}
		if len(some.Entries) != want || want == 0 || want == len(all.Entries) {
			t.Errorf("%s: kept %d entries of %d, want the %d with data", format, len(some.Entries), len(all.Entries), want)
		}
		if err := some.Complete(size(t, path)); err != nil {
			t.Errorf("%s is whole: Complete says %v", format, err)
		}
		if some.Format == Custom && some.Complete(some.Entries[want-1].Offset) == nil {
			t.Error("cut before its last data block: Complete does not notice")
		}
	}
}
