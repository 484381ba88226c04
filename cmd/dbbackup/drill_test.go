package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
	"dbbackup/internal/store/dir"
)

// drillDir is a folder that the user of a throwaway server may enter. Its path
// is short enough for a socket's.
func drillDir(t testing.TB) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "drill-") // TempDir has the test's name in its path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	if err := os.Chmod(parent, 0o755); err != nil { //nolint:gosec // see above
		t.Fatal(err)
	}
	return parent
}

// wantGone checks that a drill left nothing in its folder.
func wantGone(t testing.TB, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) > 0 {
		t.Errorf("the drill left %v (%v)", entries, err)
	}
}

// wantStdout checks that each text stands in standard output.
func (r result) wantStdout(t testing.TB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(r.stdout, text) {
			t.Errorf("standard output: got %s\nwant %q in it", r.stdout, text)
		}
	}
}

// fullDatabase makes a database of what a drill looks at, with an owner and a
// tablespace of its own, which refuses to be changed.
func fullDatabase(t testing.TB, c *pgtest.Cluster, db string) {
	t.Helper()
	c.CreateDatabase(t, db)
	c.Exec(t, db, `CREATE TABLE branches (id int PRIMARY KEY, word text);
		INSERT INTO branches SELECT g, md5(g::text) FROM generate_series(1, 20) g;
		CREATE TABLE accounts (id int PRIMARY KEY, branch int REFERENCES branches, data bytea) TABLESPACE fast;
		INSERT INTO accounts SELECT g, 1 + g % 20, decode(md5(g::text), 'hex') FROM generate_series(1, 300) g;
		CREATE INDEX ON accounts (branch DESC, lower(data::text));
		CREATE TABLE parts (id int, at date) PARTITION BY RANGE (at);
		CREATE TABLE parts_old PARTITION OF parts DEFAULT; INSERT INTO parts SELECT g, '2020-01-01' FROM generate_series(1, 10) g;
		CREATE MATERIALIZED VIEW few AS SELECT * FROM accounts WHERE id < 10;
		SELECT lo_from_bytea(0, 'abc');
		ALTER TABLE accounts OWNER TO teller;
		CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no % here'', tg_tag; END';
		CREATE EVENT TRIGGER refuse ON ddl_command_start EXECUTE FUNCTION refuse();
		ALTER DATABASE `+pgtest.Quote(db)+` SET default_transaction_read_only = on`)
}

func TestDrillOfAClusterIsRecordedListedAndMeasured(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	makeTablespace(t, c, "fast")
	c.Exec(t, "postgres", "CREATE ROLE teller LOGIN PASSWORD 'secret'; GRANT CREATE ON TABLESPACE fast TO teller")
	fullDatabase(t, c, "app")
	c.CreateDatabase(t, "empty")
	store, folder, file := newStore(t), drillDir(t), filepath.Join(t.TempDir(), "metrics.prom")
	dbbackup(t, c.Env(), "backup", "cluster", "--mode", "chunked", "--store", store, "--metrics-file", file).must(t, exitOK)
	id := onlySet(t, store)
	if _, ok := readMetrics(t, file).value("dbbackup_database_last_drill_timestamp_seconds", "app"); ok {
		t.Error("the metrics tell of a drill before there was one")
	}
	if listing(t, store)[0].Drilled != nil {
		t.Error("list tells of a drill before there was one")
	}

	began := time.Now().Add(-time.Second)
	got := dbbackup(t, nil, "verify", "--drill", "--drill-dir", folder, "--store", store).must(t, exitOK)
	got.wantStdout(t, "is sound", "app", "330", id+" drilled: 4 databases restored into PostgreSQL", "are what was captured")
	if !regexp.MustCompile(`(?m)^app +chunked +\d+ +3[3-9]\d +[1-9]\d* +\S+ +ok$`).MatchString(got.stdout) {
		t.Errorf("no line for app: %s", got.stdout)
	}
	if strings.Contains(got.stdout+got.stderr, "not checked") {
		t.Error("indexes were not checked")
	}
	wantGone(t, folder)

	drilledText := regexp.MustCompile(`ok; drilled \d{4}-\d\d-\d\d, \d+ (s|min)`)
	if got := inProcess(t, nil, "list", "--store", store).must(t, exitOK); !drilledText.MatchString(got.stdout) {
		t.Errorf("list: got %s", got.stdout)
	}
	inProcess(t, nil, "show", "--store", store).must(t, exitOK).wantStdout(t, "drilled 2")
	sets := listing(t, store)
	if len(sets) != 1 || sets[0].Drilled == nil || sets[0].Drilled.Result != "ok" || sets[0].Drilled.At.Before(began) || sets[0].Drilled.Seconds <= 0 {
		t.Fatalf("list --json: got %+v", sets)
	}
	var shown struct {
		ID      string
		Drilled *drilled
	}
	inProcess(t, nil, "show", "--json", "--store", store).must(t, exitOK).decode(t, &shown)
	if shown.ID != id || shown.Drilled == nil {
		t.Errorf("show --json: got %+v", shown)
	}

	// The next set was not drilled; its databases were, as part of the first.
	dbbackup(t, c.Env(), "backup", "single", "app", "--store", store, "--metrics-file", file).must(t, exitOK)
	m := readMetrics(t, file)
	m.wantRecent(t, "dbbackup_database_last_drill_timestamp_seconds", "app", began)
	m.wantRecent(t, "dbbackup_database_last_drill_timestamp_seconds", "empty", began)
	if sets := listing(t, store); len(sets) != 2 || sets[1].Drilled != nil {
		t.Errorf("list --json: got %+v", sets)
	}
	// What cleans the store leaves the records alone.
	inProcess(t, nil, "gc", "--store", store).must(t, exitOK)
	if sets := listing(t, store); sets[0].Drilled == nil {
		t.Error("gc took the record of the drill")
	}
	for _, ref := range []string{"drills", filepath.Join(store, "drills"), "drill"} {
		inProcess(t, nil, "show", ref, "--store", store).want(t, exitNotFound)
	}
}

