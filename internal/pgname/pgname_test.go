package pgname

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFileKeepsPlainNamesAndSeparatesAll(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"app", "app"},
		{"app_v1.2-x", "app_v1.2-x"},
		{"../../x", "%2E.%2F..%2Fx"},
		{".hidden", "%2Ehidden"},
		{"-Fp", "%2DFp"},
		{"a=b", "a%3Db"},
		{"a%b", "a%25b"},
		{"x.", "x%2E"},
		{"new\nline", "new%0Aline"},
		{"é", "%C3%A9"},
	} {
		if got := File(tt.name); got != tt.want {
			t.Errorf("File(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		if a != b && File(a) == File(b) {
			t.Fatalf("File(%q) = File(%q) = %q", a, b, File(a))
		}
		if f := File(a); strings.ContainsAny(f, "/\\\n\x00 ") || strings.HasPrefix(f, ".") || strings.HasPrefix(f, "-") {
			t.Fatalf("File(%q) = %q is not safe", a, f)
		}
	})
}

func TestLiteral(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"a", "'a'"}, {"it's", "'it''s'"}, {`a\b`, ` E'a\\b'`}, {`\'`, ` E'\\'''`},
	} {
		if got := Literal(tt.in); got != tt.want {
			t.Errorf("Literal(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestChooseTables(t *testing.T) {
	all := []Table{
		{"public", "orders"}, {"public", "Orders"}, {"public", "orders_2026"}, {"audit", "orders"},
		{"public", "50%*"}, {"public", "50%x"}, {"a.b", "c"}, {"a", "b.c"}, {"public", `q"t`},
	}
	for _, tt := range []struct {
		pattern string
		want    []Table
	}{
		{"orders", []Table{{"public", "orders"}, {"audit", "orders"}}},
		{"public.orders", []Table{{"public", "orders"}}},
		{"Orders", []Table{{"public", "Orders"}}},
		{"orders*", []Table{{"public", "orders"}, {"public", "orders_2026"}, {"audit", "orders"}}},
		{"audit.*", []Table{{"audit", "orders"}}},
		{"50%*", []Table{{"public", "50%*"}}},
		{"50%?", []Table{{"public", "50%*"}, {"public", "50%x"}}},
		{`"public"."orders"`, []Table{{"public", "orders"}}},
		{`"a.b".c`, []Table{{"a.b", "c"}}},
		{`a.b.c`, []Table{{"a.b", "c"}, {"a", "b.c"}}},
		{`"q""t"`, []Table{{"public", `q"t`}}},
	} {
		got, err := Patterns([]string{tt.pattern}).ChooseTables(all)
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("ChooseTables(%q) = %v, %v, want %v", tt.pattern, got, err, tt.want)
		}
	}
}

func TestChooseRefusesWhatSelectsNothing(t *testing.T) {
	_, err := Patterns([]string{"app", "ap_"}).ChooseNames([]string{"app", "appx"})
	if err == nil || !strings.Contains(err.Error(), `"ap_"`) {
		t.Errorf("a pattern that matches nothing: got error %v, want one that quotes it", err)
	}
	got, err := Patterns([]string{"app?"}).ChooseNames([]string{"app", "appx", "APPX"})
	if err != nil || !slices.Equal(got, []string{"appx"}) {
		t.Errorf("app? = %v, %v", got, err)
	}
}

func TestPrintable(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"app", "app"}, {"two words", "two words"}, {"a\nb", `"a\nb"`}, {"", `""`}, {" x", `" x"`}, {"\x1b[31m", `"\x1b[31m"`},
	} {
		if got := Printable(tt.in); got != tt.want {
			t.Errorf("Printable(%q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestMatchReturnsIdlePatterns(t *testing.T) {
	chosen, idle := Patterns([]string{"app*", "nosuch", "x?"}).MatchNames([]string{"app1", "b", "app2"})
	if want := []string{"app1", "app2"}; !slices.Equal(chosen, want) {
		t.Errorf("chosen: got %q, want %q", chosen, want)
	}
	if want := []Pattern{"nosuch", "x?"}; !slices.Equal(idle, want) {
		t.Errorf("idle: got %q, want %q", idle, want)
	}
}
