package pgcopy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/fault"
)

// wideTable is one that takes a while: 24 chunks of 512 kB.
const wideTable = `CREATE TABLE plain (id bigint PRIMARY KEY, n int, note text);
	INSERT INTO plain SELECT i, 0, repeat(md5(i::text), 12) FROM generate_series(1, 28000) i;
	CREATE TABLE blobs (id bigint PRIMARY KEY, body bytea);
	INSERT INTO blobs VALUES (1, 'x');
	CREATE TABLE empty (i int); CREATE SEQUENCE seq START 42; SELECT nextval('seq');`

const wideChunk = 512 << 10

// stage is a capture that was stopped in the middle of its chunks.
type stage struct {
	t       *testing.T
	s       *site
	c       *capture
	witness *witness
}

// enter waits until a capture whose gate is shut stands still.
func (st *stage) enter(c *capture, workers int) {
	st.c = c
	st.witness = st.s.witness(st.t, c)
	st.busy(workers)
}

// busy waits until so many workers are within a chunk.
func (st *stage) busy(workers int) {
	st.until("the workers are within chunks", func() bool {
		st.c.active.mu.Lock()
		defer st.c.active.mu.Unlock()
		return len(st.c.active.streams) == workers
	})
}

// until is eventually for goroutines that are not the test's.
func (st *stage) until(what string, holds func() bool) {
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	st.t.Errorf("waited in vain until %s", what)
}

func (st *stage) keepers() []uint32 {
	st.c.snapshot.mu.Lock()
	defer st.c.snapshot.mu.Unlock()
	var pids []uint32
	for _, k := range st.c.snapshot.keepers {
		pids = append(pids, k.pid.Load())
	}
	return pids
}

func (st *stage) workers() []uint32 {
	keepers := st.keepers()
	return slices.DeleteFunc(st.c.snapshot.pids(), func(pid uint32) bool { return slices.Contains(keepers, pid) })
}

// end terminates backends and waits until they are gone.
func (st *stage) end(pids ...uint32) {
	list := strings.Trim(fmt.Sprint(pids), "[]")
	list = strings.ReplaceAll(list, " ", ",")
	err := st.s.cluster.TryExec("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN ("+list+")")
	if err != nil {
		st.t.Error(err)
	}
	st.until("the backends are gone", func() bool {
		return st.s.cluster.QueryString(st.t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE pid IN ("+list+")") == "0"
	})
}

func (st *stage) exec(sql string) {
	if err := st.s.cluster.TryExec(st.s.db, sql); err != nil {
		st.t.Error(err)
	}
}

// replaced waits until none of the pids keeps the snapshot.
func (st *stage) replaced(pids ...uint32) {
	st.until("the keepers were replaced", func() bool {
		now := st.keepers()
		return !slices.ContainsFunc(pids, func(pid uint32) bool { return slices.Contains(now, pid) })
	})
}

func (st *stage) open() { st.c.manners.set(false) }

// T58, and design "Snapshot keepers": whoever of those that hold the snapshot is
// lost, the rows are those of the snapshot, each once.
func TestLostSessions(t *testing.T) {
	c := shared.Cluster(t)
	for name, lose := range map[string]func(st *stage){
		"leader": func(st *stage) {
			first := st.keepers()[0]
			st.end(first)
			st.replaced(first)
			st.open()
		},
		"second keeper": func(st *stage) {
			second := st.keepers()[1]
			st.end(second)
			st.replaced(second)
			st.open()
		},
		"a worker": func(st *stage) {
			st.end(st.workers()[0])
			st.open()
		},
		"both workers": func(st *stage) {
			st.end(st.workers()...)
			st.open()
		},
		"both keepers": func(st *stage) {
			both := st.keepers()
			st.end(both...)
			st.open() // a worker exports the snapshot after its chunk
			st.replaced(both...)
		},
		"both keepers and a worker": func(st *stage) {
			st.end(append(st.keepers(), st.workers()[0])...)
			st.open()
		},
		"leader, and again": func(st *stage) {
			for range 2 {
				first := st.keepers()[0]
				st.end(first)
				st.replaced(first)
			}
			both := st.keepers()
			st.end(both...)
			st.open()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c, c.Database(t))
			c.Exec(t, s.db, wideTable)
			s.settle(t)
			chunk := int64(wideChunk)
			if strings.Contains(name, "worker") {
				chunk = 7 << 20 // more than the network holds: the server is within the chunk, too
			}
			st := &stage{t: t, s: s}
			got := s.capture(t, shot{
				bytes: chunk, quiet: true, tune: func(c *capture) {
					c.manners.set(true)
					c.limits.leastChunk = chunk
				},
				held: func(c *capture) {
					st.enter(c, 2)
					// What is committed from now on must not be seen by any session.
					st.exec("UPDATE plain SET n = n + 1 WHERE id % 10 = 0; DELETE FROM plain WHERE id % 10 = 1; INSERT INTO plain SELECT i, 1, '' FROM generate_series(100000, 100100) i; INSERT INTO blobs VALUES (2, 'y')")
					lose(st)
				},
			})
			defer st.witness.close()
			if s.differs(t, st.witness, got, false) {
				t.Error("the set is wrong")
			}
			if rows := got.table(t, "plain").Rows; rows != 28000 {
				t.Errorf("%d rows, want 28000", rows)
			}
			if strings.HasSuffix(name, "a worker") {
				s.restoreAndCompare(t, st.witness, got)
			}
			got.intact(t)
			st.noSessions()
		})
	}
}

