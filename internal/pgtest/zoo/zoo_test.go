package zoo_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

var shared pgtest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

func TestRoundTripWithPostgreSQLsOwnTools(t *testing.T) {
	a, b := shared.Cluster(t), shared.Start(t)
	db := a.Database(t)
	zoo.Load(t, a, db)
	zoo.LoadGlobals(t, b)
	zoo.Reference(t, a, db, b)
	zoo.Compare(t, a, db, b, db)
}

// Runs from the oldest version into each newer one, where PGTEST_BIN or this
// machine has several.
func TestRoundTripIntoANewerVersion(t *testing.T) {
	var majors []int
	for major := 13; major <= 18; major++ {
		if _, err := pgtest.FindBinDir(major); err == nil {
			majors = append(majors, major)
		}
	}
	if len(majors) < 2 {
		t.Skip("there is one version of PostgreSQL only")
	}
	a := shared.Start(t, pgtest.WithMajor(majors[0]))
	db := a.Database(t)
	zoo.Load(t, a, db)
	for _, major := range majors[1:] {
		b := shared.Start(t, pgtest.WithMajor(major))
		zoo.LoadGlobals(t, b)
		zoo.Reference(t, a, db, b)
		zoo.Compare(t, a, db, b, db)
	}
}

func TestCompareFindsPlantedDifferences(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	zoo.Load(t, c, db)
	tests := []struct{ name, sql, want string }{
		{"changed row", `UPDATE zoo.tree SET up = 2 WHERE id = 4`, "rows of ONLY zoo.tree"},
		{"lost row", `DELETE FROM zoo.secured WHERE tenant = 'other' AND v = 1`, "rows of ONLY zoo.secured"},
		{"doubled row", `INSERT INTO zoo.no_columns SELECT`, "rows of ONLY zoo.no_columns"},
		{"swapped values", `UPDATE zoo.hashed_0 SET v = 'x' || v`, "rows of ONLY zoo.hashed_0"},
		{"unlogged row", `DELETE FROM zoo.unlogged WHERE a = 1`, "rows of ONLY zoo.unlogged"},
		{"row under a hashed enum", `DELETE FROM zoo.hashed_enum WHERE v = 1`, "rows of zoo.hashed_enum"},
		{"last digit of a float", `UPDATE zoo.every_type SET f8 = 0.3 WHERE id = 3`, "rows of ONLY zoo.every_type"},
		{"null for empty", `UPDATE zoo.generated SET c = '' WHERE c IS NULL`, "rows of ONLY zoo.generated"},
		{"missing index", `DROP INDEX zoo.ix_gin`, "INDEX zoo.ix_gin"},
		{"sequence", `SELECT nextval('zoo.never_called')`, "sequence zoo.never_called"},
		{"large object's byte", `SELECT lo_put(500007, 3, '\x00')`, "large object 500007"},
		{"large object lost", `SELECT lo_unlink(500500)`, "large object 500500"},
		{"large object's owner", `ALTER LARGE OBJECT 500001 OWNER TO zoo_writer`, "large object 500001"},
		{"large object's privileges", `REVOKE ALL ON LARGE OBJECT 500005 FROM zoo_reader`, "large object 500005"},
		{"large object's comment", `COMMENT ON LARGE OBJECT 500011 IS NULL`, "large object 500011"},
		{"comment", `COMMENT ON TABLE zoo.every_type IS NULL`, "COMMENT zoo.TABLE every_type"},
		{"column privilege", `REVOKE SELECT (a) ON zoo.granted FROM zoo_writer`, "ACL zoo.COLUMN granted.a"},
		{"owner", `ALTER TABLE zoo.no_rows OWNER TO zoo_owner`, "TABLE zoo.no_rows"},
		{"tablespace", `ALTER INDEX zoo.spaced_b SET TABLESPACE pg_default`, "INDEX zoo.spaced_b"},
		{"constraint that is not valid", `ALTER TABLE zoo.default_calls ADD CONSTRAINT added CHECK (v > 0) NOT VALID`, "CHECK CONSTRAINT zoo.default_calls added"},
		{"enabled trigger", `ALTER TABLE zoo.audited ENABLE TRIGGER e_disabled`, "TRIGGER zoo.audited e_disabled"},
		{"populated view", `REFRESH MATERIALIZED VIEW zoo.mv_empty`, "populated zoo.mv_empty"},
		{"row behind a view", `DELETE FROM zoo.indexed WHERE id = 1`, "rows of ONLY zoo.indexed"},
		{"view's content", `REFRESH MATERIALIZED VIEW zoo.mv_base`, "rows of ONLY zoo.mv_base"},
		{"database's setting", `ALTER DATABASE %db SET work_mem = '10MB'`, "setting of -"},
		{"role's setting in it", `ALTER ROLE zoo_reader IN DATABASE %db RESET statement_timeout`, "setting of zoo_reader"},
		{"database's privileges", `REVOKE CREATE ON DATABASE %db FROM zoo_writer`, "database privileges"},
		{"database's comment", `COMMENT ON DATABASE %db IS NULL`, "database comment"},
		{"hostile table's row", `DELETE FROM "Zoo"."t*"`, `rows of ONLY "Zoo"."t*"`},
		{"invalid index", `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'zoo.ix_hash'::regclass`, "index state zoo.ix_hash"},
	}
	changed := copyDatabase(t, c, db)
	if differences := diff(t, c, db, changed); len(differences) > 0 {
		t.Fatalf("a copy differs already: %q", differences)
	}
	for _, tt := range tests {
		c.Exec(t, changed, strings.ReplaceAll(tt.sql, "%db", changed))
	}
	differences := diff(t, c, db, changed)
	for _, tt := range tests {
		if !mentions(differences, tt.want) {
			t.Errorf("%s was not found: got %q, want a line that begins with %q", tt.name, differences, tt.want)
		}
	}
	// What one change shows a second time.
	wanted := []string{"index state zoo.ix_gin", "INDEX zoo.ix_hash", "rows of ONLY zoo.mv_empty"}
	for _, tt := range tests {
		wanted = append(wanted, tt.want)
	}
	for _, d := range differences {
		if !slices.ContainsFunc(wanted, func(prefix string) bool { return strings.HasPrefix(d, prefix) }) {
			t.Errorf("found what nobody changed: %s", d)
		}
	}
}

