package sqltext

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"dbbackup/internal/fault"
)

func split(t *testing.T, script string) ([]Statement, error) {
	t.Helper()
	var list []Statement
	err := Split(strings.NewReader(script), func(s Statement) error {
		list = append(list, s)
		return nil
	})
	return list, err
}

func TestSplit(t *testing.T) {
	for name, test := range map[string]struct {
		script string
		want   []string // kind, then body
	}{
		"nothing":            {"", nil},
		"only comments":      {"-- a;\n/* b; /* c; */ d; */ \n", []string{"blank:"}},
		"strings":            {`select 'a;''b;\'; select 2;`, []string{`SQL:select 'a;''b;\';`, "SQL:select 2;"}},
		"escapes":            {`select E'a\';b', e'\\'; select 2;`, []string{`SQL:select E'a\';b', e'\\';`, "SQL:select 2;"}},
		"E ends a word":      {`select namE'\'; x;`, []string{`SQL:select namE'\';`, "SQL:x;"}},
		"names":              {`select ";--""x;" from "/*"; y;`, []string{`SQL:select ";--""x;" from "/*";`, "SQL:y;"}},
		"dollars":            {"do $$ a; $x$ b; $$; do $é_1$ $$;$1$; $é_1$;", []string{"SQL:do $$ a; $x$ b; $$;", "SQL:do $é_1$ $$;$1$; $é_1$;"}},
		"dollar in a name":   {"select a$$b; c$$;", []string{"SQL:select a$$b;", "SQL:c$$;"}},
		"parameters":         {"select $1; select $2;", []string{"SQL:select $1;", "SQL:select $2;"}},
		"operators":          {"select 1 - 2 / 3; b;", []string{"SQL:select 1 - 2 / 3;", "SQL:b;"}},
		"rules":              {"create rule r as on insert to t do also (a; b;); c;", []string{"SQL:create rule r as on insert to t do also (a; b;);", "SQL:c;"}},
		"SQL bodies":         {"CREATE OR REPLACE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN b END; SELECT 2; END; c;", []string{"SQL:CREATE OR REPLACE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN b END; SELECT 2; END;", "SQL:c;"}},
		"begin is no body":   {"begin; select 1; end;", []string{"SQL:begin;", "SQL:select 1;", "SQL:end;"}},
		"meta lines":         {"\\restrict x;'\nselect 1;\n\\connect \"a;b\"\nselect 2;", []string{"meta command:\\restrict x;'\n", "SQL:select 1;", "meta command:\\connect \"a;b\"\n", "SQL:select 2;"}},
		"meta after comment": {"-- c\n\\unrestrict x", []string{"meta command:\\unrestrict x"}},
		"rows":               {"COPY a.t (x) FROM stdin;\n1;'\n\\.x\n\\\\.\n\\.\n\nselect 1;", []string{"SQL:COPY a.t (x) FROM stdin;\n", "rows:1;'\n\\.x\n\\\\.\n\\.\n", "SQL:select 1;"}},
		"no rows":            {"copy t from stdin with (format text);\n\\.\nx;", []string{"SQL:copy t from stdin with (format text);\n", "rows:\\.\n", "SQL:x;"}},
		"rows to the end":    {"copy t from stdin;\n\\.", []string{"SQL:copy t from stdin;\n", "rows:\\."}},
		"no copy":            {`comment on table "copy" is 'from stdin'; copy "from stdin" to stdout;`, []string{`SQL:comment on table "copy" is 'from stdin';`, `SQL:copy "from stdin" to stdout;`}},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := split(t, test.script)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			var whole strings.Builder
			for _, s := range list {
				got = append(got, s.Kind.String()+":"+s.Body())
				whole.WriteString(s.Text)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if whole.String() != test.script {
				t.Errorf("the pieces are %q, the script is %q", whole.String(), test.script)
			}
		})
	}
}

