package pgcopy

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
)

// What changes how rows read, or where they lie, without making them younger.
func TestProofKnowsWhatElseChangesRows(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	// Each case has a schema of its own, so that all of them cost one capture.
	const schema = `CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, m mood); CREATE DOMAIN feeling AS mood;
		CREATE TABLE row_of (a int, b text);
		CREATE TABLE t (y text, x text, m mood NOT NULL, ms mood[], p pair, f feeling, r row_of);
		INSERT INTO t SELECT 'y' || i, 'x' || i, 'sad', '{sad,glad}', (i, 'sad')::pair, 'sad', (i, 'b')::row_of FROM generate_series(1, 700) i;
		CREATE TABLE u (LIKE t); INSERT INTO u SELECT 'u' || i, 'x' || i, 'glad' FROM generate_series(1, 500) i;`
	cases := map[string]struct {
		sql  string
		want string // reused, read, or either
	}{
		"nothing":                     {"SELECT 1", "reused"},
		"vacuum freeze":               {"VACUUM (FREEZE) t", "reused"},
		"a table beside it":           {"UPDATE u SET x = 'other'; ALTER TABLE u ADD c int DEFAULT 5", "reused"},
		"lock only":                   {"SELECT count(*) FROM (SELECT 1 FROM t FOR UPDATE) s", "reused"},
		"rolled back":                 {"BEGIN; UPDATE t SET x = 'gone'; ROLLBACK", "reused"},
		"column with a default":       {"ALTER TABLE t ADD c int NOT NULL DEFAULT 7", "read"},
		"column without a default":    {"ALTER TABLE t ADD c int", "read"},
		"column dropped":              {"ALTER TABLE t DROP x", "read"},
		"columns' names swapped":      {"ALTER TABLE t RENAME x TO z; ALTER TABLE t RENAME y TO x; ALTER TABLE t RENAME z TO y", "read"},
		"type without a rewrite":      {"ALTER TABLE t ALTER x TYPE varchar", "read"},
		"label renamed":               {"ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "read"},
		"labels swapped":              {"ALTER TYPE mood RENAME VALUE 'sad' TO 'x'; ALTER TYPE mood RENAME VALUE 'glad' TO 'sad'; ALTER TYPE mood RENAME VALUE 'x' TO 'glad'", "read"},
		"attribute renamed":           {"ALTER TYPE pair RENAME ATTRIBUTE a TO b", "read"},
		"row type has a column more":  {"ALTER TABLE row_of ADD c int", "read"},
		"row type has a column less":  {"ALTER TABLE row_of DROP b", "read"},
		"truncated":                   {"TRUNCATE t", "read"},
		"truncated, filled as before": {"CREATE TABLE s AS SELECT * FROM t; TRUNCATE t; INSERT INTO t SELECT * FROM s", "read"},
		"vacuum full":                 {"VACUUM FULL t", "read"},
		"unlogged":                    {"ALTER TABLE t SET UNLOGGED", "read"},
		"dropped and made again":      {"CREATE TABLE s AS SELECT * FROM t; DROP TABLE t; ALTER TABLE s RENAME TO t", "read"},
		"swapped with another":        {"ALTER TABLE t RENAME TO s; ALTER TABLE u RENAME TO t; ALTER TABLE s RENAME TO u", "reused"},
		"deleted":                     {"DELETE FROM t", "read"},
		"deleted and vacuumed away":   {"DELETE FROM t; VACUUM t", "read"},
		"attached":                    {"CREATE TABLE p (LIKE t) PARTITION BY LIST (m); ALTER TABLE p ATTACH PARTITION t DEFAULT", "either"},
		"attached, other column order": {`CREATE TABLE p (m mood NOT NULL, x text, y text, ms mood[], p pair, f feeling, r row_of) PARTITION BY HASH (m);
			ALTER TABLE p ATTACH PARTITION t FOR VALUES WITH (MODULUS 1, REMAINDER 0)`, "either"},
		"inherits now": {"CREATE TABLE p (LIKE t); ALTER TABLE t INHERIT p", "either"},
	}
	names := slices.Sorted(maps.Keys(cases))
	in := func(i int, sql string) string { return fmt.Sprintf("SET search_path = c%d; %s", i, sql) }
	for i := range names {
		c.Exec(t, s.db, fmt.Sprintf("CREATE SCHEMA c%d; ", i)+in(i, schema))
	}
	c.Exec(t, s.db, "VACUUM")
	s.settle(t)
	first := s.capture(t, shot{})
	for i, name := range names {
		conn := c.Connect(t, s.db)
		for _, sql := range strings.Split(in(i, cases[name].sql), "; ") {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		must(t, conn.Close(t.Context()))
	}
	second := s.capture(t, shot{base: first.base()})
	restored := s.replayed(t, second)
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			table := fmt.Sprintf("c%d.t", i)
			reused, read := second.reused(t, table)
			switch want := cases[name].want; {
			case want == "reused" && (reused == 0 || read != 0), want == "read" && reused != 0:
				t.Errorf("%d chunks reused and %d read, want them %s", reused, read, want)
			}
			s.sameRows(t, restored, table, fmt.Sprintf("c%d.u", i))
		})
	}
}