// copyDatabase copies a database with what a file copy leaves behind.
func copyDatabase(t *testing.T, c *pgtest.Cluster, db string) string {
	t.Helper()
	name := db + "_copy"
	c.Exec(t, "postgres", "CREATE DATABASE "+name+" TEMPLATE "+db)
	t.Cleanup(func() { c.DropDatabase(t, name) })
	zoo.LoadShared(t, c, name)
	return name
}

func diff(t *testing.T, c *pgtest.Cluster, a, b string) []string {
	t.Helper()
	differences, err := zoo.Diff(context.Background(), c, a, c, b)
	if err != nil {
		t.Fatal(err)
	}
	return differences
}

func mentions(differences []string, want string) bool {
	for _, d := range differences {
		if strings.HasPrefix(d, want) {
			return true
		}
	}
	return false
}

func TestCompareGlobalsFindsPlantedDifferences(t *testing.T) {
	a, b := shared.Start(t), shared.Start(t)
	zoo.LoadGlobals(t, a)
	zoo.LoadGlobals(t, b)
	// A password's verifier is salted: two clusters share it only by copying.
	verifier := a.QueryString(t, "postgres", "SELECT rolpassword FROM pg_authid WHERE rolname = 'zoo_reader'")
	b.Exec(t, "postgres", "ALTER ROLE zoo_reader PASSWORD '"+verifier+"'")
	differ := func() []string {
		differences, err := zoo.DiffGlobals(context.Background(), a, b)
		if err != nil {
			t.Fatal(err)
		}
		return differences
	}
	if got := differ(); len(got) > 0 {
		t.Fatalf("equal globals differ: %q", got)
	}
	for _, tt := range []struct{ name, sql, want string }{
		{"password", "ALTER ROLE zoo_reader PASSWORD 'other'", "role zoo_reader"},
		{"membership", `REVOKE zoo_group FROM "-zoo=role"`, `membership "-zoo=role" in zoo_group`},
		{"setting", "ALTER ROLE zoo_settings RESET work_mem", "role zoo_settings"},
		{"tablespace", "COMMENT ON TABLESPACE zoo_space IS NULL", "tablespace zoo_space"},
		{"missing role", `DROP ROLE "Zoo_Owner"`, "role Zoo_Owner: only in the first"},
	} {
		b.Exec(t, "postgres", tt.sql)
		if got := differ(); !mentions(got, tt.want) {
			t.Errorf("%s: got %q, want a line that begins with %q", tt.name, got, tt.want)
		}
	}
}

func TestHostileDatabasesRoundTrip(t *testing.T) {
	c := shared.Cluster(t)
	for _, name := range zoo.HostileDatabases() {
		c.CreateDatabase(t, name)
		if got := c.QueryString(t, name, "SELECT current_database()"); got != name {
			t.Errorf("connected to %q, want %q", got, name)
		}
		c.Exec(t, name, "CREATE TABLE t(a int)")
	}
	for _, name := range []string{"-Fp", "host=127.0.0.1 dbname=postgres", "postgresql://x/y", "line\nfeed"} {
		if got := diff(t, c, "case", name); len(got) > 0 {
			t.Errorf("equal databases %q and %q differ: %q", "case", name, got)
		}
		c.Exec(t, name, "INSERT INTO t VALUES (1)")
		if got := diff(t, c, "case", name); !mentions(got, "rows of ONLY public.t") {
			t.Errorf("another database was read for %q: %q", name, got)
		}
	}
}

func TestHostileSettingsHarmOthersOnly(t *testing.T) {
	c := shared.Start(t)
	db := c.Database(t)
	zoo.HostileSettings(t, c, db, "postgres")
	if got := c.QueryString(t, db, "SELECT date '2020-03-04'"); got != "2020-03-04" {
		t.Errorf("own session: got %s, want 2020-03-04", got)
	}
	psql := exec.Command(filepath.Join(c.BinDir, "psql"), "-XAtc", "SELECT date '2020-03-04'")
	psql.Env = append(os.Environ(), append(c.Env(), "PGDATABASE="+db)...)
	out, err := psql.CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "04/03/2020" {
		t.Errorf("another session: got %s, %v; want 04/03/2020", got, err)
	}
}
