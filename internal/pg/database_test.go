package pg

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtest"
)

const oddName = `odd "name" \ of it's`

// oddDatabase makes a database with every property that a database can have.
func oddDatabase(t *testing.T, c *pgtest.Cluster, options string) Database {
	t.Helper()
	for _, r := range []string{`boss "of" it's`, "granter", "grantee"} {
		c.Exec(t, "postgres", "CREATE ROLE "+pgtest.Quote(r))
	}
	space, err := c.MakeDir("space")
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(t, "postgres", `CREATE TABLESPACE "my space\" LOCATION `+pgname.Literal(space))
	db := pgtest.Quote(oddName)
	c.Exec(t, "postgres", `CREATE DATABASE `+db+` TEMPLATE template0 OWNER "boss ""of"" it's" TABLESPACE "my space\" CONNECTION LIMIT 7 `+options)
	c.Exec(t, "postgres", `
		GRANT pg_checkpoint TO granter;
		COMMENT ON DATABASE `+db+` IS E'it''s a "comment" \\ with\nlines and 表';
		REVOKE TEMPORARY ON DATABASE `+db+` FROM PUBLIC;
		GRANT CREATE ON DATABASE `+db+` TO granter WITH GRANT OPTION;
		GRANT TEMPORARY ON DATABASE `+db+` TO grantee WITH GRANT OPTION;
		SET ROLE granter; GRANT CREATE ON DATABASE `+db+` TO grantee; RESET ROLE;
		ALTER DATABASE `+db+` SET search_path = "a b", 'q"uo,te', "$user", public, "back\slash";
		ALTER DATABASE `+db+` SET temp_tablespaces = 'my space\', '';
		ALTER DATABASE `+db+` SET "my.ext.setting" = E'value with ''quotes'', "these", \\ and = signs';
		ALTER DATABASE `+db+` SET datestyle = 'SQL, DMY';
		ALTER DATABASE `+db+` SET work_mem = '5MB';
		ALTER ROLE "boss ""of"" it's" IN DATABASE `+db+` SET search_path = '';
		ALTER ROLE "boss ""of"" it's" IN DATABASE `+db+` SET statement_timeout = '3s';
		ALTER DATABASE `+db+` IS_TEMPLATE true`)
	return described(t, c, oddName)
}

func described(t *testing.T, c *pgtest.Cluster, name string) Database {
	t.Helper()
	d, found, err := connect(t, resolve(t, paramsOf(c)), "postgres").DatabaseNamed(t.Context(), name)
	if err != nil || !found {
		t.Fatalf("database %q: found %v, %v", name, found, err)
	}
	return d
}

// What CreateSQL and PropertiesSQL make is what was described.
func TestPropertiesSurvive(t *testing.T) {
	c := shared.Start(t)
	d := oddDatabase(t, c, "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'")
	if len(d.Settings) != 7 || len(d.Grants) < 5 || !d.Template || d.ConnectionLimit != 7 || !strings.Contains(d.Comment, "表") {
		t.Fatalf("the test's own database lacks something: %+v", d)
	}
	conn := connect(t, resolve(t, paramsOf(c)), "postgres")
	const copied = `the "copy"`
	if err := conn.Exec(t.Context(), "create", d.CreateSQL(copied)); err != nil {
		t.Fatal(err)
	}
	if err := conn.Transact(t.Context(), "properties", d.PropertiesSQL(copied, PropertyOptions{Owner: true, Grants: true})); err != nil {
		t.Fatal(err)
	}
	got := described(t, c, copied)
	ignore := cmpopts.IgnoreFields(Database{}, "OID", "Name", "Bytes")
	order := cmpopts.SortSlices(func(a, b Grant) bool { return a.Grantor+a.Grantee+a.Privilege < b.Grantor+b.Grantee+b.Privilege })
	if diff := cmp.Diff(d, got, ignore, order, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("the copy differs:\n%s", diff)
	}
	if a, b := effective(t, c, oddName), effective(t, c, copied); a != b {
		t.Errorf("sessions differ: %s and %s", a, b)
	}
}

