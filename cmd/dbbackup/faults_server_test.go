package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
)

// manifestOf reads the manifest of the store's only set.
func manifestOf(t testing.TB, store string) backupset.Manifest {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(store, "*", "manifest.json"))
	if err != nil || len(paths) != 1 {
		t.Fatalf("manifests: %v, %v; want one", paths, err)
	}
	var m backupset.Manifest
	if err := json.Unmarshal(readFile(t, paths[0]), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// loginRole makes a role that can log in and returns the environment for it.
// The cluster is the test's own: nobody drops the role.
func loginRole(t testing.TB, c *pgtest.Cluster, name, password, attributes string) []string {
	t.Helper()
	c.Exec(t, "postgres", "CREATE ROLE "+pgtest.Quote(name)+" LOGIN PASSWORD '"+strings.ReplaceAll(password, "'", "''")+"' "+attributes)
	return []string{"PGHOST=" + c.Host, "PGPORT=" + strconv.Itoa(c.Port), "PGUSER=" + name, "PGPASSWORD=" + password}
}

// wantOmission checks that the manifest declares what is not in the set.
func wantOmission(t testing.TB, m backupset.Manifest, database, object string) {
	t.Helper()
	if !slices.ContainsFunc(m.Omissions, func(o backupset.Omission) bool {
		return o.Database == database && strings.Contains(o.Object, object)
	}) {
		t.Errorf("omissions: got %+v, want %s of %q", m.Omissions, object, database)
	}
}

// T53: a role that row security applies to must not make a backup without the
// rows that it does not see.
func TestT53RowSecurityIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db := c.Database(t)
	c.Exec(t, db, `
		CREATE TABLE filtered AS SELECT g FROM generate_series(1, 1000) g;
		ALTER TABLE filtered ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON filtered USING (g <= 500);
		CREATE SCHEMA "My Schema"; CREATE TABLE "My Schema"."forced" AS SELECT g FROM generate_series(1, 1000) g;
		ALTER TABLE "My Schema"."forced" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
		CREATE TABLE open AS SELECT g FROM generate_series(1, 1000) g`)
	env := loginRole(t, c, "keeper", "secret", "IN ROLE pg_read_all_data")
	for _, mode := range modes {
		store := newStore(t)
		got := dbbackup(t, env, "backup", "single", db, "--store", store, "--mode", mode)
		got.want(t, exitPrecondition, "filtered", "My Schema.forced", "keeper", "BYPASSRLS", `hint: ALTER ROLE "keeper" BYPASSRLS`)
		if strings.Contains(got.stderr, "open") {
			t.Errorf("a table without row security is named: %s", got.stderr)
		}
		wantEmpty(t, store)
	}
	c.Exec(t, "postgres", "ALTER ROLE keeper BYPASSRLS")
	store := newStore(t)
	dbbackup(t, env, "backup", "single", db, "--store", store).want(t, exitOmissions)
	dbbackup(t, c.Env(), "restore", "single", db, "--store", store, "--target-db", "copied").must(t, exitOK)
	for _, table := range []string{"filtered", `"My Schema"."forced"`, "open"} {
		if n := c.QueryString(t, "copied", "SELECT count(*) FROM "+table); n != "1000" {
			t.Errorf("%s: %s rows came back, want 1000", table, n)
		}
	}
}

