package zoo

import (
	"embed"
	"fmt"
	"path"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

//go:embed sql/*.sql
var scripts embed.FS

// newestMajor bounds the version-gated scripts that are looked for.
const newestMajor = 30

// Load fills a database with the zoo. It first makes the roles and the
// tablespace where the cluster lacks them.
func Load(tb testing.TB, c *pgtest.Cluster, db string) {
	tb.Helper()
	LoadGlobals(tb, c)
	for _, script := range []string{"zoo", "names", "blobs", "tablespace"} {
		run(tb, c, db, script)
	}
	runSince(tb, c, db, "zoo")
	if c.QueryString(tb, db, "SELECT count(*) FROM pg_available_extensions WHERE name IN ('hstore', 'ltree', 'earthdistance', 'postgres_fdw')") == "4" {
		run(tb, c, db, "contrib")
	}
	run(tb, c, db, "finish")
	loadShared(tb, c, db)
}

// loadShared adds what belongs to the database but lives in shared catalogs,
// where a copy of the database's files leaves it behind.
func loadShared(tb testing.TB, c *pgtest.Cluster, db string) {
	tb.Helper()
	c.Exec(tb, db, databaseProperties(db))
	run(tb, c, db, "subscription")
}

// LoadGlobals makes the zoo's roles and its tablespace zoo_space. A target
// cluster needs them before a single database can be restored into it.
func LoadGlobals(tb testing.TB, c *pgtest.Cluster) {
	tb.Helper()
	if c.QueryString(tb, "postgres", "SELECT count(*) FROM pg_roles WHERE rolname = 'zoo_owner'") == "0" {
		run(tb, c, "postgres", "globals")
		runSince(tb, c, "postgres", "globals")
	}
	if c.QueryString(tb, "postgres", "SELECT count(*) FROM pg_tablespace WHERE spcname = 'zoo_space'") == "0" {
		dir, err := c.MakeDir("zoo_space")
		if err != nil {
			tb.Fatal(err)
		}
		c.Exec(tb, "postgres", fmt.Sprintf("CREATE TABLESPACE zoo_space OWNER zoo_owner LOCATION '%s' WITH (seq_page_cost = 2)", dir))
		c.Exec(tb, "postgres", "GRANT CREATE ON TABLESPACE zoo_space TO zoo_reader; COMMENT ON TABLESPACE zoo_space IS 'elsewhere'")
	}
}

// databaseProperties gives a database what only pg_dump --create keeps.
func databaseProperties(db string) string {
	statements := []string{
		"ALTER DATABASE %s SET work_mem = '9MB'",
		"ALTER DATABASE %s SET search_path = zoo, \"Zoo\", public",
		"ALTER DATABASE %s SET application_name = 'it''s \"quoted\"'",
		"ALTER DATABASE %s CONNECTION LIMIT 55",
		"ALTER ROLE zoo_reader IN DATABASE %s SET statement_timeout = '77s'",
		"ALTER ROLE \"-zoo=role\" IN DATABASE %s SET datestyle = 'German, DMY'",
		"GRANT CREATE ON DATABASE %s TO zoo_writer WITH GRANT OPTION",
		"REVOKE TEMPORARY ON DATABASE %s FROM PUBLIC",
		"COMMENT ON DATABASE %s IS 'the zoo''s \"database\"\nin two lines'",
		"ALTER DATABASE %s OWNER TO zoo_owner",
	}
	return strings.ReplaceAll(strings.Join(statements, ";\n"), "%s", pgtest.Quote(db))
}

// run runs one script as one implicit transaction.
func run(tb testing.TB, c *pgtest.Cluster, db, name string) {
	tb.Helper()
	text, err := scripts.ReadFile(path.Join("sql", name+".sql"))
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.TryExec(db, string(text)); err != nil {
		tb.Fatalf("load %s.sql into database %q: %v", name, db, err)
	}
}

// runSince runs the scripts of the server's version and of those before it.
func runSince(tb testing.TB, c *pgtest.Cluster, db, name string) {
	tb.Helper()
	for major := 14; major <= min(c.VersionNum/10000, newestMajor); major++ {
		gated := fmt.Sprintf("%s%d", name, major)
		if _, err := scripts.Open(path.Join("sql", gated+".sql")); err == nil {
			run(tb, c, db, gated)
		}
	}
}