// What a reg* value names may be renamed: chunks with such values are always read.
func TestProofNeverTrustsNames(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, `CREATE TABLE target (i int); CREATE TYPE pair AS (a int, c regclass); CREATE DOMAIN d AS regclass;
		CREATE TABLE r1 (c regclass, note text); INSERT INTO r1 SELECT 'target', i FROM generate_series(1, 500) i;
		CREATE TABLE r2 (c regclass[]); INSERT INTO r2 SELECT '{target}' FROM generate_series(1, 500) i;
		CREATE TABLE r3 (p pair); INSERT INTO r3 SELECT (i, 'target')::pair FROM generate_series(1, 500) i;
		CREATE TABLE r4 (c d, b bytea); INSERT INTO r4 SELECT 'target', 'x' FROM generate_series(1, 500) i;
		CREATE TABLE r5 (c regtype, p regproc, o regrole, n regnamespace); INSERT INTO r5 SELECT 'int', 'now', 'postgres', 'public' FROM generate_series(1, 500) i;
		CREATE TABLE plain (i int); INSERT INTO plain SELECT generate_series(1, 500)`)
	s.settle(t)
	first := s.capture(t, shot{})
	c.Exec(t, s.db, "ALTER TABLE target RENAME TO aim")
	second := s.capture(t, shot{base: first.base()})
	for _, name := range []string{"r1", "r2", "r3", "r4", "r5"} {
		if reused, _ := second.reused(t, name); reused != 0 {
			t.Errorf("%d chunks of table %s were reused", reused, name)
		}
	}
	if reused, _ := second.reused(t, "plain"); reused == 0 {
		t.Error("nothing at all was reused")
	}
	s.sameRows(t, s.replayed(t, second), "r1", "r2", "r3", "r4", "r5")
}

// A copy of a database has the same files under another identity.
func TestProofIsForOneDatabase(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, "CREATE TABLE t AS SELECT i FROM generate_series(1, 3000) i")
	first := s.capture(t, shot{})
	name := s.db + "copy"
	c.Exec(t, "postgres", "CREATE DATABASE "+name+" TEMPLATE "+s.db)
	t.Cleanup(func() { c.DropDatabase(t, name) })
	of := *s
	of.db = name
	second := of.capture(t, shot{base: first.base()})
	if reused, _ := second.reused(t, "t"); reused != 0 {
		t.Errorf("%d chunks of another database were reused", reused)
	}
}

// on is the same store for the same database on another server.
func (s *site) on(t *testing.T, c *pgtest.Cluster) *site {
	t.Helper()
	other := *s
	other.cluster, other.src = c, source(t, c)
	return &other
}

// settle waits until the transactions that ended are below the horizon: one that
// runs anywhere in the cluster holds it back, and costs reading again.
func (s *site) settle(t *testing.T) {
	t.Helper()
	now := s.cluster.QueryString(t, s.db, "SELECT pg_current_xact_id()")
	eventually(t, "all transactions until now have ended", func() bool {
		return s.cluster.QueryString(t, s.db, "SELECT pg_snapshot_xmin(pg_current_snapshot()) > '"+now+"'::xid8") == "t"
	})
}

