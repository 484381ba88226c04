package retention

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/report"
	"dbbackup/internal/store/dir"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// writeSet writes a set of one database, captured so many days before noon.
func writeSet(t *testing.T, st *dir.Dir, days int, change func(m *backupset.Manifest)) (id string) {
	t.Helper()
	at := noon.AddDate(0, 0, -days)
	id = backupset.NewID("app", at, nil)
	w, err := backupset.Create(t.Context(), st, id)
	must(t, err)
	for _, name := range []string{"databases/app.sql.gz", "databases/app.properties.json", "databases/app.create.sql"} {
		must(t, w.WriteFile(t.Context(), name, []byte("x")))
	}
	m := backupset.Manifest{
		Kind: backupset.Single, Tool: backupset.Tool{Name: "dbbackup", Version: "1.0.0"}, Started: at.Add(-time.Minute), Finished: at,
		Server: backupset.Server{Host: "db1.example", Port: 5432, Version: "15.18", VersionNum: 150018, SystemIdentifier: "7300000000000000001"},
		Databases: []backupset.Database{{
			Name: "app", Mode: backupset.Plain, Dump: "databases/app.sql.gz", Properties: "databases/app.properties.json",
			Create: "databases/app.create.sql", DatabaseBytes: 1000, Started: at.Add(-time.Minute), Finished: at,
		}},
	}
	change(&m)
	must(t, w.Commit(t.Context(), m))
	return id
}

// What only has the name of a database takes no place of it: some tables, or a
// database of another server.
func TestPruneTellsDatabasesApart(t *testing.T) {
	whole := func(*backupset.Manifest) {}
	other := func(identifier, host string) func(m *backupset.Manifest) {
		return func(m *backupset.Manifest) { m.Server.SystemIdentifier, m.Server.Host = identifier, host }
	}
	for name, tt := range map[string]struct {
		newer, older func(m *backupset.Manifest)
		goes         bool
	}{
		"the same": {whole, whole, true},
		"some tables": {func(m *backupset.Manifest) {
			m.Databases[0].Selection = &backupset.Selection{Tables: []string{"t"}, Selected: []string{"public.t"}}
		}, whole, false},
		"without some data": {func(m *backupset.Manifest) {
			m.Databases[0].Selection = &backupset.Selection{ExcludeTables: []string{"t"}, Selected: []string{"public.t"}}
		}, whole, true},
		"another server":              {other("7300000000000000002", "db1.example"), whole, false},
		"the same server, moved":      {other("7300000000000000001", "db2.example"), whole, true},
		"another one, by its address": {other("", "db1.example"), other("", "db2.example"), false},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := dir.Open(filepath.Join(t.TempDir(), "store"), true)
			must(t, err)
			defer st.Close() //nolint:errcheck // everything was synced by then
			older := writeSet(t, st, 2, tt.older)
			newer := writeSet(t, st, 1, tt.newer)
			_, err = Prune(t.Context(), Options{
				Store: st, Policy: Policy{Last: 1}, Report: report.Discard{}, Now: noon,
				Verify: func(context.Context, *backupset.Set) error { return nil },
			})
			must(t, err)
			left, err := backupset.ListFolders(t.Context(), st)
			must(t, err)
			want := []string{older, newer}
			if tt.goes {
				want = want[1:]
			}
			if !slices.Equal(left.IDs, want) {
				t.Errorf("left: %q, want %q", left.IDs, want)
			}
		})
	}
}
