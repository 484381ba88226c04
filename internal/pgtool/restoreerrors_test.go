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
		{Object: "TABLE t1", Message: exists},
		{Object: "TABLE two words no", Message: noRole}, // where the owner begins cannot be told
		{Object: "TABLE DATA t1", Message: duplicate},
		{Object: "CONSTRAINT t1 t1_pkey", Message: primaryKey},
	}
	tests := []struct {
		file string
		want []ObjectError
	}{
		{"restore.txt", []ObjectError{
			{Object: "CREATE TABLE public.t1", Message: exists},
			{Object: `ALTER TABLE public."two words" OWNER TO "no such"`, Message: noRole},
			{Object: `TABLE DATA "t1"`, Message: duplicate},
			{Object: "ALTER TABLE ONLY public.t1", Message: primaryKey},
		}},
		{"restore-verbose.txt", named},
		{"restore-parallel.txt", named},
		{"restore-connect.txt", []ObjectError{{Object: "", Message: noDatabase}}},
		{"psql-stdin.txt", []ObjectError{
			{Object: "<stdin>:27", Message: `function "f" already exists with same argument types`},
			{Object: "<stdin>:42", Message: `relation "Odd Name" already exists`},
			{Object: "<stdin>:54", Message: exists},
			{Object: "<stdin>:66", Message: `relation "v1" already exists`},
			{Object: "<stdin>:86", Message: duplicate},
			{Object: "<stdin>:94", Message: primaryKey},
			{Object: "<stdin>:102", Message: `constraint "Odd Name_id_fkey" for relation "Odd Name" already exists`},
		}},
		{"psql-plain.txt", []ObjectError{
			{Object: "", Message: `function "f" already exists with same argument types`},
			{Object: "", Message: `relation "Odd Name" already exists`},
			{Object: "", Message: exists},
			{Object: "", Message: `relation "v1" already exists`},
			{Object: "", Message: duplicate},
			{Object: "", Message: primaryKey},
			{Object: "", Message: `constraint "Odd Name_id_fkey" for relation "Odd Name" already exists`},
		}},
		{"psql-connect.txt", []ObjectError{{Object: "", Message: noDatabase}}},
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
