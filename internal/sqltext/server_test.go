package sqltext

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/pgtest"
)

var shared pgtest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

func pgTool(t *testing.T, c *pgtest.Cluster, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.BinDir, name), args...)
	cmd.Env = append(os.Environ(), c.Env()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, stderr.String())
	}
	return out
}

// Names that break a reader that looks for semicolons, quotes or line ends.
var hostile = []string{"plain", "Capital", "new\nline", `quo"te`, "semi;colon", "-- dashes", "/* open", "$$", "it's", `back\slash`, "on", "to", "GRANT a TO b;", "größe"}

// Every role, membership, setting and tablespace of a real server must be
// found under its name, and nothing may be left over.
func TestParseGlobalsOfARealServer(t *testing.T) {
	c := pgtest.Start(t)
	space, err := c.MakeDir("space")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, name := range hostile {
		role := pgtest.Quote(name)
		fmt.Fprintf(&script, "create role %s login password 'x'; comment on role %s is 'a;''b'; alter role %s set work_mem = '5MB';"+
			"grant set on parameter work_mem to %s;", role, role, role, role)
	}
	for i := 1; i < len(hostile); i++ {
		fmt.Fprintf(&script, "grant %s to %s with admin option;", pgtest.Quote(hostile[i-1]), pgtest.Quote(hostile[i]))
	}
	c.Exec(t, "postgres", script.String())
	c.Exec(t, "postgres", fmt.Sprintf(`create tablespace "sp;a'ce" owner %s location '%s'`, pgtest.Quote(hostile[2]), space))
	c.Exec(t, "postgres", `alter tablespace "sp;a'ce" set (random_page_cost = 3)`)
	c.Exec(t, "postgres", `grant create on tablespace "sp;a'ce" to plain; comment on tablespace "sp;a'ce" is 'x;'`)

	list, err := ParseGlobals(bytes.NewReader(pgTool(t, c, "pg_dumpall", "--globals-only")))
	if err != nil {
		t.Fatal(err)
	}
	found := map[GlobalKind][]string{}
	for _, g := range list {
		names := strings.Trim(strings.Join([]string{g.Role, g.Member, g.Grantor, g.Database, g.Tablespace, g.Location}, "|"), "|")
		found[g.Kind] = append(found[g.Kind], names)
	}
	roles := append(slices.Clone(hostile), c.User)
	var members []string
	for i, name := range hostile {
		if i > 0 {
			members = append(members, hostile[i-1]+"|"+name+"|"+c.User)
		}
	}
	for kind, want := range map[GlobalKind][]string{
		CreateRole: roles, AlterRole: roles, RoleSetting: hostile, RoleComment: hostile, Membership: members,
		CreateTablespace:  {"new\nline||||sp;a'ce|" + space},
		AlterTablespace:   {"sp;a'ce"},
		TablespaceComment: {"sp;a'ce"},
		Other:             nil,
	} {
		got := found[kind]
		slices.Sort(got)
		want = slices.Sorted(slices.Values(want))
		if !slices.Equal(got, want) {
			t.Errorf("kind %d: got %q, want %q", kind, got, want)
		}
	}
	if n := len(found[ParameterGrant]); n != len(hostile) {
		t.Errorf("got %d grants on parameters, want %d", n, len(hostile))
	}
	if len(found[Session]) == 0 || len(found[TablespaceACL]) == 0 || !slices.ContainsFunc(list, func(g GlobalStatement) bool { return g.Kind == AlterRole && strings.Contains(g.SQL, "SCRAM-SHA-256") }) {
		t.Errorf("got %v: session, tablespace or password statements are missing", found)
	}
}

// A real plain dump with rows that imitate its end must be whole, and be
// refused wherever it is cut.
func TestPlainDumpIsWholeOrRefused(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, `create table t (line text); insert into t values (''), ('--'), ('-- PostgreSQL database dump complete'), ('--'), (''), ('\.'), ('it''s;');
		create function f() returns int language sql begin atomic select case when true then 1 end; select 2; end;
		create function g() returns text language plpgsql as 'begin return $x$;$x$; end'`)
	dump := pgTool(t, c, "pg_dump", "-d", db)
	if err := CheckDump(bytes.NewReader(dump)); err != nil {
		t.Fatal(err)
	}
	var whole strings.Builder
	functions := 0
	err := Split(bytes.NewReader(dump), func(s Statement) error {
		whole.WriteString(s.Text)
		if strings.HasPrefix(s.Body(), "CREATE FUNCTION") {
			functions++
		}
		return nil
	})
	if err != nil || whole.String() != string(dump) || functions != 2 {
		t.Errorf("got error %v, the same text: %v, %d functions", err, whole.String() == string(dump), functions)
	}
	if !bytes.Contains(dump, []byte("\n--\n"+PlainDumpTrailer+"\n--\n\n\\\\.\n")) {
		t.Fatal("the dump holds no rows that look like its end")
	}
	end := bytes.LastIndex(dump, []byte(PlainDumpTrailer)) + len(PlainDumpTrailer)
	for cut := range end {
		var tail TailCheck
		tail.Write(dump[:cut])
		if err := tail.Complete(); !fault.Is(err, fault.Integrity) {
			t.Errorf("cut at byte %d: got error %v", cut, err)
		}
	}
	if err := CheckDump(bytes.NewReader(dump[:bytes.Index(dump, []byte("it's"))])); !fault.Is(err, fault.Integrity) || !strings.Contains(err.Error(), "rows of a COPY") {
		t.Errorf("cut inside the rows: got error %v", err)
	}
}