func TestDrillOfASingleDatabaseInEachMode(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	makeTablespace(t, c, "fast")
	c.Exec(t, "postgres", "CREATE ROLE teller")
	fullDatabase(t, c, "app")
	for _, mode := range modes {
		store, folder := captured(t, c, "app", "--mode", mode), drillDir(t)
		var got verifiedJSON
		dbbackup(t, nil, "verify", "--drill", "--json", "--drill-dir", folder, "--store", store).must(t, exitOK).decode(t, &got)
		d := got.Drill
		if got.Result != "ok" || d == nil || d.Result != "ok" || len(d.Databases) != 1 || len(d.Problems) != 0 || !d.Throwaway {
			t.Fatalf("%s: got %+v, %+v", mode, got, d)
		}
		one := d.Databases[0]
		if one.Name != "app" || one.Compared != (mode == "chunked") || one.Compared != (one.Rows == 330) || one.Indexes < 10 {
			t.Errorf("%s: got %+v", mode, one)
		}
		if one.Compared == slices.ContainsFunc(d.Notes, func(n string) bool { return strings.Contains(n, "were not compared") }) {
			t.Errorf("%s: notes %q", mode, d.Notes)
		}
		wantGone(t, folder)
	}
}

// One of every object passes: as part of its cluster, and by itself, where its
// roles and tablespaces come from the set, too.
func TestDrillOfTheZoo(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	c.CreateDatabase(t, "zoo")
	zoo.Load(t, c, "zoo")
	for _, args := range [][]string{{"cluster", "--mode", "chunked"}, {"single", "zoo", "--mode", "chunked", "--copy-format", "binary"}, {"single", "zoo", "--mode", "plain"}} {
		store, folder := newStore(t), drillDir(t)
		dbbackup(t, c.Env(), append([]string{"backup", "--store", store}, args...)...).must(t, exitOmissions)
		got := dbbackup(t, nil, "verify", "--drill", "--drill-dir", folder, "--store", store).must(t, exitOK)
		if strings.Contains(got.stdout+got.stderr, "not checked") || strings.Contains(got.stderr, "not quite") {
			t.Errorf("%q: the drill could not look at all of it", args)
		}
		wantGone(t, folder)
	}
}

// brokenUnique makes a table whose unique index holds the same key twice.
const brokenUnique = `CREATE TABLE doubled (id int, word text); CREATE UNIQUE INDEX doubled_id ON doubled (id);
	INSERT INTO doubled SELECT g, 'x' FROM generate_series(1, 50) g;
	UPDATE pg_index SET indisunique = false WHERE indexrelid = 'doubled_id'::regclass`

