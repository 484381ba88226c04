package pgcopy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// proofSeconds is how long the proof is put to the test.
func proofSeconds(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("DBBACKUP_TEST_PROOF_SECONDS")
	if text == "" {
		return 8 * time.Second
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return time.Duration(n) * time.Second
}

// B3, and the proof of the unchanged as a property: under any load, the rows of
// an incremental set are those that its snapshot saw. TestProofControls shows that proofs
// which are wrong are found out; DBBACKUP_TEST_PROOF_SECONDS shows that under the same load.
func TestProofUnderLoad(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, loadSchema)
	s.canned(t)
	duration := proofSeconds(t)
	stop := startLoad(t, s, 6)

	right := s.prove(t, duration, nil, nil)
	t.Logf("right: %s", right)
	if right.wrong != 0 {
		t.Errorf("%d sets of %d are wrong", right.wrong, right.sets)
	}
	if right.reused == 0 || right.read == 0 || right.sets < 5 {
		t.Errorf("the test shows nothing: %s", right)
	}
	if long := os.Getenv("DBBACKUP_TEST_PROOF_SECONDS") != ""; long {
		s.controls(t, duration)
	}
	t.Logf("load: %s", stop())
}

// controls are proofs that are wrong, under the same load.
func (s *site) controls(t *testing.T, duration time.Duration) {
	t.Helper()
	for name, y := range map[string]tally{
		"with xmax for a horizon":    s.prove(t, duration, withXMax, nil),
		"without the number of rows": s.prove(t, duration, nil, uncounted),
	} {
		t.Logf("%s: %s", name, y)
		if y.wrong == 0 {
			t.Errorf("%s no set of %d was wrong: the test cannot tell", name, y.sets)
		}
	}
}

func withXMax(d *backupset.Database) { d.Snapshot.XMin = d.Snapshot.XMax }

func uncounted(c *capture) {
	c.proven = func(_ backupset.Chunk, _, born int64) bool { return born == 0 }
}

// tally is what became of a chain of incremental sets.
type tally struct {
	sets, wrong, reused, read, again, restored int
}

func (y tally) String() string {
	return fmt.Sprintf("%d sets, %d wrong, %d chunks reused, %d read, %d sets restored, %d captures tried again",
		y.sets, y.wrong, y.reused, y.read, y.restored, y.again)
}

// prove makes one set from the other for a while.
func (s *site) prove(t *testing.T, duration time.Duration, falsify func(d *backupset.Database), tune func(c *capture)) tally {
	t.Helper()
	control := falsify != nil || tune != nil
	if falsify == nil {
		falsify = func(*backupset.Database) {}
	}
	var y tally
	var base *Base
	// On a machine that others use, too, it goes on until there is something to see.
	enough := func() bool { return y.sets >= 6 && y.reused > 0 && y.read > 0 }
	for began := time.Now(); time.Since(began) < duration || !enough() && time.Since(began) < time.Minute; {
		set := s.begin(t)
		var witness *witness
		got, err := s.into(t.Context(), t, set, shot{base: base, tune: tune, quiet: true, held: func(c *capture) { witness = s.witness(t, c) }})
		if fault.Is(err, fault.Unavailable) { // changed between snapshot and lock
			y.again++
			witness.close()
			must(t, set.Abandon(t.Context()))
			continue
		}
		must(t, err)
		opened, d, contents := s.commit(t, set, got, falsify)
		one := captured{got, opened, d, contents}
		y.sets++
		for _, name := range []string{"plain", "blobs"} {
			reused, read := one.reused(t, name)
			y.reused, y.read = y.reused+reused, y.read+read
		}
		if s.differs(t, witness, one, control) {
			y.wrong++
			base = nil
		} else {
			base = one.base()
		}
		if !control && y.sets%20 == 5 {
			s.restoreAndCompare(t, witness, one)
			y.restored++
		}
		witness.close()
	}
	return y
}

// witness holds the snapshot of a capture, and its tables, beyond its end.
type witness struct {
	conn *pg.Conn
	name string // of the snapshot
	db   string
	src  Source
}

func (w *witness) close() {
	if w != nil {
		_ = w.conn.Close(context.Background())
	}
}

