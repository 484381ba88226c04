package main

import (
	"fmt"
	"testing"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
)

// rolesAndPlaces makes a database that names roles and a tablespace wherever
// PostgreSQL lets it, and an event trigger that lets nobody grant anything.
func rolesAndPlaces(t testing.TB, c *pgtest.Cluster) {
	t.Helper()
	makeTablespace(t, c, "fast")
	c.Exec(t, "postgres", `CREATE ROLE owner_a; CREATE ROLE reader_a LOGIN; CREATE ROLE grantor_a; GRANT CREATE ON TABLESPACE fast TO owner_a`)
	c.CreateDatabase(t, "app")
	c.Exec(t, "app", `GRANT ALL ON SCHEMA public TO owner_a, grantor_a; ALTER DATABASE app OWNER TO owner_a;
		ALTER DATABASE app SET work_mem = '5MB'; ALTER ROLE reader_a IN DATABASE app SET work_mem = '6MB'; GRANT CONNECT ON DATABASE app TO reader_a;
		CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; GRANT USAGE ON FOREIGN SERVER far TO reader_a;
		CREATE USER MAPPING FOR reader_a SERVER far OPTIONS (user 'somebody');
		SET ROLE owner_a;
		CREATE TABLE note(id int PRIMARY KEY USING INDEX TABLESPACE fast, owner name) TABLESPACE fast; INSERT INTO note SELECT g, 'reader_a' FROM generate_series(1, 10) g;
		CREATE TABLE here(id int PRIMARY KEY);
		GRANT SELECT ON note TO reader_a; GRANT SELECT ON here TO grantor_a WITH GRANT OPTION;
		ALTER TABLE note ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON note TO reader_a USING (owner = 'reader_a');
		ALTER DEFAULT PRIVILEGES FOR ROLE owner_a GRANT SELECT ON TABLES TO reader_a;
		RESET ROLE; SET ROLE grantor_a; GRANT SELECT ON here TO reader_a; RESET ROLE;
		CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no % here'', tg_tag; END';
		CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse()`)
}

// T72: all that a server lacks comes in one list, before anything is written.
func TestT72MissingRolesPlacesAndExtensions(t *testing.T) {
	t.Parallel()
	source := shared.Start(t)
	rolesAndPlaces(t, source)
	store := captured(t, source, "app", "--mode", "custom")
	edit(t, store, func(_ string, m *backupset.Manifest) {
		m.Databases[0].Extensions = append(m.Databases[0].Extensions, "no_such_extension")
	})
	target := shared.Start(t)
	dbbackup(t, target.Env(), restoring(store, "app")...).want(t, exitPrecondition,
		"role owner_a", "role reader_a", "role grantor_a", "tablespace fast", "extension no_such_extension", "--map-role", "--map-tablespace", "nothing was written")
	if left := databasesOf(t, target); len(left) != 3 {
		t.Errorf("databases after the refusal: %q", left)
	}
}

// T72: --map-role and --map-tablespace reach everything that names a role or a
// place, and an event trigger of the database does not get in their way (T78).
func TestT72MappedRolesAndPlaces(t *testing.T) {
	t.Parallel()
	source, target := shared.Start(t), shared.Start(t)
	rolesAndPlaces(t, source)
	makeTablespace(t, target, "slow")
	target.Exec(t, "postgres", `CREATE ROLE owner_b; CREATE ROLE "reader b"; CREATE ROLE grantor_b`)
	for _, mode := range []string{"custom", "directory", "chunked"} {
		store := captured(t, source, "app", "--mode", mode)
		dbbackup(t, target.Env(), restoring(store, "app", "--target-db", mode, "--map-role", "owner_a=owner_b", "--map-role", "reader_a=reader b",
			"--map-role", "grantor_a=grantor_b", "--map-tablespace", "fast=slow")...).must(t, exitOK)
		for _, fact := range mappedFacts {
			if got := target.QueryString(t, mode, fact.query); got != fact.want {
				t.Errorf("%s: %s: got %q, want %q", mode, fact.query, got, fact.want)
			}
		}
	}
}

// mappedFacts are what rolesAndPlaces made, as owner_b, "reader b", grantor_b
// and slow.
var mappedFacts = []struct{ query, want string }{
	{`SELECT relowner::regrole FROM pg_class WHERE relname = 'note'`, `owner_b`},
	{`SELECT relacl FROM pg_class WHERE relname = 'note'`, `{owner_b=arwdDxt/owner_b,"\"reader b\"=r/owner_b"}`},
	{`SELECT relacl FROM pg_class WHERE relname = 'here'`, `{owner_b=arwdDxt/owner_b,grantor_b=r*/owner_b,"\"reader b\"=r/grantor_b"}`},
	{`SELECT defaclacl FROM pg_default_acl WHERE defaclrole = 'owner_b'::regrole`, `{owner_b=arwdDxt/owner_b,"\"reader b\"=r/owner_b"}`},
	{`SELECT polroles[1]::regrole FROM pg_policy`, `"reader b"`},
	{`SELECT usename || ' as ' || option_value FROM pg_user_mappings, pg_options_to_table(umoptions)`, `reader b as somebody`},
	{`SELECT has_server_privilege('reader b', 'far', 'USAGE')`, `t`},
	{`SELECT spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = reltablespace WHERE relname = 'note'`, `slow`},
	{`SELECT spcname FROM pg_class c JOIN pg_tablespace t ON t.oid = reltablespace WHERE relname = 'note_pkey'`, `slow`},
	{`SELECT reltablespace FROM pg_class WHERE relname = 'here'`, `0`},
	{`SELECT count(*) FROM note`, `10`},
	{`SELECT evtname FROM pg_event_trigger`, `refuse`},
	{`SELECT datdba::regrole FROM pg_database WHERE datname = current_database()`, `owner_b`},
	{`SELECT datacl::text LIKE '%"\\"reader b\\"=c/owner_b"%' FROM pg_database WHERE datname = current_database()`, `t`},
	{`SELECT setrole::regrole || ' ' || setconfig[1] FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase
		WHERE setrole <> 0 AND datname = current_database()`, `"reader b" work_mem=6MB`},
}

// Without owners and privileges nothing asks for roles but policies and user
// mappings, which are named.
func TestT72NoOwnerNoACL(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	c.Exec(t, "postgres", "CREATE ROLE gone")
	db := smallDatabase(t, c)
	c.Exec(t, db, "ALTER TABLE accounts OWNER TO gone; GRANT SELECT ON branches TO gone; ALTER DATABASE "+pgtest.Quote(db)+" OWNER TO gone")
	store := captured(t, c, db)
	c.DropDatabase(t, db)
	c.Exec(t, "postgres", "DROP ROLE gone")
	dbbackup(t, c.Env(), restoring(store, db, "--no-owner")...).want(t, exitPrecondition, "role gone")
	dbbackup(t, c.Env(), restoring(store, db, "--no-owner", "--no-acl")...).must(t, exitOK)
	got := c.Query(t, db, `SELECT relowner::regrole, relacl IS NULL FROM pg_class WHERE relname IN ('accounts', 'branches')`)
	if want := "[[postgres t] [postgres t]]"; fmt.Sprint(got) != want {
		t.Errorf("owners: got %v, want %s", got, want)
	}
}