// noSessions fails the test when a capture left a backend behind.
func (st *stage) noSessions() {
	st.t.Helper()
	eventually(st.t, "the backends have ended", func() bool {
		return st.s.cluster.QueryString(st.t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '"+st.c.application+"%'") == "0"
	})
}

// An idle worker is the only one that still holds the snapshot: nobody may wait
// for it to do something.
func TestIdleWorkerHoldsTheSnapshot(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, wideTable+"DROP TABLE blobs")
	st := &stage{t: t, s: s}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	set := s.begin(t)
	got, err := s.into(ctx, t, set, shot{
		bytes: 64 << 20, quiet: true, tune: func(c *capture) {
			c.manners.set(true)
			c.limits.leastChunk = 64 << 20
			c.limits.pingEvery = time.Hour // nobody replaces a keeper
		},
		held: func(c *capture) {
			st.enter(c, 1)
			busy := pidOfCopy(t, s)
			st.joinIdle()
			st.end(append(st.keepers(), busy)...)
			st.open()
		},
	})
	must(t, err)
	defer st.witness.close()
	opened, d, contents := s.commit(t, set, got)
	if s.differs(t, st.witness, captured{got, opened, d, contents}, false) {
		t.Error("the set is wrong")
	}
}

// joinIdle makes sure that both workers have a session: one chunk is all there
// is to read, and the other worker did nothing so far.
func (st *stage) joinIdle() {
	st.c.queue.add(&job{bytes: 1, what: "nothing", run: func(context.Context, *worker) error { return nil }})
	st.until("a second worker joined", func() bool { return len(st.workers()) == 2 })
}

// pidOfCopy is the backend that sends rows.
func pidOfCopy(t *testing.T, s *site) uint32 {
	t.Helper()
	var pid uint32
	_, err := fmt.Sscan(s.cluster.QueryString(t, "postgres", "SELECT pid FROM pg_stat_activity WHERE datname = '"+s.db+"' AND query LIKE 'COPY %plain%' AND state = 'active'"), &pid)
	if err != nil {
		t.Error(err)
	}
	return pid
}

