package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// tablesOf lists a database's tables with their number of rows, partitioned
// tables without.
func tablesOf(t testing.TB, c *pgtest.Cluster, db string) []string {
	t.Helper()
	var tables []string
	for _, row := range c.Query(t, db, `SELECT relname, (xpath('/row/n/text()', query_to_xml(
		format('SELECT count(*) AS n FROM ONLY %I.%I', nspname, relname), false, true, '')))[1]::text
		FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
		WHERE relkind = 'r' AND c.oid >= 16384 AND nspname <> 'information_schema' ORDER BY relname COLLATE "C"`) {
		tables = append(tables, row[0]+" "+row[1])
	}
	return tables
}

func wantTables(t testing.TB, c *pgtest.Cluster, db string, want ...string) {
	t.Helper()
	if got := tablesOf(t, c, db); !slices.Equal(got, want) {
		t.Errorf("tables of database %s: got %q, want %q", db, got, want)
	}
}

// oddTables makes a table of one row for each name that a pattern could mistake
// for another.
func oddTables(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	for _, name := range []string{"a%b", "a*b", "axb", "a?b", "Case", "case", `q"uote`, "with space"} {
		c.Exec(t, db, "CREATE TABLE "+pgtest.Quote(name)+" AS SELECT 1 AS one")
	}
	return db
}

// T65: a name that is given selects the table of that name, whatever the name
// holds. Wildcards count only where nothing has the name.
func TestT65TableNamesAreExact(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := oddTables(t, c)
	tests := []struct {
		tables []string
		want   []string
	}{
		{[]string{"a*b"}, []string{"a*b 1"}},
		{[]string{"a?b", "a%b", "case"}, []string{"a%b 1", "a?b 1", "case 1"}},
		{[]string{"Case", `q"uote`, "public.with space"}, []string{"Case 1", `q"uote 1`, "with space 1"}},
		{[]string{"a*", "?ase"}, []string{"Case 1", "a%b 1", "a*b 1", "a?b 1", "axb 1", "case 1"}},
	}
	whole := captured(t, c, db)
	for _, tt := range tests {
		name := strings.Join(tt.tables, ",")
		var flags []string
		for _, table := range tt.tables {
			flags = append(flags, "--table", table)
		}
		flags = slices.Clip(flags) // both of what runs in parallel append to it
		t.Run("restore "+name, func(t *testing.T) {
			t.Parallel()
			to := c.FreeName(t)
			dbbackup(t, c.Env(), restoring(whole, db, append(flags, "--target-db", to)...)...).must(t, exitOK)
			wantTables(t, c, to, tt.want...)
		})
		t.Run("backup "+name, func(t *testing.T) {
			t.Parallel()
			to := c.FreeName(t)
			store := captured(t, c, db, append(flags, "--mode", "custom")...)
			r := dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...)
			r.want(t, exitNotFound, "some tables") // such a set is never taken unasked
			dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--set", onlySet(t, store))...).must(t, exitOK)
			wantTables(t, c, to, tt.want...)
		})
	}
}

// A name that selects nothing is a typing mistake, not an empty backup.
func TestT65UnknownTableIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := oddTables(t, c)
	whole, to := captured(t, c, db), c.FreeName(t)
	for _, pattern := range []string{"CASE", "b*"} {
		dbbackup(t, c.Env(), "backup", "single", db, "--store", newStore(t), "--table", pattern).want(t, exitUsage, pattern)
		dbbackup(t, c.Env(), restoring(whole, db, "--target-db", to, "--table", pattern)...).want(t, exitUsage, pattern)
		if hasDatabase(t, c, to) {
			t.Errorf("database %s was made for nothing", to)
		}
	}
}

