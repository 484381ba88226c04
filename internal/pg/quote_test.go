package pg

import (
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// Names and strings reach a database in its own encoding, whatever they hold.
func TestQuoteForEncodings(t *testing.T) {
	c := shared.Cluster(t)
	plain := []string{"x", `a"b`, `a\b`, `it's`, `\`, `"`, `U&"x"`, "a\nb", "%s", `\0041`, `\+000041`, "a b", "--", "Ab"}
	for encoding, more := range map[string][]string{
		"UTF8":      {"größe", "日本", "😀", `ü\"'`},
		"LATIN1":    {"größe", "é", `ü\"'`, `é\`, `\\é`, `'é'''`, `"é""`},
		"LATIN9":    {"€uro", "Š"},
		"WIN1251":   {"имя", `и"м\я'`},
		"EUC_JP":    {"日本"},
		"SQL_ASCII": {"größe", "日本"},
	} {
		t.Run(encoding, func(t *testing.T) {
			db := "quote_" + strings.ToLower(encoding)
			c.Exec(t, "postgres", "CREATE DATABASE "+db+" TEMPLATE template0 LOCALE 'C' ENCODING '"+encoding+"'")
			t.Cleanup(func() { c.DropDatabase(t, db) })
			s := stream(t, c, db)
			if s.Encoding() != encoding {
				t.Fatalf("encoding %s", s.Encoding())
			}
			check := connect(t, resolve(t, paramsOf(c)), db)
			for _, text := range append(more, plain...) {
				name := s.Quote(text)
				if err := s.Exec(t.Context(), "make", "CREATE TABLE public."+name+" AS SELECT "+LiteralFor(encoding, text)+"::text AS "+name); err != nil {
					t.Errorf("%q: %v", text, err)
					continue
				}
				got, err := check.strings(t.Context(), "read", "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")
				if err != nil || len(got) != 1 || got[0] != text {
					t.Errorf("table %q is called %q, %v", text, got, err)
				}
				got, err = check.strings(t.Context(), "read", "SELECT "+pgtest.Quote(text)+" FROM public."+pgtest.Quote(text))
				if err != nil || len(got) != 1 || got[0] != text {
					t.Errorf("string %q became %q, %v", text, got, err)
				}
				if err := s.Exec(t.Context(), "drop", "DROP TABLE public."+name); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestParseLSN(t *testing.T) {
	for text, want := range map[string]uint64{
		"0/0": 0, "0/1A2B3C4": 0x1a2b3c4, "16/B374D848": 0x16_b374d848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1, "1/0": 1 << 32,
		"": 0, "x": 0, "1": 0, "1/": 0, "/1": 0, "1/2/3": 0, "1/100000000": 0, "-1/1": 0,
	} {
		if got := ParseLSN(text); got != want {
			t.Errorf("ParseLSN(%q) = %x, want %x", text, got, want)
		}
	}
}