func (s *site) witness(t *testing.T, c *capture) *witness {
	ctx := t.Context()
	conn, err := s.src.Endpoint.Connect(ctx, s.db)
	if err != nil {
		t.Error(err)
		return nil
	}
	w := &witness{conn: conn, db: s.db, src: s.src}
	if err := conn.ImportSnapshot(ctx, c.snapshot.exported()); err != nil {
		t.Error(err)
		return w
	}
	// The capture still holds its locks, so nothing can have happened to the tables.
	var tables []pgname.Table
	for i := range c.shapes {
		tables = append(tables, c.shapes[i].Table)
	}
	if err := conn.LockTables(ctx, tables, 20*time.Second); err != nil {
		t.Error(err)
		return w
	}
	if w.name, err = conn.ExportSnapshot(ctx); err != nil {
		t.Error(err)
	}
	return w
}

// stream opens a session under the snapshot.
func (w *witness) stream(t *testing.T) *pg.Stream {
	t.Helper()
	stream, err := w.src.Endpoint.ConnectStream(t.Context(), w.db)
	must(t, err)
	t.Cleanup(func() { _ = stream.Close(context.Background()) })
	must(t, stream.ImportSnapshot(t.Context(), w.name))
	return stream
}

// differs compares the tables of a set with what its snapshot sees.
func (s *site) differs(t *testing.T, w *witness, c captured, control bool) bool {
	t.Helper()
	if w == nil || w.name == "" {
		t.Fatal("nobody saw what the snapshot sees")
	}
	stream := w.stream(t)
	defer stream.Close(t.Context())
	shapes, err := shapesOf(t.Context(), s.src.Endpoint, s.db)
	must(t, err)
	k := &comparison{limits: ordinary()}
	differs := false
	for i := range c.contents.Tables {
		table := &c.contents.Tables[i]
		got, err := k.digest(t.Context(), stream, table, shapes[pgname.Table{Schema: table.Schema, Name: table.Name}])
		must(t, err)
		if got.rows == table.Rows && backupset.FormatDigest(got.sum) == table.Digest {
			continue
		}
		differs = true
		if !control {
			t.Errorf("set %s (snapshot %d:%d:%v): table %s has %d rows and digest %s, and its snapshot sees %d and %016x",
				c.set.ID(), c.Snapshot.XMin, c.Snapshot.XMax, c.Snapshot.XIP, table.Name, table.Rows, table.Digest, got.rows, got.sum)
		}
	}
	return differs
}

// restoreAndCompare compares the rows themselves, by the server.
func (s *site) restoreAndCompare(t *testing.T, w *witness, c captured) {
	t.Helper()
	c.intact(t)
	db := s.replayed(t, c)
	stream := w.stream(t)
	for _, name := range []string{"plain", "blobs"} {
		rows, err := stream.Rows(t.Context(), "read", fmt.Sprintf("SELECT count(*) || ' ' || md5(string_agg(r::text, e'\\n' ORDER BY r::text COLLATE \"C\")) FROM public.%s r", name))
		must(t, err)
		if got := rowsOf(t, s.cluster, db, name); got != rows[0][0] {
			t.Errorf("set %s: table %s was restored as %s, and the snapshot sees %s", c.set.ID(), name, got, rows[0][0])
		}
	}
	s.cluster.DropDatabase(t, db)
}

const loadSchema = `
	CREATE TABLE plain (id bigint PRIMARY KEY, grp int NOT NULL, n int NOT NULL, note text) WITH (fillfactor = 80);
	CREATE INDEX ON plain (grp);
	CREATE TABLE blobs (id bigint PRIMARY KEY, grp int NOT NULL, n int NOT NULL, body bytea) WITH (fillfactor = 80);
	CREATE INDEX ON blobs (grp);
	CREATE SEQUENCE ids START 1000000;
	` + fillPlain + `;` + fillBlobs

const (
	fillPlain = `INSERT INTO plain SELECT i, i % 50, 0, repeat('x', 60 + i % 40) FROM generate_series(1, 4000) i ON CONFLICT DO NOTHING`
	fillBlobs = `INSERT INTO blobs SELECT i, i % 50, 0, decode(repeat(md5(i::text), CASE WHEN i % 50 = 0 THEN 300 ELSE 8 END), 'hex') FROM generate_series(1, 3000) i ON CONFLICT DO NOTHING`
)

// load is a number of writers and somebody who vacuums behind them.
type load struct {
	s     *site
	began time.Time

	commits, rollbacks, prepared, refused, vacuums, rewrites, truncates atomic.Int64
}

func (l *load) String() string {
	return fmt.Sprintf("%d commits, %d rollbacks, %d prepared, %d refused, %d vacuums, %d VACUUM FULL, %d TRUNCATE",
		l.commits.Load(), l.rollbacks.Load(), l.prepared.Load(), l.refused.Load(), l.vacuums.Load(), l.rewrites.Load(), l.truncates.Load())
}

