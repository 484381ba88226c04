package main

import (
	"strings"
	"testing"
)

// A database without the data of excluded tables comes back whole, those
// tables empty: with what belongs to no table, and as the latest set.
func TestExcludedTablesComeBackEmptyAndAllElseWhole(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, `CREATE TABLE kept AS SELECT 1 AS a; CREATE SCHEMA audit; CREATE TABLE audit.log AS SELECT generate_series(1, 100) AS b;
		CREATE FUNCTION lonely() RETURNS int LANGUAGE sql AS 'SELECT 42'; SELECT lo_from_bytea(4711, 'large');
		CREATE PUBLICATION news FOR TABLE kept WITH (publish = 'insert')`)
	eachMode(t, func(t *testing.T, mode string) {
		store := newStore(t)
		dbbackup(t, c.Env(), "backup", "single", db, "--mode", mode, "--exclude-table", "audit.*", "--store", store).want(t, exitOK)
		show := inProcess(t, nil, "show", "latest", "--store", store).must(t, exitOK)
		if !strings.Contains(show.stdout, "WITHOUT the data of audit.*") || !strings.Contains(show.stdout, "data of 1 table") {
			t.Errorf("show: got %s, want what was excluded", show.stdout)
		}
		to := c.FreeName(t)
		dbbackup(t, c.Env(), "restore", "single", db, "--target-db", to, "--store", store).want(t, exitOK, "without the data of some tables")
		for sql, want := range map[string]string{
			"SELECT sum(a)::text FROM kept":                       "1",
			"SELECT count(*)::text FROM audit.log":                "0",
			"SELECT lonely()::text":                               "42",
			"SELECT convert_from(lo_get(4711), 'UTF8')":           "large",
			"SELECT string_agg(pubname, ' ') FROM pg_publication": "news",
		} {
			if got := c.QueryString(t, to, sql); got != want {
				t.Errorf("%s: got %q, want %q", sql, got, want)
			}
		}
	})
}
