package pgname

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var oddNames = []string{"app", "", ".", "..", "../../x", "-Fp", "a/b", "%41", "é", "\xff\xfe", "a\x00b", "x.", "CON", `"quoted"`, "100%", strings.Repeat("ü", 31)}

// A name's file stays in its folder, is no option and leads back to the name.
func FuzzFile(f *testing.F) {
	for _, name := range oddNames {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		file := File(name)
		if name == "" {
			return // no database is called so
		}
		if back, err := url.PathUnescape(file); err != nil || back != name {
			t.Fatalf("File(%q) = %q, which leads back to %q, %v", name, file, back, err)
		}
		if filepath.Base(file+".dump") != file+".dump" || !filepath.IsLocal(file) || file[0] == '-' || file[0] == '.' || strings.ContainsAny(file, "/\\\n\x00 ") {
			t.Fatalf("File(%q) = %q is no plain file name", name, file)
		}
		if len(name) <= 63 && len(file) > 200 {
			t.Fatalf("File(%q) has %d bytes", name, len(file))
		}
	})
}

// A pattern finds the name that it spells, ends in bounded time, and never
// matches more than * would.
func FuzzPattern(f *testing.F) {
	for _, name := range oddNames {
		f.Add(name, "public", name)
	}
	f.Add("*a*a*a*a*a*a*a*a*b", strings.Repeat("a", 60), strings.Repeat("a", 63))
	f.Fuzz(func(t *testing.T, pattern, schema, name string) {
		began := time.Now()
		tables := []Table{{schema, name}, {schema, name + "x"}, {"other", name}}
		chosen, err := Patterns([]string{pattern}).ChooseTables(tables)
		if (len(chosen) > 0) != (err == nil) {
			t.Fatalf("pattern %q of %q: %v, %v", pattern, tables, chosen, err)
		}
		for _, exact := range []string{tables[0].String(), Ident(schema) + "." + name} {
			found, err := Patterns([]string{exact}).ChooseTables(tables)
			if err != nil || !slices.Contains(found, tables[0]) {
				t.Fatalf("%q is not found by its own name %s: %v, %v", tables[0], exact, found, err)
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("pattern %q took %s", pattern, took)
		}
	})
}

// Quoting never lets a name end early: within the quotes every quote is double.
func FuzzQuoting(f *testing.F) {
	for _, name := range append(oddNames, `'; DROP TABLE x; --`, `\'`, `"; --`) {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		ident := Ident(name)
		inner := strings.ReplaceAll(ident[1:len(ident)-1], `""`, "")
		if strings.Contains(inner, `"`) {
			t.Fatalf("Ident(%q) = %s", name, ident)
		}
		literal := strings.TrimPrefix(Literal(name), " E")
		inner = strings.ReplaceAll(literal[1:len(literal)-1], `''`, "")
		if strings.Contains(inner, "'") {
			t.Fatalf("Literal(%q) = %s", name, literal)
		}
		if strings.ContainsAny(fmt.Sprint(Printable(name)), "\n\r\x00") {
			t.Fatalf("Printable(%q) has more than one line", name)
		}
	})
}