// effective is what a session of a database gets.
func effective(t *testing.T, c *pgtest.Cluster, db string) string {
	t.Helper()
	e := resolve(t, paramsOf(c))
	conn := connect(t, e, db)
	if err := conn.Exec(t.Context(), "reset", "RESET ALL"); err != nil {
		t.Fatal(err)
	}
	text, err := value[string](t.Context(), conn, "ask", `SELECT concat_ws('|', current_setting('search_path'), current_setting('temp_tablespaces'),
		current_setting('my.ext.setting'), current_setting('datestyle'), current_setting('work_mem'), array_to_string(current_schemas(true), ','))`)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestICUSurvives(t *testing.T) {
	c := shared.Start(t)
	conn := connect(t, resolve(t, paramsOf(c)), "postgres")
	if has, err := conn.HasICU(t.Context()); err != nil || !has || c.VersionNum < 150000 {
		t.Skipf("no databases with ICU here: %v", err)
	}
	d := oddDatabase(t, c, "LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'")
	if d.Provider != "icu" || d.Locale == "" {
		t.Fatalf("described as %+v", d)
	}
	if err := conn.Exec(t.Context(), "create", d.CreateSQL("copied")); err != nil {
		t.Fatal(err)
	}
	if got := described(t, c, "copied"); got.Provider != d.Provider || got.Locale != d.Locale || got.Collate != d.Collate || got.CType != d.CType {
		t.Errorf("the copy is %+v", got)
	}
}

func TestPropertiesOfMappedRoles(t *testing.T) {
	d := Database{
		Name: "db", Owner: "a", ConnectionLimit: -1, Settings: []Setting{{Role: "a", Name: "work_mem", Value: "5MB"}},
		Grants: []Grant{{Grantor: "a", Grantee: "b", Privilege: "CONNECT", Grantable: true}, {Grantor: "b", Grantee: "", Privilege: "CONNECT"}},
	}
	got := d.PropertiesSQL("new", PropertyOptions{Owner: true, Grants: true, MapRoles: map[string]string{"a": "x", "b": "y"}})
	want := []string{
		`ALTER DATABASE "new" OWNER TO "x"`, `REVOKE ALL ON DATABASE "new" FROM PUBLIC`, `REVOKE ALL ON DATABASE "new" FROM "x"`,
		`GRANT CONNECT ON DATABASE "new" TO "y" WITH GRANT OPTION`, `SET LOCAL ROLE "y"`,
		`GRANT CONNECT ON DATABASE "new" TO PUBLIC`, `RESET ROLE`, `ALTER ROLE "x" IN DATABASE "new" SET "work_mem" TO '5MB'`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, sql := range d.PropertiesSQL("new", PropertyOptions{}) {
		if strings.Contains(sql, "OWNER") || strings.Contains(sql, "GRANT") || strings.Contains(sql, "ROLE") {
			t.Errorf("not asked for: %s", sql)
		}
	}
}

func TestSplitIdentifiers(t *testing.T) {
	for in, want := range map[string][]string{
		"": nil, `""`: {""}, `a, b`: {"a", "b"}, `"a b", "q""uo,te"`: {"a b", `q"uo,te`}, `"$user", public`: {"$user", "public"}, `a,"",b`: {"a", "", "b"},
	} {
		if got := splitIdentifiers(in); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestDatabasesThatCannotBeConnectedTo(t *testing.T) {
	c := shared.Cluster(t)
	closed := c.Database(t)
	c.Exec(t, "postgres", "ALTER DATABASE "+closed+" ALLOW_CONNECTIONS false")
	d := described(t, c, closed)
	if d.AllowConn || d.Invalid() || d.Bytes <= 0 {
		t.Errorf("described as %+v", d)
	}
	modest := resolve(t, role(t, c, "small", ""))
	c.Exec(t, "postgres", "REVOKE CONNECT ON DATABASE "+closed+" FROM PUBLIC")
	d, found, err := connect(t, modest, "postgres").DatabaseNamed(t.Context(), closed)
	if err != nil || !found || d.Bytes != -1 {
		t.Errorf("found %v, %+v, %v", found, d, err)
	}
}