func TestTailCheck(t *testing.T) {
	const end = "\n--\n" + PlainDumpTrailer + "\n--\n\n"
	for name, test := range map[string]struct {
		dump string
		good bool
	}{
		"older pg_dump":      {"--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n" + end, true},
		"with a key":         {"--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\nSET x = 1;\n" + end + "\\unrestrict abc\n\n", true},
		"other key":          {"\\restrict abc\nSET x = 1;\n" + end + "\\unrestrict abd\n\n", false},
		"key missing":        {"\\restrict abc\nSET x = 1;\n" + end, false},
		"statement after it": {"SET x = 1;\n" + end + "DROP TABLE t;\n", false},
		"no trailer":         {"SET x = 1;\n", false},
		"cut trailer":        {"SET x = 1;\n--\n-- PostgreSQL database dump comp", false},
		"empty":              {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, piece := range []int{1, 7, 1 << 20} {
				var c TailCheck
				for chunk := range slices.Chunk([]byte(test.dump), piece) {
					if n, err := c.Write(chunk); n != len(chunk) || err != nil {
						t.Fatalf("got %d, %v", n, err)
					}
				}
				if err := c.Complete(); (err == nil) != test.good || err != nil && !fault.Is(err, fault.Integrity) {
					t.Errorf("pieces of %d: got error %v", piece, err)
				}
			}
		})
	}
}

// Statements of releases, and of options, that the server above does not show.
func TestParseGlobals(t *testing.T) {
	for sql, want := range map[string]GlobalStatement{
		`GRANT "a;" TO b WITH ADMIN OPTION, INHERIT FALSE, SET TRUE GRANTED BY "c d";`: {Kind: Membership, Role: "a;", Member: "b", Grantor: "c d"},
		`GRANT a TO b;`: {Kind: Membership, Role: "a", Member: "b"},
		`ALTER ROLE a IN DATABASE "d ""b" SET search_path TO 'x', 'y;z';`: {Kind: RoleSetting, Role: "a", Database: `d "b`},
		`ALTER ROLE ALL SET work_mem TO '1MB';`:                           {Kind: RoleSetting},
		`SECURITY LABEL FOR dummy ON ROLE a IS 'x';`:                      {Kind: SecurityLabel, Role: "a"},
		`SECURITY LABEL ON TABLESPACE t IS 'x';`:                          {Kind: SecurityLabel, Tablespace: "t"},
		`CREATE TABLESPACE t OWNER o LOCATION '/it''s';`:                  {Kind: CreateTablespace, Tablespace: "t", Role: "o", Location: "/it's"},
		`CREATE TABLESPACE t OWNER o LOCATION  E'/b\\s''';`:               {Kind: CreateTablespace, Tablespace: "t", Role: "o", Location: `/b\s'`},
		`CREATE TABLESPACE t OWNER o LOCATION '';`:                        {Kind: CreateTablespace, Tablespace: "t", Role: "o"},
		`REVOKE ALL ON TABLESPACE "T" FROM o;`:                            {Kind: TablespaceACL, Tablespace: "T"},
		`GRANT ALL ON PARAMETER work_mem TO a;`:                           {Kind: ParameterGrant},
		`GRANT SELECT ON TABLE t TO a;`:                                   {},
		`DROP ROLE a;`:                                                    {},
		`SET client_encoding = 'UTF8';`:                                   {Kind: Session},
	} {
		want.SQL = sql
		list, err := ParseGlobals(strings.NewReader("-- Roles\n" + sql + "\n"))
		if err != nil || len(list) != 1 || list[0] != want {
			t.Errorf("%s: got %+v, error %v", sql, list, err)
		}
	}
}