// A standby is the same server at another time: chunks of the primary are right
// there when it has come as far, and not before. Once promoted it has a history of its own.
func TestProofOnStandby(t *testing.T) {
	c := shared.Start(t, pgtest.WithHBA("host all all 127.0.0.1/32 trust"))
	c.CreateDatabase(t, "app")
	s := newSite(t, c, "app")
	c.Exec(t, s.db, "CREATE TABLE t (i int, n int) WITH (fillfactor = 50); INSERT INTO t SELECT i, 0 FROM generate_series(1, 3000) i")
	c.Exec(t, s.db, "VACUUM t")
	standby := c.Standby(t)
	c.AwaitReplay(t, standby)
	at := s.on(t, standby)

	first := s.capture(t, shot{})
	c.Exec(t, s.db, "CREATE TABLE tick ()") // what the WAL held before it is flushed, too
	c.AwaitReplay(t, standby)
	second := at.capture(t, shot{base: first.base()})
	if reused, read := second.reused(t, "t"); reused == 0 || read != 0 {
		t.Errorf("on a standby %d chunks were reused and %d read", reused, read)
	}
	at.sameRows(t, s.replayed(t, second), "t")

	// A transaction that lasts keeps the horizon low while the standby stands still.
	open := c.Connect(t, s.db)
	_, err := open.PgConn().Exec(t.Context(), "CREATE TABLE other (i int)").ReadAll()
	must(t, err)
	_, err = open.PgConn().Exec(t.Context(), "BEGIN; INSERT INTO other VALUES (1)").ReadAll()
	must(t, err)
	c.Exec(t, s.db, "INSERT INTO other VALUES (2)")
	c.AwaitReplay(t, standby)
	standby.Exec(t, s.db, "SELECT pg_wal_replay_pause()")
	eventually(t, "replay is paused", func() bool {
		return standby.QueryString(t, s.db, "SELECT pg_get_wal_replay_pause_state()") == "paused"
	})
	c.Exec(t, s.db, "UPDATE t SET n = 1 WHERE i = 5")
	ahead := s.capture(t, shot{})
	behind := at.capture(t, shot{base: ahead.base()})
	if n, want := rowsIn(t, s, behind, "n = 1"), standby.QueryString(t, s.db, "SELECT count(*) FROM t WHERE n = 1"); n != want {
		t.Errorf("a standby that lags behind took over a chunk of its future: %s rows, want %s", n, want)
	}
	standby.Exec(t, s.db, "SELECT pg_wal_replay_resume()")
	_, err = open.PgConn().Exec(t.Context(), "COMMIT").ReadAll()
	must(t, err)

	c.AwaitReplay(t, standby)
	standby.Exec(t, "postgres", "SELECT pg_promote()")
	third := at.capture(t, shot{base: second.base()})
	if reused, _ := third.reused(t, "t"); reused != 0 {
		t.Errorf("%d chunks of another timeline were reused", reused)
	}
}

// rowsIn counts rows of table t in a set by restoring it.
func rowsIn(t *testing.T, s *site, c captured, condition string) string {
	t.Helper()
	return s.cluster.QueryString(t, s.replayed(t, c), "SELECT count(*) FROM t WHERE "+condition)
}