// orphan makes a row whose foreign key leads nowhere.
const orphan = `CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int CONSTRAINT child_of REFERENCES parent);
	INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1); SET session_replication_role = replica; INSERT INTO child VALUES (2, 424242)`

// T46: what can be read and not be restored is found out by the drill, and
// named. psql stops at the first such object of a plain dump.
func TestT46ReadableButNotRestorable(t *testing.T) {
	t.Parallel()
	for mode, named := range map[string][]string{"custom": {"doubled_id", "child_of"}, "plain": {"doubled_id"}, "chunked": {"doubled_id", "child_of"}} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := shared.Cluster(t)
			db := c.Database(t)
			for _, sql := range []string{brokenUnique, `INSERT INTO doubled VALUES (7, 'again')`,
				`UPDATE pg_index SET indisunique = true WHERE indexrelid = 'doubled_id'::regclass`, orphan} {
				c.Exec(t, db, sql)
			}
			store, folder := captured(t, c, db, "--mode", mode), drillDir(t)
			inProcess(t, nil, "verify", "--store", store).must(t, exitOK)
			got := dbbackup(t, nil, "verify", "--drill", "--drill-dir", folder, "--store", store)
			got.want(t, exitIntegrity, append(named, "is readable but not restorable", "database "+db, "hint: ")...)
			got.wantStdout(t, "is sound", "not restorable")
			wantGone(t, folder)
			wantFailedDrill(t, store, named...)
		})
	}
}

// wantFailedDrill checks that the store's only set is listed as one whose drill
// failed, and that the record names the objects and holds no row.
func wantFailedDrill(t testing.TB, store string, named ...string) {
	t.Helper()
	list := inProcess(t, nil, "list", "--store", store).must(t, exitOK)
	if !regexp.MustCompile(`\sDRILL FAILED \d{4}-\d\d-\d\d\n`).MatchString(list.stdout) || strings.Contains(list.stdout, "ok") {
		t.Errorf("list: got %s", list.stdout)
	}
	sets := listing(t, store)
	if len(sets) != 1 || sets[0].Drilled == nil || sets[0].Drilled.Result != "failed" {
		t.Fatalf("list --json: got %+v", sets)
	}
	records, err := filepath.Glob(filepath.Join(store, "drills", sets[0].ID, "*.json"))
	if err != nil || len(records) != 1 {
		t.Fatalf("records: got %q (%v), want one", records, err)
	}
	text := string(readFile(t, records[0]))
	for _, object := range named {
		if !strings.Contains(text, object) {
			t.Errorf("record: got %s, want %s named", text, object)
		}
	}
	if strings.Contains(text, "Key (") || strings.Contains(text, "424242") {
		t.Errorf("record: got %s, want no row in it", text)
	}
}

// An index that is new and yet does not fit its table is found by amcheck.
func TestDrillFindsAnIndexThatHidesRows(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	c.Exec(t, db, `CREATE FUNCTION public.noise(int) RETURNS float LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.random() + $1';
		CREATE INDEX noisy ON accounts (public.noise(id))`)
	store, folder := captured(t, c, db, "--mode", "chunked"), drillDir(t)
	got := dbbackup(t, nil, "verify", "--drill", "--drill-dir", folder, "--store", store)
	got.want(t, exitIntegrity, "indexes do not fit", "index public.noisy of table public.accounts")
	got.wantStdout(t, "different")
	wantFailedDrill(t, store, "public.noisy")
}

// A later drill that passes is what list shows then.
func TestDrillThatPassesAfterOneThatFailed(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	store, folder := captured(t, c, smallDatabase(t, c), "--mode", "custom"), drillDir(t)
	place, err := dir.Open(store, false)
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	id := onlySet(t, store)
	failed := backupset.Drill{Set: id, Result: backupset.DrillFailed, Started: time.Now().Add(-time.Hour), Seconds: 100}
	if err := backupset.WriteDrill(t.Context(), place, failed); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(store, "drills", id, "20200101T000000Z.json"), []byte("{}"), 0o600)
	inProcess(t, nil, "list", "--store", store).must(t, exitOK).want(t, exitOK, "20200101T000000Z.json, which is no record of a drill")
	inProcess(t, nil, "list", "--store", store).wantStdout(t, "DRILL FAILED")
	dbbackup(t, nil, "verify", "--drill", "--drill-dir", folder, "--store", store).must(t, exitOK)
	inProcess(t, nil, "list", "--store", store).wantStdout(t, "ok; drilled ")
}

