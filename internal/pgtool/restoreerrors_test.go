package pgtool

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The texts are those of PostgreSQL 15.18.
func TestParseRestoreErrors(t *testing.T) {
	const (
		exists     = `relation "t1" already exists`
		noRole     = `role "no such" does not exist`
		duplicate  = `duplicate key value violates unique constraint "t1_pkey" (Key (id)=(1) already exists.)`
		primaryKey = `multiple primary keys for table "t1" are not allowed`
		noDatabase = `connection to server on socket "/run/postgresql/.s.PGSQL.5999" failed: FATAL:  database "nodb" does not exist`
	)
	named := []ObjectError{
		{"TABLE t1", exists},
		{"TABLE two words no", noRole}, // where the owner begins cannot be told
		{"TABLE DATA t1", duplicate},
		{"CONSTRAINT t1 t1_pkey", primaryKey},
	}
	tests := []struct {
		file string
		want []ObjectError
	}{
		{"restore.txt", []ObjectError{
			{"CREATE TABLE public.t1", exists},
			{`ALTER TABLE public."two words" OWNER TO "no such"`, noRole},
			{`TABLE DATA "t1"`, duplicate},
			{"ALTER TABLE ONLY public.t1", primaryKey},
		}},
		{"restore-verbose.txt", named},
		{"restore-parallel.txt", named},
		{"restore-connect.txt", []ObjectError{{"", noDatabase}}},
		{"psql-stdin.txt", []ObjectError{
			{"<stdin>:27", `function "f" already exists with same argument types`},
			{"<stdin>:42", `relation "Odd Name" already exists`},
			{"<stdin>:54", exists},
			{"<stdin>:66", `relation "v1" already exists`},
			{"<stdin>:86", duplicate},
			{"<stdin>:94", primaryKey},
			{"<stdin>:102", `constraint "Odd Name_id_fkey" for relation "Odd Name" already exists`},
		}},
		{"psql-plain.txt", []ObjectError{
			{"", `function "f" already exists with same argument types`},
			{"", `relation "Odd Name" already exists`},
			{"", exists},
			{"", `relation "v1" already exists`},
			{"", duplicate},
			{"", primaryKey},
			{"", `constraint "Odd Name_id_fkey" for relation "Odd Name" already exists`},
		}},
		{"psql-connect.txt", []ObjectError{{"", noDatabase}}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("testdata", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			got := ParseRestoreErrors(string(text))
			if !slices.Equal(got, tt.want) {
				t.Errorf("got:\n%v\nwant:\n%v", got, tt.want)
			}
		})
	}
}

func FuzzParseRestoreErrors(f *testing.F) {
	f.Add("pg_restore: from TOC entry 1; 2 3 TABLE a b\npg_restore: error: x\nDETAIL:  y\nCommand was: z")
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range ParseRestoreErrors(text) {
			_ = e.String()
		}
	})
}