// T54: what the role and the database set must not change what is captured.
func TestT54HostileSettingsOfTheSource(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db := c.Database(t)
	c.Exec(t, db, `CREATE TABLE t AS SELECT g AS id, date '2020-03-04' + g AS day, interval '1 day -2 hours' * g AS span,
			1 / g::float8 AS ratio, 'back\slash' || chr(200 + g) AS word, decode('00ff5c27', 'hex') AS raw FROM generate_series(1, 500) g;
		CREATE SCHEMA evil; CREATE TABLE evil.pg_class (relname text)`)
	env := loginRole(t, c, "hostile", "secret", "SUPERUSER")
	for _, set := range []string{
		"datestyle = 'SQL, DMY'", "intervalstyle = sql_standard", "extra_float_digits = -10", "bytea_output = escape",
		"search_path = evil, pg_catalog", "client_encoding = LATIN1", "default_transaction_read_only = on",
		"standard_conforming_strings = off", "statement_timeout = '150ms'", "lock_timeout = '1ms'",
		"idle_in_transaction_session_timeout = '1ms'", "idle_session_timeout = '150ms'", "row_security = on",
		"default_transaction_isolation = serializable", "timezone = 'Asia/Kathmandu'",
	} {
		c.Exec(t, "postgres", "ALTER ROLE hostile SET "+set)
		c.Exec(t, "postgres", "ALTER ROLE hostile IN DATABASE "+db+" SET "+set)
	}
	for _, mode := range modes {
		store, to := newStore(t), "copied_"+mode
		dbbackup(t, append(env, "PGCLIENTENCODING=LATIN1", "PGDATESTYLE=SQL, DMY", "PGTZ=Asia/Kathmandu"),
			"backup", "single", db, "--store", store, "--mode", mode).want(t, exitOK)
		dbbackup(t, c.Env(), "restore", "single", db, "--store", store, "--target-db", to).must(t, exitOK)
		const content = "SELECT string_agg(t::text, E'\\n' ORDER BY id) FROM t"
		if want, got := c.QueryString(t, db, content), c.QueryString(t, to, content); got != want || got == "" {
			t.Errorf("mode %s: the table came back different", mode)
		}
	}
}

// T55: a table that somebody holds fails the run in bounded time, and the
// holder is named.
func TestT55HeldTableFailsAfterTheLockTimeout(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db := smallDatabase(t, c)
		lockTable(t, c, db, "branches")
		holder := c.QueryString(t, "postgres", "SELECT pid FROM pg_stat_activity WHERE datname = '"+db+"' AND query LIKE 'LOCK TABLE branches%'")
		store, mark, began := newStore(t), marker(t), time.Now()
		got := dbbackup(t, append(c.Env(), mark), "backup", "single", db, "--store", store, "--mode", mode, "--lock-timeout", "2500ms")
		got.want(t, exitFailed, db, "pid "+holder, "LOCK TABLE branches IN ACCESS EXCLUSIVE MODE", "hint: end that session, or allow a longer --lock-timeout")
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("the run took %s", took)
		}
		wantNoSet(t, store, mode)
		wantNoTrace(t, c, db, mark)
	})
}

// conflictShim is a pg_dump that, the first times it is called, waits until
// the standby has cancelled a transaction of the database, and then runs.
func conflictShim(t *testing.T, standby *pgtest.Cluster, db, folder string, times int) []string {
	t.Helper()
	return shim(t, standby, fmt.Sprintf(`
n=$(ls %[1]s | wc -l)
if [ "$n" -lt %[2]d ]; then
	conflicts() { "%[3]s/psql" -XAtwd "$source" -c "SELECT sum(confl_snapshot) FROM pg_stat_database_conflicts WHERE datname = '%[4]s'"; }
	before=$(conflicts)
	touch %[1]s/$n
	for i in $(seq 200); do [ "$(conflicts)" = "$before" ] || break; sleep 0.1; done
fi
exec "$real" "$@"`, folder, times, standby.BinDir, db))
}

// provoke removes rows on the primary that the standby's snapshots still see,
// once for each call of the shim.
func provoke(t *testing.T, primary *pgtest.Cluster, db, folder string, times int) {
	t.Helper()
	for i := range times {
		eventually(t, "pg_dump was started "+strconv.Itoa(i+1)+" times", func() bool {
			_, err := os.Stat(filepath.Join(folder, strconv.Itoa(i)))
			return err == nil
		})
		primary.Exec(t, db, "UPDATE accounts SET word = word || 'x'")
		primary.Exec(t, db, "VACUUM accounts")
	}
}