// T64: whatever a database is called, it is the one that is captured and
// restored, and its name is data only.
func TestT64HostileDatabaseNames(t *testing.T) {
	t.Parallel()
	source, target := shared.Start(t), shared.Start(t)
	names := zoo.HostileDatabases()
	for _, name := range names {
		source.CreateDatabase(t, name)
		source.Exec(t, name, "CREATE TABLE who AS SELECT current_database()::text AS name")
	}
	store := newStore(t)
	// Plain for all, since one psql is quicker than several pg_restores; the
	// archives' way is the next test's.
	runs := []*running{start(t, source.Env(), "backup", "cluster", "--store", store, "--mode", "plain")}
	runs[0].wait(t).must(t, exitOK)
	if outside, _ := os.ReadDir(filepath.Dir(store)); len(outside) != 1 {
		t.Errorf("files beside the store: %v", outside)
	}
	var manifest struct {
		Databases []struct{ Name string }
	}
	inProcess(t, nil, "show", "latest", "--json", "--store", store).must(t, exitOK).decode(t, &manifest)
	for _, name := range names {
		if !slices.ContainsFunc(manifest.Databases, func(d struct{ Name string }) bool { return d.Name == name }) {
			t.Errorf("the manifest does not name database %q", name)
		}
	}
	runs = append(runs, start(t, target.Env(), "restore", "cluster", "--no-analyze", "--store", store))
	runs[1].wait(t).must(t, exitOK)
	for _, name := range names {
		t.Cleanup(func() { target.DropDatabase(t, name) })
		if got := target.QueryString(t, name, "SELECT name FROM who"); got != name {
			t.Errorf("database %q holds the content of %q", name, got)
		}
	}
	for _, r := range runs {
		if left, _ := os.ReadDir(r.cmd.Dir); len(left) != 0 {
			t.Errorf("files in the working directory: %v", left)
		}
	}
}

// T64, for single databases and archives.
func TestT64HostileNamesAlone(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	for _, name := range []string{"-Fp", "host=127.0.0.1 dbname=postgres", "../../x", "line\nfeed", "$(touch pwned)"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.CreateDatabase(t, name)
			c.Exec(t, name, "CREATE TABLE who AS SELECT current_database()::text AS name")
			to := name + "'s copy"
			t.Cleanup(func() { c.DropDatabase(t, to) })
			dbbackup(t, c.Env(), restoring(captured(t, c, name, "--mode", "directory"), name, "--target-db", to)...).must(t, exitOK)
			if got := c.QueryString(t, to, "SELECT name FROM who"); got != name {
				t.Errorf("database %q holds the content of %q", to, got)
			}
		})
	}
}

// relatedTables makes tables that need types, functions, sequences, partitions
// and each other.
func relatedTables(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	c.Exec(t, db, `CREATE SCHEMA kinds; CREATE SCHEMA app;
		CREATE TYPE kinds.color AS ENUM ('red', 'green');
		CREATE FUNCTION kinds.stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE TABLE app.item(id serial PRIMARY KEY, color kinds.color NOT NULL);
		CREATE INDEX ON app.item(color);
		CREATE TRIGGER stamp BEFORE INSERT ON app.item FOR EACH ROW EXECUTE FUNCTION kinds.stamp();
		INSERT INTO app.item(color) VALUES ('red'), ('green'), ('red');
		CREATE TABLE app.sale(item int REFERENCES app.item, amount int); INSERT INTO app.sale VALUES (1, 10), (3, 30);
		CREATE TABLE app.log(day int, text text) PARTITION BY RANGE (day);
		CREATE TABLE app.log_1 PARTITION OF app.log FOR VALUES FROM (0) TO (10);
		CREATE TABLE app.log_2 PARTITION OF app.log FOR VALUES FROM (10) TO (20);
		INSERT INTO app.log VALUES (1, 'a'), (2, 'b'), (11, 'c');
		CREATE TABLE other AS SELECT 1 AS one`)
	return db
}