// A crash undoes what was committed without waiting for the disk, and gives its
// transaction ids to others.
func TestProofAfterCrash(t *testing.T) {
	c := shared.Start(t, pgtest.WithHBA("host all all 127.0.0.1/32 trust"),
		pgtest.WithSetting("synchronous_commit", "off"), pgtest.WithSetting("wal_writer_delay", "2s"),
		pgtest.WithSetting("bgwriter_lru_maxpages", "0"), pgtest.WithSetting("autovacuum", "off"))
	c.CreateDatabase(t, "app")
	s := newSite(t, c, "app")
	c.Exec(t, s.db, "CREATE TABLE t (i int, n int) WITH (fillfactor = 50); INSERT INTO t SELECT i, 0 FROM generate_series(1, 3000) i")
	c.Exec(t, s.db, "VACUUM t")
	c.Exec(t, s.db, "CHECKPOINT")
	before := c.QueryString(t, s.db, "UPDATE t SET n = 1 WHERE i = 5 RETURNING xmin")
	first := s.capture(t, shot{})
	c.Kill(t)
	c.Restart(t)
	after := c.QueryString(t, s.db, "UPDATE t SET n = 2 WHERE i = 5 RETURNING xmin")
	if before != after {
		t.Logf("the first transaction was %s and the second %s: the crash lost nothing", before, after)
	}
	second := s.capture(t, shot{base: first.base()})
	s.sameRows(t, s.replayed(t, second), "t")
}

// A run that was interrupted is gone on with; what of it is damaged is read again.
func TestInterruptedRun(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, wideTable)
	s.settle(t)
	set, base := s.begin(t), NewBase()
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.into(ctx, t, set, shot{
		base: base, bytes: wideChunk, quiet: true, tune: func(c *capture) { c.manners.rate = NewRate(2 << 20) },
		held: func(c *capture) {
			(&stage{t: t, s: s, c: c}).until("some chunks are finished", func() bool {
				base.mu.Lock()
				defer base.mu.Unlock()
				return len(base.objects) >= 6
			})
			cancel()
		},
	})
	contains(t, err, "canceled")
	must(t, set.Suspend())

	inside := filepath.Join(s.root, set.ID(), folder)
	objects, err := filepath.Glob(filepath.Join(inside, "*.copy.zst"))
	must(t, err)
	journals, err := filepath.Glob(filepath.Join(inside, "journal", "*.json"))
	must(t, err)
	if len(objects) < 6 || len(journals) < 6 {
		t.Fatalf("%d objects and %d journal entries", len(objects), len(journals))
	}
	damage(t, objects[0], func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	damage(t, objects[1], func(b []byte) []byte { return b[:len(b)-1] })
	must(t, os.Remove(objects[2]))
	damage(t, journals[3], func(b []byte) []byte { return b[:len(b)/2] })
	c.Exec(t, s.db, "UPDATE plain SET n = 1 WHERE id = 27999")

	again, err := backupset.Reopen(t.Context(), s.store, set.ID())
	must(t, err)
	again.KeepScratch(backupset.RunName)
	base = NewBase()
	must(t, base.AddInterrupted(t.Context(), again, folder))
	must(t, again.DiscardRest(t.Context()))
	whole := len(base.chunks)
	var w *witness
	got, err := s.into(t.Context(), t, again, shot{base: base, bytes: wideChunk, quiet: true, held: func(c *capture) { w = s.witness(t, c) }})
	must(t, err)
	defer w.close()
	opened, d, contents := s.commit(t, again, got)
	one := captured{got, opened, d, contents}
	if s.differs(t, w, one, false) {
		t.Error("the set is wrong")
	}
	s.restoreAndCompare(t, w, one)
	kept := 0
	for _, o := range opened.Manifest().Objects {
		for _, old := range objects {
			if strings.HasSuffix(o.Name, ".zst") && filepath.Base(old) == filepath.Base(o.Name) {
				kept++
			}
		}
	}
	t.Logf("%d objects were left, %d of them are in the set; %d tables had chunks", len(objects), kept, whole)
	if kept == 0 || kept > len(objects)-4 {
		t.Errorf("%d objects of %d were kept, of which 4 are no good", kept, len(objects))
	}
	if left, _ := filepath.Glob(filepath.Join(inside, "journal", "*")); len(left) != 0 {
		t.Errorf("left in the set: %v", left)
	}
}

func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, change(text), 0o600))
}