// T60: a standby cancels what stands in the way of replay. The capture is
// tried again, a bounded number of times, and the advice is printed.
func TestT60Standby(t *testing.T) {
	t.Parallel()
	primary := shared.Start(t, pgtest.WithSetting("max_standby_streaming_delay", "0"))
	db := smallDatabase(t, primary)
	primary.Exec(t, db, "CREATE UNLOGGED TABLE gone AS SELECT 1 AS x")
	standby := primary.Standby(t)
	primary.AwaitReplay(t, standby)

	t.Run("works otherwise", func(t *testing.T) {
		store := newStore(t)
		dbbackup(t, standby.Env(), "backup", "cluster", "--store", store).want(t, exitOmissions)
		m := manifestOf(t, store)
		wantOmission(t, m, db, `unlogged table "public"."gone"`)
		if !m.Server.Standby || m.Server.Timeline != 1 || m.Server.SystemIdentifier == "" {
			t.Errorf("server %+v", m.Server)
		}
		for _, d := range m.Databases {
			if d.Snapshot.LSN == "" || d.Snapshot.XMin == 0 || d.Snapshot.XMax < d.Snapshot.XMin {
				t.Errorf("%s: snapshot %+v", d.Name, d.Snapshot)
			}
		}
		dbbackup(t, primary.Env(), "restore", "single", db, "--store", store, "--target-db", "copied").must(t, exitOK)
		if n := primary.QueryString(t, "copied", "SELECT count(*) FROM accounts"); n != "300" {
			t.Errorf("%s rows came back", n)
		}
		primary.DropDatabase(t, "copied")
		primary.AwaitReplay(t, standby)
	})
	t.Run("one conflict is survived", func(t *testing.T) {
		store, folder := newStore(t), t.TempDir()
		r := start(t, conflictShim(t, standby, db, folder, 1), "backup", "single", db, "--store", store)
		provoke(t, primary, db, folder, 1)
		r.wait(t).want(t, exitOmissions, "the capture is tried again")
		if m := manifestOf(t, store); m.Databases[0].Attempts != 2 {
			t.Errorf("attempts: got %d, want 2", m.Databases[0].Attempts)
		}
		wantSound(t, store, 1)
	})
	t.Run("but not for ever", func(t *testing.T) {
		store, folder := newStore(t), t.TempDir()
		r := start(t, conflictShim(t, standby, db, folder, 9), "backup", "single", db, "--store", store, "--attempts", "2")
		provoke(t, primary, db, folder, 2)
		got := r.wait(t)
		got.want(t, exitFailed, db, "hint: raise max_standby_streaming_delay", "hot_standby_feedback")
		if n := strings.Count(got.stderr, "the capture is tried again"); n != 1 {
			t.Errorf("tried again %d times, want once", n)
		}
		wantEmpty(t, store)
	})
}

// T60: what the standby cancels may be a program of PostgreSQL alone, here for the
// lock of a table that no snapshot of ours sees.
func TestT60ProgramAloneIsCancelled(t *testing.T) {
	t.Parallel()
	primary := shared.Start(t, pgtest.WithSetting("max_standby_streaming_delay", "0"))
	db := smallDatabase(t, primary)
	standby := primary.Standby(t)
	primary.AwaitReplay(t, standby)
	for _, tc := range []struct {
		program, in    string // whose table it is
		mode, attempts string
		code           int
	}{
		{"pg_dump", db, "custom", "2", exitOK},
		{"pg_dump", db, "custom", "1", exitFailed},
		{"pg_dump", db, "chunked", "2", exitOK},
		{"pg_dump", db, "chunked", "1", exitFailed},
		{"pg_dumpall", "postgres", "custom", "2", exitOK},
		{"pg_dumpall", "postgres", "custom", "1", exitFailed},
	} {
		store, folder := newStore(t), t.TempDir()
		env := shimOf(t, standby, tc.program, fmt.Sprintf(`
[ -e %[1]s/called ] && exec "$real" "$@"
touch %[1]s/called
until [ -e %[1]s/go ]; do sleep 0.1; done
exec "%[2]s/psql" -Xw -v ON_ERROR_STOP=1 -d "$source" -c BEGIN -c 'LOCK TABLE late IN ACCESS SHARE MODE' -c 'SELECT pg_sleep(60)'`, folder, standby.BinDir))
		r := start(t, env, "backup", "single", db, "--store", store, "--mode", tc.mode, "--attempts", tc.attempts)
		eventually(t, tc.program+" was started", func() bool {
			_, err := os.Stat(filepath.Join(folder, "called"))
			return err == nil
		})
		primary.Exec(t, tc.in, "CREATE TABLE late(i int)")
		primary.AwaitReplay(t, standby)
		writeFile(t, filepath.Join(folder, "go"), nil, 0o600)
		eventuallySession(t, standby, tc.in, "pg_sleep")
		primary.Exec(t, tc.in, "DROP TABLE late")
		got := r.wait(t)
		got.want(t, tc.code, "the standby cancelled the capture")
		if tc.code == exitOK {
			wantSound(t, store, 1)
		} else {
			got.want(t, tc.code, "hint: raise max_standby_streaming_delay")
		}
	}
}