// When all are lost the attempt fails, and the next one begins with what the first
// one has finished.
func TestAllSessionsLost(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, wideTable)
	s.settle(t)
	base, set := NewBase(), s.begin(t)
	finished := func() int {
		base.mu.Lock()
		defer base.mu.Unlock()
		n := 0
		for _, all := range base.chunks {
			n += len(all)
		}
		return n
	}
	st := &stage{t: t, s: s}
	_, err := s.into(t.Context(), t, set, shot{
		base: base, bytes: wideChunk, quiet: true, tune: func(c *capture) {
			c.manners.rate = NewRate(1 << 20)
			c.limits.pingEvery = time.Hour
		},
		held: func(c *capture) {
			st.c = c
			st.until("some chunks are finished", func() bool { return finished() >= 3 })
			c.manners.set(true)
			st.exec("UPDATE plain SET n = 5 WHERE id = 27000")
			st.end(append(st.keepers(), st.workers()...)...)
			st.open()
		},
	})
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("error %v (kind %d), want fault.Unavailable", err, fault.KindOf(err))
	}
	before := finished()
	if before < 3 || before > 20 {
		t.Fatalf("%d chunks are finished: the test shows nothing", before)
	}
	got, err := s.into(t.Context(), t, set, shot{base: base, bytes: wideChunk, quiet: true, held: func(c *capture) { st.witness = s.witness(t, c) }})
	must(t, err)
	defer st.witness.close()
	opened, d, contents := s.commit(t, set, got)
	one := captured{got, opened, d, contents}
	if s.differs(t, st.witness, one, false) {
		t.Error("the set is wrong")
	}
	again := finished() - before
	t.Logf("%d chunks finished by the first attempt, %d read by the second", before, again)
	if total := len(one.table(t, "plain").Chunks); again > total-before+2 {
		t.Errorf("the second attempt read %d chunks of %d, although the first had finished %d", again, total, before)
	}
	s.restoreAndCompare(t, st.witness, one)
}

// Somebody keeps the new leader from its locks, and the work ends meanwhile.
func TestWorkEndsWhileLeaderIsReplaced(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, wideTable)
	s.settle(t)
	locker := c.Connect(t, s.db)
	st := &stage{t: t, s: s}
	got := s.capture(t, shot{
		bytes: wideChunk, quiet: true, tune: func(c *capture) { c.manners.set(true) },
		held: func(c *capture) {
			st.c = c
			st.busy(2)
			st.end(st.keepers()...) // both hold the locks
			st.lockOut(locker, "empty")
			st.open()
		},
	})
	if rows := got.table(t, "plain").Rows; rows != 28000 {
		t.Errorf("%d rows, want 28000", rows)
	}
	if len(got.contents.Sequences) != 1 || got.contents.Sequences[0].Last != 42 {
		t.Errorf("sequences %+v", got.contents.Sequences)
	}
}

// lockOut takes a table from the new leader, which is about to want it.
func (st *stage) lockOut(conn *pgx.Conn, table string) {
	if _, err := conn.PgConn().Exec(st.t.Context(), "BEGIN; LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE").ReadAll(); err != nil {
		st.t.Error(err)
	}
}

// The leader is lost when all is read, before anybody notices.
func TestLeaderLostAtTheEnd(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, wideTable)
	s.settle(t)
	st := &stage{t: t, s: s}
	got := s.capture(t, shot{
		bytes: 64 << 20, quiet: true, tune: func(c *capture) {
			c.manners.set(true)
			c.limits.pingEvery = time.Hour
		},
		held: func(c *capture) {
			st.c = c
			st.busy(2)
			st.end(st.keepers()[0])
			st.open()
		},
	})
	if len(got.contents.Sequences) != 1 || got.contents.Sequences[0].Last != 42 {
		t.Errorf("sequences %+v", got.contents.Sequences)
	}
}