// A drill on a server that is in use leaves it as it was, whatever it finds.
func TestDrillTargetIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	source, target := shared.Start(t), shared.Start(t)
	makeTablespace(t, source, "fast")
	source.Exec(t, "postgres", "CREATE ROLE teller")
	fullDatabase(t, source, "app")
	source.CreateDatabase(t, "doubled")
	source.Exec(t, "doubled", brokenUnique)
	source.Exec(t, "postgres", "ALTER DATABASE doubled IS_TEMPLATE true")
	t.Cleanup(func() { source.Exec(t, "postgres", "ALTER DATABASE doubled IS_TEMPLATE false") })
	store := newStore(t)
	dbbackup(t, source.Env(), "backup", "cluster", "--mode", "chunked", "--store", store).must(t, exitOK)
	target.CreateDatabase(t, "app") // somebody else's
	before := databasesOf(t, target)
	drilling := []string{"verify", "--drill", "--store", store, "--drill-target", target.URI("postgres")}

	got := dbbackup(t, nil, drilling...)
	got.want(t, exitPrecondition, "role teller does not exist", "tablespace fast does not exist", "nothing was written")
	if listing(t, store)[0].Drilled != nil {
		t.Error("a drill that could not be done was recorded")
	}
	makeTablespace(t, target, "fast")
	target.Exec(t, "postgres", "CREATE ROLE teller")
	dbbackup(t, nil, drilling...).must(t, exitOK).wantStdout(t, "drilled: 4 databases")
	if after := databasesOf(t, target); !slices.Equal(after, before) {
		t.Errorf("databases on the target: got %q, want %q", after, before)
	}

	source.Exec(t, "doubled", `INSERT INTO doubled VALUES (7, 'again')`)
	source.Exec(t, "doubled", `UPDATE pg_index SET indisunique = true WHERE indexrelid = 'doubled_id'::regclass`)
	dbbackup(t, source.Env(), "backup", "cluster", "--mode", "chunked", "--store", store).must(t, exitOK)
	dbbackup(t, nil, drilling...).want(t, exitIntegrity, "database doubled", "doubled_id")
	if after := databasesOf(t, target); !slices.Equal(after, before) {
		t.Errorf("databases on the target after a drill that failed: got %q, want %q", after, before)
	}
}

// slowRestore makes a database that never comes to an end of its restore in a drill.
func slowRestore(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := smallDatabase(t, c)
	c.Exec(t, db, `CREATE FUNCTION public.slow() RETURNS int LANGUAGE plpgsql AS
		'BEGIN IF current_database() LIKE ''dbbackup_%'' THEN PERFORM pg_sleep(600); END IF; RETURN 1; END';
		CREATE MATERIALIZED VIEW sleeper AS SELECT public.slow()`)
	return db
}

const sleeping = `SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'`

func TestDrillThatIsInterruptedLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"custom", "chunked"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := shared.Cluster(t)
			store, folder := captured(t, c, slowRestore(t, c), "--mode", mode), drillDir(t)
			r := start(t, nil, "verify", "--drill", "--drill-dir", folder, "--store", store)
			eventually(t, "the restore hangs", func() bool { return sleepsIn(t, folder) })
			if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			r.wait(t).want(t, exitTerminated, "interrupted by SIGTERM")
			wantGone(t, folder)
			if listing(t, store)[0].Drilled != nil {
				t.Error("the drill was recorded")
			}
		})
	}
}

// sleepsIn reports whether a session of the throwaway server in the folder sleeps.
func sleepsIn(t testing.TB, folder string) bool {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(folder, "*", ".s.PGSQL.5432"))
	if err != nil || len(sockets) != 1 {
		return false
	}
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("host=%s port=5432 user=postgres dbname=template1 sslmode=disable", filepath.Dir(sockets[0])))
	if err != nil {
		return false
	}
	defer conn.Close(t.Context())
	var n int
	return conn.QueryRow(t.Context(), sleeping).Scan(&n) == nil && n > 0
}

func TestDrillTargetThatIsInterruptedIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"custom", "chunked"} {
		t.Run(mode, func(t *testing.T) {
			c := shared.Start(t)
			store := captured(t, c, slowRestore(t, c), "--mode", mode)
			before := databasesOf(t, c)
			r := start(t, nil, "verify", "--drill", "--drill-target", c.URI("postgres"), "--store", store)
			eventually(t, "the restore hangs", func() bool { return c.QueryString(t, "postgres", sleeping) == "1" })
			if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			r.wait(t).want(t, exitTerminated, "interrupted by SIGTERM")
			if after := databasesOf(t, c); !slices.Equal(after, before) {
				t.Errorf("databases: got %q, want %q", after, before)
			}
		})
	}
}

func TestDrillPreconditions(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	store := captured(t, c, smallDatabase(t, c), "--mode", "custom")
	for _, args := range [][]string{{"--drill", "--quick"}, {"--drill-target", "host=x"}, {"--drill", "--drill-target", ""}, {"--drill", "--drill-dir", ""}} {
		dbbackup(t, nil, append([]string{"verify", "--store", store}, args...)...).want(t, exitUsage)
	}
	if os.Geteuid() == 0 { // the server's user may not enter this one
		got := dbbackup(t, nil, "verify", "--drill", "--drill-dir", t.TempDir(), "--store", store)
		got.want(t, exitPrecondition, "user postgres", "--drill-dir", "--drill-target")
	}
	edit(t, store, func(_ string, m *backupset.Manifest) { m.Server.VersionNum = 120000 })
	got := dbbackup(t, nil, "verify", "--drill", "--drill-dir", drillDir(t), "--store", store)
	got.want(t, exitPrecondition, "PostgreSQL 12", "hint: ", "--drill-target")
	if strings.Contains(got.stdout, "is sound") {
		t.Error("the missing programs were found out after all was read")
	}
	if listing(t, store)[0].Drilled != nil {
		t.Error("a drill that could not be done was recorded")
	}
}

// The digests tell every change of a row, and where it is.
func TestCompareNamesWhatDiffers(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, to := smallDatabase(t, c), c.FreeName(t)
	c.Exec(t, db, `CREATE TABLE untouched AS SELECT g AS id FROM generate_series(1, 10) g; CREATE TABLE gone AS SELECT 1 AS id;
		CREATE TABLE doubled AS SELECT g AS id FROM generate_series(1, 10) g`)
	store := captured(t, c, db, "--mode", "chunked")
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	if got := compareWith(t, c, store, to); len(got) != 0 {
		t.Fatalf("before any change: got %v", got)
	}
	c.Exec(t, to, `UPDATE accounts SET word = 'x' || substr(word, 2) WHERE id = 77; DELETE FROM branches WHERE id = 5;
		INSERT INTO doubled VALUES (3); DELETE FROM doubled WHERE ctid = (SELECT max(ctid) FROM doubled WHERE id = 4); DROP TABLE gone`)
	got := compareWith(t, c, store, to)
	want := map[string]string{
		"public.accounts": "its 300 rows are not those", "public.branches": "it has 199 rows, and 200 were captured",
		"public.doubled": "its 10 rows are not those", "public.gone": "the table is not there",
	}
	for _, d := range got {
		if text, ok := want[d.Table]; !ok || !strings.Contains(d.Text, text) {
			t.Errorf("%s: got %q, want %q", d.Table, d.Text, text)
		}
		delete(want, d.Table)
	}
	if len(want) > 0 {
		t.Errorf("not found: %v", want)
	}
}

// compareWith compares a database with the only one of a store's only set.
func compareWith(t testing.TB, c *pgtest.Cluster, store, database string) []pgcopy.Difference {
	t.Helper()
	place, err := dir.Open(store, false)
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	set, err := backupset.Open(t.Context(), place, onlySet(t, store))
	if err != nil {
		t.Fatal(err)
	}
	contents, err := set.Contents(t.Context(), &set.Manifest().Databases[0])
	if err != nil {
		t.Fatal(err)
	}
	params, err := pg.ParseParams(c.URI("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := pg.Resolve(t.Context(), pg.Options{Params: params, Env: []string{"HOME=" + t.TempDir()}, Application: "drill test"})
	if err != nil {
		t.Fatal(err)
	}
	differences, err := pgcopy.Compare(t.Context(), endpoint, database, contents, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	return differences
}