// Transaction ids have 32 bits, and begin again.
func TestProofAcrossWraparound(t *testing.T) {
	c := shared.Start(t, pgtest.WithHBA("host all all 127.0.0.1/32 trust"), pgtest.WithSetting("autovacuum", "off"))
	c.CreateDatabase(t, "app")
	s := newSite(t, c, "app")
	c.Exec(t, s.db, "CREATE TABLE t (i int, n int) WITH (fillfactor = 50); INSERT INTO t SELECT i, 0 FROM generate_series(1, 3000) i")
	for _, db := range []string{"app", "postgres", "template1"} {
		c.Exec(t, db, "VACUUM (FREEZE)")
	}
	horizon := func(c captured) uint64 { return c.Snapshot.XMin }
	check := func(what string, base captured, want string) captured {
		t.Helper()
		got := s.capture(t, shot{base: base.base()})
		reused, read := got.reused(t, "t")
		t.Logf("%s: next transaction %d, horizon %d: %d chunks reused, %d read", what, got.Snapshot.XMax, horizon(base), reused, read)
		if want == "reused" && reused == 0 || want == "read" && reused != 0 {
			t.Errorf("%s: %d chunks reused and %d read, want %s", what, reused, read, want)
		}
		return got
	}
	right := func(what string, c captured) {
		t.Helper()
		restored := s.replayed(t, c)
		t.Log(what)
		s.sameRows(t, restored, "t")
		s.cluster.DropDatabase(t, restored)
	}

	young := s.capture(t, shot{})
	s.advance(t, horizon(young)+1<<31-200e6)
	c.Exec(t, s.db, "UPDATE t SET n = 1 WHERE i = 10")
	near := check("nearly 2^31 transactions later", young, "reused")
	right("near", near)

	s.advance(t, horizon(young)+1<<31+200e6)
	check("more than 2^31 transactions later", young, "read")
	c.Exec(t, s.db, "UPDATE t SET n = 2 WHERE i = 20")
	beyond := check("with rows half the ids away", near, "reused")
	right("beyond", beyond)
	c.Exec(t, s.db, "VACUUM (FREEZE) t")

	s.advance(t, 1<<32-200)
	// (What is frozen and older than all of these ids would look young.)
	before := check("before the end of the ids", beyond, "reused")
	c.Exec(t, s.db, `DO $$ BEGIN FOR k IN 1..400 LOOP BEGIN UPDATE t SET n = k WHERE i = 30; EXCEPTION WHEN division_by_zero THEN END; END LOOP; END $$`)
	if next := c.QueryString(t, s.db, "SELECT pg_snapshot_xmax(pg_current_snapshot())"); len(next) < 10 || next < "4294967296" {
		t.Fatalf("the next transaction is %s: the ids did not begin again", next)
	}
	after := check("after the beginning of new ids", before, "reused")
	right("after", after)
	if after.Snapshot.XMin < 1<<32 {
		t.Errorf("horizon %d, want more than 2^32", after.Snapshot.XMin)
	}
}

// advance lets the server go on with another transaction id.
func (s *site) advance(t *testing.T, next uint64) {
	t.Helper()
	c := s.cluster
	// The databases must stay usable: what they hold is frozen.
	c.Exec(t, s.db, "VACUUM (FREEZE)")
	c.Stop(t)
	const perSegment = 1 << 20
	segment := filepath.Join(c.DataDir, "pg_xact", fmt.Sprintf("%04X", next/perSegment))
	must(t, os.WriteFile(segment, make([]byte, perSegment/4), 0o600))
	must(t, copyOwner(c.DataDir, segment))
	must(t, asOwner(c, "pg_resetwal", "-f", "-x", fmt.Sprint(next), "-D", c.DataDir))
	c.Restart(t)
}

// asOwner runs a program of the server as the user that its files belong to.
func asOwner(c *pgtest.Cluster, name string, args ...string) error {
	cmd := exec.Command(filepath.Join(c.BinDir, name), args...) //nolint:gosec // a program of PostgreSQL
	info, err := os.Stat(c.DataDir)
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	cmd.Dir = c.DataDir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stat.Uid, Gid: stat.Gid}}
	if os.Getuid() != 0 {
		cmd.SysProcAttr = nil
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

func copyOwner(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	return os.Chown(to, int(stat.Uid), int(stat.Gid))
}