func TestSplitRefusesCutScripts(t *testing.T) {
	for name, test := range map[string]struct{ script, text string }{
		"statement":     {"select 1;\nselect 2", "statement that begins in line 1"},
		"string":        {"select 1;\n\n select 'a;", "statement"},
		"comment":       {"/* /* */", "statement"},
		"dollar":        {"do $a$ $$;", "statement"},
		"name":          {`select "a""`, "statement"},
		"rows":          {"\ncopy t from stdin;\n1\n2\n", "rows of a COPY that begin in line 3"},
		"half an end":   {"copy t from stdin;\n\\", "rows of a COPY"},
		"before rows":   {"copy t from stdin;", "statement"},
		"same line":     {"copy t from stdin; select 1;\n\\.\n", "text follows COPY"},
		"function body": {"create function f() begin atomic select 1;", "statement"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := split(t, test.script)
			if !fault.Is(err, fault.Integrity) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got error %v, want integrity, %q", err, test.text)
			}
		})
	}
}

func TestSplitCountsLines(t *testing.T) {
	list, err := split(t, "a\n;\nb;\ncopy t from stdin;\n1\n\\.\nc;\n")
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, s := range list {
		got = append(got, s.Line)
	}
	if want := []int{1, 2, 3, 5, 7, 7}; !slices.Equal(got, want) {
		t.Errorf("got lines %v, want %v", got, want)
	}
}

// Rows and statements beyond the window: the pieces must not depend on how the
// reader delivers them, and rows come in pieces that are bounded.
func TestSplitStreams(t *testing.T) {
	row := strings.Repeat("x", 300_000) + "\\.\n"
	script := "select '" + strings.Repeat("y''", 100_000) + "';\ncopy t from stdin;\n" + row + row + "\\.\nend;"
	for name, r := range map[string]io.Reader{
		"whole": strings.NewReader(script), "bytes": iotest.OneByteReader(strings.NewReader(script)),
	} {
		var got strings.Builder
		kinds := map[Kind]int{}
		err := Split(r, func(s Statement) error {
			kinds[s.Kind]++
			if s.Kind == Rows && len(s.Text) > 1<<20 {
				t.Errorf("%s: a piece of %d bytes", name, len(s.Text))
			}
			got.WriteString(s.Text)
			return nil
		})
		if err != nil || got.String() != script {
			t.Errorf("%s: got error %v, and the same text: %v", name, err, got.String() == script)
		}
		if kinds[SQL] != 3 || kinds[Rows] < 1 {
			t.Errorf("%s: got %v", name, kinds)
		}
	}
}

func TestSplitBoundsAStatement(t *testing.T) {
	endless := io.MultiReader(strings.NewReader("select '"), zeros{})
	err := Split(endless, func(Statement) error { return nil })
	if !fault.Is(err, fault.Integrity) || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got error %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestSplitReturnsErrors(t *testing.T) {
	broken := errors.New("broken")
	if err := Split(iotest.ErrReader(broken), func(Statement) error { return nil }); !errors.Is(err, broken) {
		t.Errorf("got error %v of the reader", err)
	}
	if err := Split(strings.NewReader("a;"), func(Statement) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got error %v of the function", err)
	}
}

func FuzzSplit(f *testing.F) {
	for _, seed := range []string{
		"select 'a;'';' ; -- x\n", "copy t from stdin;\n1\n\\.\n\\restrict a\n", "do $a$ ; $a$;/* /* */ */",
		"create function f() begin atomic case; end; end;", "E'\\';'\";\"", "\\", "$", "-", "/", "copy a from stdin;\n\\", "(;);",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, script string) {
		for _, r := range []io.Reader{strings.NewReader(script), iotest.OneByteReader(strings.NewReader(script))} {
			var whole strings.Builder
			err := Split(r, func(s Statement) error {
				whole.WriteString(s.Text)
				if s.Kind == SQL {
					MapRoles(s.Text, map[string]string{"a": "b"})
					parseGlobal(s.Body())
				}
				return nil
			})
			if !strings.HasPrefix(script, whole.String()) || err == nil && whole.Len() != len(script) {
				t.Errorf("got pieces %q of %q, error %v", whole.String(), script, err)
			}
		}
		if same, changed := MapRoles(script, nil); changed || same != script {
			t.Errorf("changed %q without a mapping", script)
		}
	})
}