// T62: more tables than the server has room for locks.
func TestT62TooManyTablesForTheLockTable(t *testing.T) {
	t.Parallel()
	c := shared.Start(t, pgtest.WithSetting("max_locks_per_transaction", "10"), pgtest.WithSetting("max_connections", "10"))
	db := c.Database(t)
	makeTables := func(from, to int) {
		c.Exec(t, db, fmt.Sprintf(`DO $$ BEGIN FOR i IN %d..%d LOOP EXECUTE format('CREATE TABLE t%%s (i int)', i); COMMIT; END LOOP; END $$`, from, to))
	}
	makeTables(1, 110)
	store := newStore(t)
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store).want(t, exitOK, "110 relations to lock", "max_locks_per_transaction = 11")
	makeTables(111, 300)
	store = newStore(t)
	got := dbbackup(t, c.Env(), "backup", "single", db, "--store", store)
	got.want(t, exitPrecondition, db+" has 300 relations to lock", "room for 100 locks (max_locks_per_transaction = 10)",
		"hint: set max_locks_per_transaction = 30 and restart the server")
	wantEmpty(t, store)
	c.Exec(t, "postgres", "ALTER SYSTEM SET max_locks_per_transaction = 30")
	c.Restart(t)
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store).want(t, exitOK)
	wantSound(t, store, 1)
}

// T62: the native engine holds each lock three times, which is counted.
func TestT62LocksOfTheNativeEngine(t *testing.T) {
	t.Parallel()
	c := shared.Start(t, pgtest.WithSetting("max_locks_per_transaction", "10"), pgtest.WithSetting("max_connections", "10"))
	db := c.Database(t)
	c.Exec(t, db, `DO $$ BEGIN FOR i IN 1..75 LOOP EXECUTE format('CREATE TABLE t%s (i int)', i); COMMIT; END LOOP; END $$`)
	backup := func(mode string) (string, result) {
		store := newStore(t)
		return store, dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", mode, "--max-connections", "6")
	}
	if _, got := backup("custom"); strings.Contains(got.stderr, "to lock") {
		t.Errorf("pg_dump has room for 75 locks of 100: %s", got.stderr)
	}
	store, got := backup("chunked")
	got.want(t, exitOK, "75 relations to lock in three sessions, which take the room of 113 locks, more than the 100", "max_locks_per_transaction = 12")
	wantSound(t, store, 1)
	c.Exec(t, db, `DO $$ BEGIN FOR i IN 76..110 LOOP EXECUTE format('CREATE TABLE t%s (i int)', i); COMMIT; END LOOP; END $$`)
	store, got = backup("chunked")
	got.want(t, exitPrecondition, "110 relations to lock", "the room of 165 locks", "hint: set max_locks_per_transaction = 17 and restart the server")
	wantEmpty(t, store)
	c.Exec(t, "postgres", "ALTER SYSTEM SET max_locks_per_transaction = 17")
	c.Restart(t)
	store, got = backup("chunked")
	if got.want(t, exitOK); strings.Contains(got.stderr, "to lock") {
		t.Errorf("there is room now: %s", got.stderr)
	}
	wantSound(t, store, 1)
}