// startLoad writes until the returned function is called.
func startLoad(t *testing.T, s *site, writers int) (stop func() string) {
	t.Helper()
	l := &load{s: s, began: time.Now()}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range writers {
		running.Go(func() { l.write(ctx, t, i) })
	}
	running.Go(func() { l.maintain(ctx, t) })
	var once sync.Once
	stop = func() string {
		once.Do(func() {
			cancel()
			running.Wait()
		})
		return l.String()
	}
	t.Cleanup(func() { stop() })
	return stop
}

func (l *load) dial(ctx context.Context, t *testing.T) *pgx.Conn {
	conn, err := l.s.cluster.Dial(ctx, l.s.db)
	if err != nil {
		if ctx.Err() == nil {
			t.Error(err)
		}
		return nil
	}
	if _, err := conn.Exec(ctx, "SET lock_timeout = '150ms'"); err != nil && ctx.Err() == nil {
		t.Error(err)
	}
	return conn
}

// pause waits, for no longer than ctx lasts.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// id is a row to change: most changes are in a place that moves on.
func (l *load) id(r *rand.Rand, anywhere bool) int64 {
	const rows = 3000
	if anywhere {
		return 1 + r.Int64N(rows)
	}
	place := int64(time.Since(l.began).Seconds() * 60)
	return 1 + (place+r.Int64N(100))%rows
}

func (l *load) write(ctx context.Context, t *testing.T, number int) {
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(number))) //nolint:gosec // not for secrets
	conn := l.dial(ctx, t)
	if conn == nil {
		return
	}
	defer conn.Close(context.Background())
	for n := 0; ctx.Err() == nil; n++ {
		if err := l.transact(ctx, conn, r, fmt.Sprintf("w%d_%d", number, n)); err != nil {
			l.refused.Add(1)
			_, _ = conn.Exec(ctx, "ROLLBACK")
		}
		pause(ctx, time.Duration(r.IntN(40))*time.Millisecond)
	}
	if conn = l.dial(context.Background(), t); conn != nil { // the first one ended with ctx
		defer conn.Close(context.Background())
		rows, _ := conn.Query(context.Background(), "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE $1", fmt.Sprintf("w%d\\_%%", number))
		gids, _ := pgx.CollectRows(rows, pgx.RowTo[string])
		for _, gid := range gids {
			_, _ = conn.Exec(context.Background(), "ROLLBACK PREPARED '"+gid+"'")
		}
	}
}