// A selection brings what it needs to be used, and nothing else.
func TestSelectedTablesComeWithWhatTheyNeed(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := relatedTables(t, c)
	tests := []struct {
		name  string
		flags []string
		want  []string
		check string // a query that must work and return true
	}{
		{"type of another schema", []string{"--table", "app.item"}, []string{"item 3"},
			`WITH added AS (INSERT INTO app.item(color) VALUES ('green'::kinds.color) RETURNING id) SELECT id = 4 FROM added`},
		{"both ends of a foreign key", []string{"--table", "item", "--table", "sale"}, []string{"item 3", "sale 2"},
			`SELECT count(*) = 1 FROM pg_constraint WHERE contype = 'f'`},
		{"one end of a foreign key", []string{"--table", "sale"}, []string{"sale 2"},
			`SELECT count(*) = 0 FROM pg_constraint WHERE contype = 'f'`},
		{"partition parent", []string{"--table", "app.log"}, []string{"log_1 2", "log_2 1"}, `SELECT count(*) = 3 FROM app.log`},
		{"partition leaf", []string{"--table", "app.log_1"}, []string{"log_1 2"}, `SELECT count(*) = 2 FROM app.log`},
		{"schema", []string{"--schema", "app"}, []string{"item 3", "log_1 2", "log_2 1", "sale 2"}, `SELECT to_regclass('other') IS NULL`},
	}
	for _, mode := range []string{"custom", "directory", "chunked"} {
		store := captured(t, c, db, "--mode", mode)
		for i, tt := range tests {
			if mode == "directory" && i%3 != 1 {
				continue // pg_restore selects from both in the same way
			}
			t.Run(mode+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				to := c.FreeName(t)
				dbbackup(t, c.Env(), restoring(store, db, append(tt.flags, "--target-db", to)...)...).must(t, exitOK)
				wantTables(t, c, to, tt.want...)
				if got := c.QueryString(t, to, tt.check); got != "t" {
					t.Errorf("%s: got %s", tt.check, got)
				}
			})
		}
	}
}

// An SQL script runs as a whole only: the refusal says what to do instead.
func TestSelectionFromPlainIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	store, to := captured(t, c, db, "--mode", "plain"), c.FreeName(t)
	for _, flags := range [][]string{{"--table", "accounts"}, {"--schema-only"}, {"--no-owner"}, {"--map-role", "a=b"}} {
		dbbackup(t, c.Env(), restoring(store, db, append(flags, "--target-db", to)...)...).
			want(t, exitUsage, "plain", "--target-db NEW", "--mode custom")
	}
	if hasDatabase(t, c, to) {
		t.Errorf("database %s was made for nothing", to)
	}
}

// T68: circles of foreign keys come back, in full and as data only.
func TestT68CircularForeignKeys(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, `CREATE TABLE egg(id serial PRIMARY KEY, hen int); CREATE TABLE hen(id serial PRIMARY KEY, egg int NOT NULL REFERENCES egg);
		ALTER TABLE egg ADD FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
		CREATE TABLE tree(id int PRIMARY KEY, parent int REFERENCES tree);
		BEGIN; INSERT INTO egg(hen) SELECT 51 - g FROM generate_series(1, 50) g; INSERT INTO hen(egg) SELECT g FROM generate_series(1, 50) g; COMMIT;
		INSERT INTO tree SELECT g, nullif(g + 1, 51) FROM generate_series(1, 50) g`)
	eachMode(t, func(t *testing.T, mode string) {
		store, to := captured(t, c, db, "--mode", mode), c.FreeName(t)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
		zoo.Compare(t, c, db, c, to)
		if mode == "plain" {
			return
		}
		parts := c.FreeName(t)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", parts, "--data-only")...).want(t, exitPrecondition, parts)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", parts, "--schema-only")...).must(t, exitOK)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", parts, "--data-only")...).must(t, exitOK)
		zoo.Compare(t, c, db, c, parts)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", parts, "--data-only")...).
			want(t, exitPrecondition, "public.egg", "doubled")
		zoo.Compare(t, c, db, c, parts)
	})
}