// In a cluster, one database with too many tables does not take the others
// with it (B4).
func TestT62OthersAreStillCaptured(t *testing.T) {
	t.Parallel()
	c := shared.Start(t, pgtest.WithSetting("max_locks_per_transaction", "10"), pgtest.WithSetting("max_connections", "10"))
	c.CreateDatabase(t, "many")
	c.CreateDatabase(t, "few")
	c.Exec(t, "many", `DO $$ BEGIN FOR i IN 1..200 LOOP EXECUTE format('CREATE TABLE t%s (i int)', i); COMMIT; END LOOP; END $$`)
	store := newStore(t)
	dbbackup(t, c.Env(), "backup", "cluster", "--store", store, "--parallel-databases", "1").want(t, exitFailed, "database many has 200 relations")
	m := manifestOf(t, store)
	if len(m.Failures) != 1 || m.Failures[0].Database != "many" {
		t.Errorf("failures %+v", m.Failures)
	}
	if !slices.ContainsFunc(m.Databases, func(d backupset.Database) bool { return d.Name == "few" }) {
		t.Errorf("databases %+v", m.Databases)
	}
}

// T101: a role that is no superuser makes a backup, and what it cannot see is
// declared.
func TestT101ModestRoleDeclaresWhatItLeavesOut(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	c.CreateDatabase(t, "app")
	c.CreateDatabase(t, "closed")
	c.Exec(t, "app", `CREATE TABLE t AS SELECT generate_series(1, 10) i;
		CREATE EXTENSION postgres_fdw; CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;
		CREATE FOREIGN TABLE distant (i int) SERVER other; CREATE USER MAPPING FOR postgres SERVER other OPTIONS (password 'hidden one');
		CREATE SUBSCRIPTION sub CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)`)
	c.Exec(t, "postgres", "ALTER DATABASE closed ALLOW_CONNECTIONS false")
	env := loginRole(t, c, "modest", "secret", "IN ROLE pg_read_all_data")

	store := newStore(t)
	dbbackup(t, env, "backup", "cluster", "--store", store).want(t, exitOmissions)
	m := manifestOf(t, store)
	wantOmission(t, m, "closed", "whole database")
	wantOmission(t, m, "", "some settings of the server")
	wantOmission(t, m, "app", `foreign table "public"."distant"`)
	wantOmission(t, m, "app", "1 subscriptions")
	wantOmission(t, m, "app", "options of 1 user mappings")
	for _, d := range m.Databases {
		if d.Name == "closed" {
			t.Error("a database that nobody can connect to is listed as captured")
		}
	}
	wantSound(t, store, 1)
	dbbackup(t, c.Env(), "restore", "single", "app", "--store", store, "--target-db", "copied").must(t, exitOK)
	if n := c.QueryString(t, "copied", "SELECT count(*) FROM t"); n != "10" {
		t.Errorf("%s rows came back", n)
	}
}

// T101: whether role verifiers are in a set is in its manifest, and is true.
func TestT101GlobalsSayWhetherTheyHoldPasswords(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	plain := loginRole(t, c, "plain", "secret", "")
	c.Exec(t, "postgres", "GRANT SELECT ON ALL TABLES IN SCHEMA pg_catalog TO PUBLIC; REVOKE ALL ON pg_authid FROM PUBLIC")
	for name, test := range map[string]struct {
		env       []string
		code      int
		passwords bool
	}{
		"superuser":  {c.Env(), exitOK, true},
		"plain role": {plain, exitOmissions, false},
	} {
		store := newStore(t)
		dbbackup(t, test.env, "backup", "single", "postgres", "--store", store).want(t, test.code)
		m := manifestOf(t, store)
		if m.Globals == nil || m.Globals.RolePasswords != test.passwords {
			t.Fatalf("%s: globals %+v", name, m.Globals)
		}
		path := filepath.Join(store, m.ID, m.Globals.Object)
		sql := string(readFile(t, path))
		if strings.Contains(sql, "SCRAM-SHA-256") != test.passwords || !strings.Contains(sql, `CREATE ROLE "plain"`) {
			t.Errorf("%s: globals are\n%s", name, sql)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", name, info.Mode(), err)
		}
		if !test.passwords {
			wantOmission(t, m, "", "passwords of roles")
		}
	}
}