// T52: what happens to a table between the snapshot and its lock is found out,
// and is tried again; a table that was emptied never reads as one without rows.
func TestT52ChangedBeforeItsLock(t *testing.T) {
	c := shared.Cluster(t)
	const schema = `CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text);
		CREATE TABLE first (i int); INSERT INTO first VALUES (1);
		CREATE TABLE t (i int, m mood, p pair); INSERT INTO t SELECT i, 'sad', (i, 'x')::pair FROM generate_series(1, 100) i;
		CREATE TABLE other (i int, m mood, p pair); INSERT INTO other VALUES (1, 'sad', (1, 'x')::pair)`
	for name, test := range map[string]struct{ sql, says string }{
		"truncate":        {"TRUNCATE t", "public.t"},
		"rewritten":       {"ALTER TABLE t ALTER i TYPE bigint", "public.t"},
		"vacuum full":     {"VACUUM FULL t", "public.t"},
		"cluster":         {"ALTER TABLE t ADD PRIMARY KEY (i); CLUSTER t USING t_pkey", "public.t"},
		"dropped":         {"DROP TABLE t", "public.t"},
		"dropped, remade": {"DROP TABLE t; CREATE TABLE t (i int, m mood, p pair)", "public.t"},
		"renamed":         {"ALTER TABLE t RENAME TO u", "public.t"},
		"moved":           {"CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s", "public.t"},
		"swapped":         {"ALTER TABLE t RENAME TO u; ALTER TABLE other RENAME TO t; ALTER TABLE u RENAME TO other", "public."},
		"column added":    {"ALTER TABLE t ADD c int DEFAULT 7", "public.t"},
		"column dropped":  {"ALTER TABLE t DROP m", "public.t"},
		"column renamed":  {"ALTER TABLE t RENAME i TO j", "public.t"},
		"label renamed":   {"ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'", "public."},
		"type altered":    {"ALTER TYPE pair RENAME ATTRIBUTE b TO c", "public."},
		"columns swapped": {"ALTER TABLE t RENAME m TO x; ALTER TABLE t RENAME i TO m", "public.t"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c, c.Database(t))
			c.Exec(t, s.db, schema)
			locker := c.Connect(t, s.db)
			_, err := locker.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE first IN ACCESS EXCLUSIVE MODE").ReadAll()
			must(t, err)
			ended := make(chan error, 1)
			set := s.begin(t)
			go func() {
				_, err := s.into(t.Context(), t, set, shot{})
				ended <- err
			}()
			eventually(t, "the capture waits for its first lock", func() bool { return waiting(t, s) })
			for _, sql := range strings.Split(test.sql, "; ") {
				c.Exec(t, s.db, sql)
			}
			_, err = locker.PgConn().Exec(t.Context(), "COMMIT").ReadAll()
			must(t, err)
			err = <-ended
			if !fault.Is(err, fault.Unavailable) {
				t.Errorf("error %v (kind %d), want fault.Unavailable", err, fault.KindOf(err))
			}
			contains(t, err, "changed while the capture began", test.says)
		})
	}
}

func waiting(t *testing.T, s *site) bool {
	t.Helper()
	return s.cluster.QueryString(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = '"+s.db+"' AND application_name LIKE 'dbbackup%' AND wait_event_type = 'Lock'") == "1"
}

// A lock that somebody held for a moment must not cost the snapshot's leader the
// ability to export it (a subtransaction cannot).
func TestLockThatWasContended(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, wideTable)
	s.settle(t)
	s.canned(t)
	locker := c.Connect(t, s.db)
	_, err := locker.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE blobs IN ACCESS EXCLUSIVE MODE").ReadAll()
	must(t, err)
	ended := make(chan error, 1)
	set := s.begin(t)
	st := &stage{t: t, s: s}
	go func() {
		_, err := s.into(t.Context(), t, set, shot{
			bytes: wideChunk, quiet: true, tune: func(c *capture) { c.manners.set(true) },
			held: func(c *capture) {
				st.c = c
				st.busy(2)
				name, err := c.snapshot.keepers[0].export(t.Context())
				if err != nil || name == "" {
					t.Errorf("the leader cannot export: %v", err)
				}
				st.open()
			},
		})
		ended <- err
	}()
	eventually(t, "the capture waits for the lock", func() bool { return waiting(t, s) })
	_, err = locker.PgConn().Exec(t.Context(), "COMMIT").ReadAll()
	must(t, err)
	must(t, <-ended)
}
