package pgcopy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// oddities are what a script stumbles over: names that are shell and psql code,
// text that looks like COPY's own, columns that nobody may insert into, values too
// large for a JSON number, an event trigger that forbids what a restore ends with.
const oddities = `
	CREATE TABLE "$(touch pwned)
'it"" :x \echo é" (id int GENERATED ALWAYS AS IDENTITY, "col"";:'é" text, twice text GENERATED ALWAYS AS (repeat("col"";:'é", 2)) STORED);
	INSERT INTO "$(touch pwned)
'it"" :x \echo é" ("col"";:'é") VALUES ('\.'), (E'a\tb\nc\\d\r'), (NULL), ('é'), ('');
	CREATE TABLE bytes (id int, body bytea, label text); INSERT INTO bytes SELECT g, decode(md5(g::text), 'hex'), 'é' FROM generate_series(1, 300) g;
	CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES; INSERT INTO nothing DEFAULT VALUES;
	CREATE TABLE empty (id int);
	CREATE TABLE wide (id int GENERATED ALWAYS AS IDENTITY, "a""é" text, b bytea, n numeric);
	ALTER TABLE wide ALTER "a""é" SET STORAGE EXTERNAL;
	INSERT INTO wide ("a""é", b, n) SELECT repeat('x', CASE WHEN g % 3 = 0 THEN 700000 ELSE 10 END), decode(repeat('00ff', g), 'hex'), g FROM generate_series(1, 6) g;
	CREATE TABLE huge (body text); ALTER TABLE huge ALTER body SET STORAGE EXTERNAL; INSERT INTO huge VALUES (repeat('x', 1200000));
	CREATE TYPE mood AS ENUM ('sad', 'happy');
	CREATE TABLE moods (m mood, id int) PARTITION BY HASH (m);
	CREATE TABLE moods_0 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 0);
	CREATE TABLE moods_1 PARTITION OF moods FOR VALUES WITH (MODULUS 2, REMAINDER 1);
	INSERT INTO moods SELECT CASE WHEN g % 2 = 0 THEN 'sad' ELSE 'happy' END::mood, g FROM generate_series(1, 50) g;
	CREATE SEQUENCE "large""é"; SELECT setval('"large""é"', 9223372036854775806);
	CREATE SEQUENCE fresh MINVALUE -5 START -3;
	CREATE MATERIALIZED VIEW "sum""é" AS SELECT count(*) AS n FROM bytes; CREATE MATERIALIZED VIEW twice AS SELECT n * 2 AS n FROM "sum""é";
	CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS one WITH NO DATA;
	SELECT lo_from_bytea(50000, decode(repeat('00ff', 1500000), 'hex')), lo_from_bytea(50001, 'small'), lo_create(50002);
	ALTER LARGE OBJECT 50001 OWNER TO "own""er"; GRANT SELECT ON LARGE OBJECT 50001 TO PUBLIC; GRANT UPDATE ON LARGE OBJECT 50000 TO "own""er" WITH GRANT OPTION;
	COMMENT ON LARGE OBJECT 50001 IS E'it''s\ta \\ comment é';
	CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
	CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('REFRESH MATERIALIZED VIEW') EXECUTE FUNCTION refuse();`

// A set restores without this program, in every encoding, with chunks of an older
// set and rows in pieces.
func TestRestoreByHand(t *testing.T) {
	c := shared.Cluster(t)
	c.Exec(t, "postgres", `DO $$ BEGIN CREATE ROLE "own""er"; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	for _, encoding := range []string{"UTF8", "LATIN1", "SQL_ASCII"} {
		t.Run(encoding, func(t *testing.T) {
			db, to := "by_hand_"+strings.ToLower(encoding), "it's \\ \"$(touch pwned)\"\n"+encoding
			create(t, c, db, encoding)
			create(t, c, to, encoding)
			c.Exec(t, db, oddities)
			s := newSite(t, c, db)
			wide := func(c *capture) { c.limits.wideOver, c.limits.refuse = 1000, refuseRows }
			s.settle(t)
			first := s.capture(t, shot{tune: wide})
			c.Exec(t, db, "UPDATE bytes SET label = 'ü' WHERE id = 7; SELECT nextval('fresh')")
			set := s.capture(t, shot{base: first.base(), tune: wide})
			if len(set.References) == 0 || set.table(t, "wide").WideOver == 0 {
				t.Fatalf("the test shows too little: %d references, %+v", len(set.References), set.table(t, "wide"))
			}
			s.byHand(t, set, to)
			zoo.Compare(t, c, db, c, to)
		})
	}
}

// What is damaged or missing is found before anything is written, and a database
// that is not empty is not written to.
func TestRestoreByHandRefuses(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, "CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 1000) g")
	s.settle(t)
	first := s.capture(t, shot{})
	set := s.capture(t, shot{base: first.base()})
	to := c.Database(t)
	for _, tt := range []struct {
		what, name, to, want string
		code                 int
		break_               func()
	}{
		{"the source itself", s.db, s.db, "must exist and be empty", 14, nil},
		{"no such target", s.db, "nowhere", "must exist and be empty", 14, nil},
		{"no such database", "nothing", to, "no database nothing", 10, nil},
		{"a damaged base", s.db, to, "is damaged", 13, func() {
			flip(t, filepath.Join(s.root, first.set.ID(), first.table(t, "t").Chunks[0].Object))
		}},
		{"a base that is gone", s.db, to, "is damaged", 13, func() { must(t, os.RemoveAll(filepath.Join(s.root, first.set.ID()))) }},
	} {
		if tt.break_ != nil {
			tt.break_()
		}
		out, code := s.script(t, set, tt.name, tt.to)
		if code != tt.code || !strings.Contains(out, tt.want) {
			t.Errorf("%s: exit code %d, %s\nwant %d and %q", tt.what, code, out, tt.code, tt.want)
		}
		if n := c.QueryString(t, to, "SELECT count(*) FROM pg_class WHERE relname = 't'"); n != "0" {
			t.Errorf("%s: something was written", tt.what)
		}
	}
}

// flip changes a bit of a file's last byte.
func flip(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)-1] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
}

func create(t *testing.T, c *pgtest.Cluster, db, encoding string) {
	t.Helper()
	c.Exec(t, "postgres", "CREATE DATABASE "+pgtest.Quote(db)+" TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING '"+encoding+"'")
	t.Cleanup(func() { c.DropDatabase(t, db) })
}

// byHand restores a set the way that docs/runbook-without-the-tool.md says.
func (s *site) byHand(t *testing.T, set captured, to string) {
	t.Helper()
	if out, code := s.script(t, set, s.db, to); code != 0 {
		t.Fatalf("exit code %d\n%s", code, out)
	}
}

func (s *site) script(t *testing.T, set captured, name, to string) (output string, code int) {
	t.Helper()
	path, err := filepath.Abs("../../../scripts/restore-chunked.sh")
	must(t, err)
	cmd := exec.Command(path, filepath.Join(s.root, set.set.ID()), name, to) //nolint:gosec // the script that is tested
	cmd.Env = append(s.cluster.Env(), "PATH="+s.cluster.BinDir+":"+os.Getenv("PATH"), "TMPDIR="+t.TempDir())
	cmd.Dir = t.TempDir()
	out, _ := cmd.CombinedOutput()
	for _, dir := range []string{cmd.Dir, s.root} {
		if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
			t.Error("a name was run by a shell")
		}
	}
	return string(out), cmd.ProcessState.ExitCode()
}