// A single database that is closed is an error, not an empty set.
func TestT101ClosedDatabaseAloneIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, "postgres", "ALTER DATABASE "+db+" ALLOW_CONNECTIONS false")
	store := newStore(t)
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store).want(t, exitPrecondition, db, "hint: ALTER DATABASE")
	wantEmpty(t, store)
}

// The server goes down and comes back while pg_dump runs: the database is
// captured again.
func TestServerThatComesBackIsTriedAgain(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db := smallDatabase(t, c)
	folder, store := t.TempDir(), newStore(t)
	env := shim(t, c, fmt.Sprintf(`
if [ ! -e %[1]s/begun ]; then touch %[1]s/begun; until [ -e %[1]s/again ]; do sleep 0.05; done; fi
exec "$real" "$@"`, folder))
	r := start(t, env, "backup", "single", db, "--store", store)
	eventually(t, "pg_dump was started", func() bool { _, err := os.Stat(filepath.Join(folder, "begun")); return err == nil })
	c.Kill(t)
	c.Restart(t)
	writeFile(t, filepath.Join(folder, "again"), nil, 0o600)
	r.wait(t).want(t, exitOK, "the capture is tried again")
	if m := manifestOf(t, store); m.Databases[0].Attempts != 2 {
		t.Errorf("attempts: got %d, want 2", m.Databases[0].Attempts)
	}
	wantSound(t, store, 1)
}

// loggingTo is a wrapper for startUnder that keeps standard error in a file,
// so that it can be read while the process runs.
func loggingTo(file string) []string {
	return []string{"sh", "-c", `file=$1; shift; exec "$@" 2>"$file"`, "sh", file}
}

func TestServerThatIsNotUpYetIsWaitedFor(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db := smallDatabase(t, c)
	c.Stop(t)
	log, store := filepath.Join(t.TempDir(), "log"), newStore(t)
	r := startUnder(t, c.Env(), loggingTo(log), "backup", "single", db, "--store", store)
	eventually(t, "the program says that it tries again", func() bool {
		text, _ := os.ReadFile(log)
		return strings.Contains(string(text), "trying again")
	})
	c.Restart(t)
	if got := r.wait(t); got.code != exitOK {
		t.Errorf("exit code: got %d, want 0\n%s", got.code, readFile(t, log))
	}
	wantSound(t, store, 1)
}

func TestServerThatStaysAwayIsGivenUp(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	c.Stop(t)
	store, began := newStore(t), time.Now()
	got := dbbackup(t, c.Env(), "backup", "cluster", "--store", store)
	got.want(t, exitFailed, "connection refused", strconv.Itoa(c.Port), "hint: check the host")
	if n := strings.Count(got.stderr, "trying again"); n != 4 {
		t.Errorf("tried again %d times, want 4", n)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the run took %s", took)
	}
	if _, err := os.Stat(store); err == nil {
		wantEmpty(t, store)
	}
}

// An interrupted wait for the server ends at once.
func TestWaitForTheServerCanBeInterrupted(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	c.Stop(t)
	log := filepath.Join(t.TempDir(), "log")
	r := startUnder(t, c.Env(), loggingTo(log), "probe")
	attempts := func() int {
		text, _ := os.ReadFile(log)
		return strings.Count(string(text), "trying again")
	}
	eventually(t, "the program waits", func() bool { return attempts() >= 2 })
	before := attempts()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if got := r.wait(t); got.code != exitInterrupted || attempts() > before+1 { // one may have been on its way
		t.Errorf("exit code %d after %d more attempts", got.code, attempts()-before)
	}
}