// transact is one transaction: short or long, with savepoints, ended in one of
// the ways that there are.
func (l *load) transact(ctx context.Context, conn *pgx.Conn, r *rand.Rand, gid string) error {
	exec := func(sql string) error {
		_, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	if err := exec("BEGIN"); err != nil {
		return err
	}
	long := r.IntN(5) == 0
	for range 1 + r.IntN(4) {
		saved := r.IntN(3) == 0
		if saved {
			if err := exec("SAVEPOINT s"); err != nil {
				return err
			}
		}
		if err := exec(l.statement(r, long && r.IntN(2) == 0)); err != nil {
			return err
		}
		if saved && r.IntN(2) == 0 {
			if err := exec("ROLLBACK TO SAVEPOINT s"); err != nil {
				return err
			}
		} else if saved && r.IntN(2) == 0 {
			if err := exec("RELEASE SAVEPOINT s"); err != nil {
				return err
			}
		}
		if long {
			pause(ctx, time.Duration(r.IntN(400))*time.Millisecond)
		}
	}
	switch p := r.IntN(100); {
	case p < 15:
		l.rollbacks.Add(1)
		return exec("ROLLBACK")
	case p < 25:
		l.prepared.Add(1)
		if err := exec("PREPARE TRANSACTION '" + gid + "'"); err != nil {
			return err
		}
		pause(ctx, time.Duration(r.IntN(300))*time.Millisecond)
		if r.IntN(4) == 0 {
			return exec("ROLLBACK PREPARED '" + gid + "'")
		}
		return exec("COMMIT PREPARED '" + gid + "'")
	}
	l.commits.Add(1)
	return exec("COMMIT")
}

func (l *load) statement(r *rand.Rand, anywhere bool) string {
	id, table := l.id(r, anywhere), "plain"
	if r.IntN(3) == 0 {
		table = "blobs"
	}
	switch p := r.IntN(100); {
	case p < 30: // HOT, where there is room
		return fmt.Sprintf("UPDATE %s SET n = n + 1 WHERE id = %d", table, id)
	case p < 50: // not HOT: grp is indexed
		return fmt.Sprintf("UPDATE %s SET grp = (grp + 7) %% 50 WHERE id BETWEEN %d AND %d", table, id, id+2)
	case p < 60:
		return fmt.Sprintf("DELETE FROM %s WHERE id BETWEEN %d AND %d", table, id, id+3)
	case p < 75 && table == "plain":
		return fmt.Sprintf("INSERT INTO plain SELECT i, 1, 0, repeat('y', %d) FROM generate_series(%d, %d) i ON CONFLICT DO NOTHING", 20+r.IntN(100), id, id+4)
	case p < 75:
		return fmt.Sprintf("INSERT INTO blobs SELECT i, 1, 0, decode(repeat(md5(i::text), %d), 'hex') FROM generate_series(%d, %d) i ON CONFLICT DO NOTHING", 1+r.IntN(200), id, id+2)
	case p < 80:
		return fmt.Sprintf("INSERT INTO %s (id, grp, n) VALUES (nextval('ids'), 1, 1)", table)
	case p < 90:
		return fmt.Sprintf("SELECT count(*) FROM (SELECT 1 FROM %s WHERE id BETWEEN %d AND %d FOR UPDATE) x", table, id, id+5)
	case p < 95:
		return fmt.Sprintf("SELECT count(*) FROM (SELECT 1 FROM %s WHERE id = %d FOR KEY SHARE) x", table, id)
	}
	return fmt.Sprintf("DELETE FROM %s WHERE id >= 1000000 AND id %% 3 = 0", table)
}

// maintain does to the tables what an administrator and autovacuum do.
func (l *load) maintain(ctx context.Context, t *testing.T) {
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 99)) //nolint:gosec // not for secrets
	conn := l.dial(ctx, t)
	if conn == nil {
		return
	}
	defer conn.Close(context.Background())
	for ctx.Err() == nil {
		table := []string{"plain", "blobs"}[r.IntN(2)]
		var sql string
		var count *atomic.Int64
		switch p := r.IntN(100); {
		case p < 50:
			sql, count = "VACUUM "+table, &l.vacuums
		case p < 94:
			sql, count = "VACUUM (FREEZE) "+table, &l.vacuums
		case p < 97:
			sql, count = "VACUUM (FULL) "+table, &l.rewrites
		default:
			fill := map[string]string{"plain": fillPlain, "blobs": fillBlobs}[table]
			sql, count = "BEGIN; TRUNCATE "+table+"; "+fill+"; COMMIT", &l.truncates
		}
		if _, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err == nil {
			count.Add(1)
		} else {
			_, _ = conn.Exec(ctx, "ROLLBACK")
		}
		pause(ctx, time.Duration(r.IntN(200))*time.Millisecond)
	}
}

// Two proofs that are nearly right: what is compared tells them from the right one.
func TestProofControls(t *testing.T) {
	c := shared.Cluster(t)
	for _, test := range []struct {
		name    string
		falsify func(d *backupset.Database)
		tune    func(c *capture)
		begin   string // open while the first set is made, committed after it
		after   string
	}{
		{"xmax for a horizon", withXMax, nil, "UPDATE plain SET n = 77 WHERE id = 3", ""},
		{"no number of rows", nil, uncounted, "SELECT 1", "DELETE FROM plain WHERE id = 3"},
	} {
		for _, right := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/right=%t", test.name, right), func(t *testing.T) {
				s := newSite(t, c, c.Database(t))
				c.Exec(t, s.db, loadSchema)
				open := c.Connect(t, s.db)
				_, err := open.PgConn().Exec(t.Context(), "BEGIN; "+test.begin).ReadAll()
				must(t, err)
				c.Exec(t, s.db, "INSERT INTO plain VALUES (-1, 1, 1, '')") // a later transaction, which has ended
				tune, change := test.tune, []func(d *backupset.Database){}
				if right {
					tune = nil
				} else if test.falsify != nil {
					change = append(change, test.falsify)
				}
				first := s.capture(t, shot{}, change...)
				_, err = open.PgConn().Exec(t.Context(), "COMMIT; "+test.after).ReadAll()
				must(t, err)
				var w *witness
				second := s.capture(t, shot{base: first.base(), tune: tune, held: func(c *capture) { w = s.witness(t, c) }})
				defer w.close()
				if reused, _ := second.reused(t, "plain"); reused == 0 {
					t.Error("nothing was reused")
				}
				if wrong := s.differs(t, w, second, !right); wrong == right {
					t.Errorf("the set is wrong: %t", wrong)
				}
				if right {
					s.sameRows(t, s.replayed(t, second), "plain", "blobs")
				}
			})
		}
	}
}
