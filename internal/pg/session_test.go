package pg

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
)

// hostileSettings change what a session reads, or end it.
var hostileSettings = map[string]string{
	"datestyle": "'SQL, DMY'", "intervalstyle": "'sql_standard'", "extra_float_digits": "-10", "bytea_output": "escape",
	"search_path": "hostile, pg_catalog", "row_security": "on", "client_encoding": "LATIN1", "default_transaction_read_only": "on",
	"standard_conforming_strings": "off", "statement_timeout": "'20ms'", "lock_timeout": "'1ms'",
	"idle_in_transaction_session_timeout": "'1ms'", "idle_session_timeout": "'100ms'", "synchronize_seqscans": "on",
	"default_transaction_isolation": "serializable", "timezone": "'Asia/Kathmandu'", "client_min_messages": "debug1",
}

func TestT54SessionsReadTheSameWhateverTheRoleSets(t *testing.T) {
	c := shared.Cluster(t)
	db := "données €" // as LATIN1 it would read as something else
	c.CreateDatabase(t, db)
	p := role(t, c, "hostile", "SUPERUSER")
	c.Exec(t, db, `CREATE SCHEMA hostile; CREATE FUNCTION hostile.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT ''shadowed''';
		CREATE TABLE "naïve 表" (v bytea); INSERT INTO "naïve 表" VALUES ('\x00ff'), ('\x2020')`)
	for name, value := range hostileSettings {
		c.Exec(t, "postgres", "ALTER ROLE hostile IN DATABASE "+pgname.Ident(db)+" SET "+name+" = "+value)
		c.Exec(t, "postgres", "ALTER ROLE hostile SET "+name+" = "+value)
	}
	t.Cleanup(func() { c.Exec(t, "postgres", "ALTER ROLE hostile IN DATABASE "+pgname.Ident(db)+" RESET ALL") })
	e := resolve(t, p)
	conn := connect(t, e, db)
	for name, want := range map[string]string{
		"search_path": "pg_catalog", "datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "3",
		"bytea_output": "hex", "standard_conforming_strings": "on", "row_security": "off", "statement_timeout": "0",
		"lock_timeout": "0", "idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0",
		"synchronize_seqscans": "off", "client_encoding": "UTF8",
	} {
		got, err := value[string](t.Context(), conn, "ask", "SELECT current_setting($1)", name)
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(got, ","); first != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	// The settings bite: a statement and a pause that are longer than they allow.
	if err := conn.Exec(t.Context(), "sleep", "SELECT pg_sleep(0.15)"); err != nil {
		t.Error(err)
	}
	tables, err := conn.Tables(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(tables) != 1 || tables[0].Name != "naïve 表" {
		t.Errorf("tables %+v", tables)
	}
	if _, found, err := conn.DatabaseNamed(t.Context(), db); err != nil || !found {
		t.Errorf("database %q: found %v, %v", db, found, err)
	}
}

func TestServerFacts(t *testing.T) {
	c := shared.Cluster(t)
	e := resolve(t, paramsOf(c))
	got, err := connect(t, e, "postgres").Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Server{
		Version: c.QueryString(t, "postgres", "SHOW server_version"), VersionNum: c.VersionNum,
		SystemIdentifier: c.QueryString(t, "postgres", "SELECT system_identifier FROM pg_control_system()"), Timeline: 1,
		Superuser: true, BypassRLS: true, CreateDB: true, CreateRole: true, ReadsPasswords: true, BootstrapRole: c.User,
		LockBudget: 64 * 100, MaxLocksPerTx: 64, MaxConnections: 100, DataDirectory: c.DataDir,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestServerFactsForARoleThatMayNotAsk(t *testing.T) {
	c := shared.Cluster(t)
	e := resolve(t, role(t, c, "modest", "CREATEDB"))
	got, err := connect(t, e, "postgres").Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Superuser || got.BypassRLS || got.ReadsPasswords || got.CreateRole || !got.CreateDB || got.DataDirectory != "" {
		t.Errorf("facts %+v", got)
	}
	if got.BootstrapRole != c.User || got.VersionNum != c.VersionNum {
		t.Errorf("facts %+v", got)
	}
}

func TestInventoryFindsTheGapsOfARole(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	p := role(t, c, "reader", "")
	c.Exec(t, db, `
		CREATE TABLE plain (i int); INSERT INTO plain SELECT generate_series(1, 1000); ANALYZE plain;
		CREATE TABLE secret (i int);
		CREATE TABLE filtered (i int); ALTER TABLE filtered ENABLE ROW LEVEL SECURITY;
		CREATE UNLOGGED TABLE unlogged (i int);
		CREATE TABLE parted (i int) PARTITION BY RANGE (i); CREATE TABLE part PARTITION OF parted DEFAULT;
		CREATE TABLE wide (v bytea); INSERT INTO wide SELECT string_agg(sha256(i::text::bytea), '') FROM generate_series(1, 1000) i;
		GRANT SELECT ON plain, filtered, unlogged, parted, part, wide TO reader;
		CREATE EXTENSION postgres_fdw; CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;
		CREATE FOREIGN TABLE distant (i int) SERVER other; GRANT SELECT ON distant TO reader;
		CREATE USER MAPPING FOR postgres SERVER other OPTIONS (password 'x');
		CREATE SUBSCRIPTION sub CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false);
		SELECT lo_from_bytea(4711, 'x'), lo_from_bytea(4712, 'y'); GRANT SELECT ON LARGE OBJECT 4712 TO reader`)
	// The role is dropped before the database is, which gives its grants up.
	t.Cleanup(func() { c.Exec(t, db, "DROP OWNED BY reader") })
	inv, err := connect(t, resolve(t, p), db).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	table := func(name string) []pgname.Table { return []pgname.Table{{Schema: "public", Name: name}} }
	want := InventoryGaps{
		Unreadable: table("secret"), RowSecurity: table("filtered"), Foreign: table("distant"),
		Subscriptions: 1, LargeObjects: 1, UserMappings: 1,
	}
	if diff := cmp.Diff(want, inv.Gaps, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if inv.LargeObjects != 2 || inv.EstimatedRows < 1000 || !slices.Contains(inv.Extensions, "postgres_fdw") ||
		!slices.Equal(inv.Roles, []string{"postgres", "reader"}) {
		t.Errorf("inventory %+v", inv)
	}
	for _, tab := range inv.Tables {
		if tab.Wide != (tab.Name == "wide") || (tab.ParentOID != 0) != (tab.Name == "part") {
			t.Errorf("table %+v", tab)
		}
	}
	unreadable, err := connect(t, resolve(t, p), db).UnreadableLargeObjects(t.Context(), 5)
	if err != nil || !slices.Equal(unreadable, []string{"4711"}) {
		t.Errorf("unreadable large objects %v, %v", unreadable, err)
	}
	all, err := connect(t, resolve(t, paramsOf(c)), db).Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(InventoryGaps{Foreign: table("distant")}, all.Gaps, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("as a superuser: %s", diff)
	}
}

func TestErrorsSayWhatACallerCanDo(t *testing.T) {
	c := shared.Cluster(t)
	conn := connect(t, resolve(t, role(t, c, "weak", "")), "postgres")
	wantKind(t, conn.Exec(t.Context(), "read", "SELECT 1 FROM pg_authid"), fault.Precondition)
	wantKind(t, conn.Exec(t.Context(), "read", "SELECT nonsense"), fault.Failed)
	pid, err := value[int](t.Context(), conn, "ask", "SELECT pg_backend_pid()")
	if err != nil {
		t.Fatal(err)
	}
	c.Query(t, "postgres", "SELECT pg_terminate_backend("+pgname.Literal(itoa(pid))+"::int, 5000)")
	wantKind(t, conn.Exec(t.Context(), "read", "SELECT 1"), fault.Unavailable)
	wantKind(t, conn.Exec(t.Context(), "read again", "SELECT 1"), fault.Unavailable)
}
