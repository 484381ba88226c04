package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// bank makes a database whose sums never change however much is moved: what the
// accounts hold and what the history says they got are the same.
func bank(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	c.Exec(t, db, `CREATE TABLE accounts(id int PRIMARY KEY, balance int NOT NULL DEFAULT 0, filler text);
		INSERT INTO accounts SELECT g, 0, repeat(md5(g::text), 8) FROM generate_series(1, 20000) g;
		CREATE TABLE history(id serial PRIMARY KEY, account int NOT NULL REFERENCES accounts, delta int NOT NULL);
		CREATE SEQUENCE tickets CACHE 20; CREATE TABLE ticket(id bigint PRIMARY KEY DEFAULT nextval('tickets'))`)
	return db
}

// unbalanced counts the accounts whose balance is not what their history sums
// up to.
const unbalanced = `SELECT count(*) FROM accounts LEFT JOIN (SELECT account, sum(delta) AS got FROM history GROUP BY 1) h
	ON h.account = id WHERE balance <> coalesce(got, 0)`

// writeLoad moves money and draws tickets in several sessions until the returned
// function is called, which waits for their end.
func writeLoad(t testing.TB, c *pgtest.Cluster, db string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var writers sync.WaitGroup
	for i := range 4 {
		conn := c.Connect(t, db)
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				account := 1 + (n*7919+i*5003)%20000
				sql := fmt.Sprintf(`BEGIN; UPDATE accounts SET balance = balance + %d WHERE id = %d;
					INSERT INTO history(account, delta) VALUES (%[2]d, %[1]d); INSERT INTO ticket DEFAULT VALUES; COMMIT`, n%100-50, account)
				if _, err := conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
					t.Errorf("write: %v", err)
					return
				}
			}
		})
	}
	return func() {
		cancel()
		writers.Wait()
	}
}

// T82, T69: a backup under load is one moment of the database, and what its
// sequences hand out after the restore was never used before.
func TestT82T69BackupUnderLoad(t *testing.T) {
	c := shared.Cluster(t)
	eachMode(t, func(t *testing.T, mode string) {
		db, store, to := bank(t, c), newStore(t), c.FreeName(t)
		moves := func() string { return c.QueryString(t, db, "SELECT count(*) FROM history") }
		stop := writeLoad(t, c, db)
		defer stop()
		eventually(t, "the writers write", func() bool { return moves() != "0" })
		before := moves()
		dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", mode).must(t, exitOK)
		eventually(t, "more is written than was before the backup", func() bool { return moves() != before })
		stop()
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
		if got := c.QueryString(t, to, unbalanced); got != "0" {
			t.Errorf("accounts that do not agree with their history: got %s, want none", got)
		}
		if got := c.QueryString(t, to, "SELECT count(*) FROM history"); got == "0" || got == moves() {
			t.Errorf("moves in the backup: got %s of %s: it was not taken under load", got, moves())
		}
		if got := c.QueryString(t, to, "SELECT (SELECT count(*) FROM history) = (SELECT count(*) FROM ticket)"); got != "t" {
			t.Error("history and tickets are not of the same moment")
		}
		c.Exec(t, to, `INSERT INTO history(account, delta) SELECT 1, 0 FROM generate_series(1, 100); INSERT INTO ticket SELECT nextval('tickets') FROM generate_series(1, 100)`)
	})
}

// T69: sequences return with all they are.
func TestT69Sequences(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, `CREATE SEQUENCE fresh START 7; CREATE SEQUENCE used; SELECT nextval('used'), nextval('used');
		CREATE SEQUENCE cached CACHE 50; SELECT nextval('cached'); CREATE SEQUENCE down INCREMENT -3 MAXVALUE 100 MINVALUE -100 CYCLE; SELECT nextval('down');
		CREATE TABLE owner(id int GENERATED ALWAYS AS IDENTITY (START 40), old serial); INSERT INTO owner DEFAULT VALUES;
		CREATE SEQUENCE ends AS smallint; SELECT setval('ends', 32767, true); CREATE SEQUENCE set_back; SELECT setval('set_back', 5, false)`)
	const next = `SELECT nextval('fresh'), nextval('used'), nextval('set_back'), nextval('down')`
	store := captured(t, c, db)
	to := c.FreeName(t)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
	if got, want := fmt.Sprint(c.Query(t, to, next)), "[[7 3 5 97]]"; got != want {
		t.Errorf("next values: got %s, want %s", got, want)
	}
	c.Exec(t, to, "INSERT INTO owner DEFAULT VALUES; DROP TABLE owner")
	if err := c.TryExec(to, "SELECT nextval('ends')"); err == nil {
		t.Error("a sequence at its end goes on")
	}
	if got := c.QueryString(t, to, "SELECT count(*) FROM pg_class WHERE relname LIKE 'owner_%_seq'"); got != "0" {
		t.Error("sequences are no longer owned by their table")
	}
}

// measured watches a process until the returned function is called, which returns the
// most memory that it had, in bytes. What wait4 says of that afterwards is no less
// than what the process that started it had at that time.
func measured(t testing.TB, pid int) (peakRSS func() int64) {
	t.Helper()
	status, ended, peak := fmt.Sprintf("/proc/%d/status", pid), make(chan struct{}), int64(0)
	var sampler sync.WaitGroup
	sampler.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			text, _ := os.ReadFile(status)
			if _, line, ok := strings.Cut(string(text), "\nVmHWM:"); ok {
				var kilobytes int64
				_, _ = fmt.Sscan(line, &kilobytes)
				peak = max(peak, kilobytes<<10)
			}
			select {
			case <-ended:
				return
			case <-tick.C:
			}
		}
	})
	stop := sync.OnceFunc(func() { close(ended); sampler.Wait() })
	t.Cleanup(stop)
	return func() int64 {
		stop()
		if peak < 10<<20 {
			t.Fatalf("the process had %d bytes: they were not measured", peak)
		}
		return peak
	}
}

// waitMeasured is wait that also returns the most memory that the process had.
func (r *running) waitMeasured(t testing.TB) (got result, peakRSS int64) {
	t.Helper()
	peak := measured(t, r.cmd.Process.Pid)
	got = r.wait(t)
	return got, peak()
}

// T70: many large objects come back, and cost a run next to no memory.
func TestT70ManyLargeObjects(t *testing.T) {
	t.Parallel()
	const objects, allowance = 5000, 32 << 20
	c := shared.Cluster(t)
	few, many := smallDatabase(t, c), c.Database(t)
	c.Exec(t, many, fmt.Sprintf("SELECT lo_from_bytea(0, convert_to(repeat(md5(g::text), 20), 'UTF8')) FROM generate_series(1, %d) g", objects))
	peaks := func(db, to string) (peak int64) {
		store := newStore(t)
		for _, args := range [][]string{
			{"backup", "single", db, "--store", store, "--mode", "custom"},
			{"verify", "--store", store},
			restoring(store, db, "--target-db", to),
		} {
			got, used := start(t, c.Env(), args...).waitMeasured(t)
			got.must(t, exitOK)
			peak = max(peak, used)
		}
		return peak
	}
	to := c.FreeName(t)
	base := peaks(few, c.FreeName(t))
	if peak := peaks(many, to); peak > base+allowance {
		t.Errorf("peak memory with %d large objects: %d MB, without: %d MB", objects, peak>>20, base>>20)
	}
	const digest = "SELECT count(*), md5(string_agg(md5(lo_get(oid)), '' ORDER BY oid)) FROM pg_largeobject_metadata"
	if got, want := fmt.Sprint(c.Query(t, to, digest)), fmt.Sprint(c.Query(t, many, digest)); got != want {
		t.Errorf("large objects: got %s, want %s", got, want)
	}
}

// T70: a role that cannot read all large objects is told so before it fails
// half-way, and can leave them all out, which the set declares.
func TestT70UnreadableLargeObjects(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	role := strings.Replace(db, "test", "reader", 1)
	c.Exec(t, db, "SELECT lo_from_bytea(0, 'secret'); CREATE ROLE "+role+" LOGIN PASSWORD 'secret'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "+role)
	t.Cleanup(func() { c.Exec(t, db, "DROP OWNED BY "+role+"; DROP ROLE "+role) })
	env := append(c.Env(), "PGUSER="+role, "PGPASSWORD=secret")
	store := newStore(t)
	dbbackup(t, env, "backup", "single", db, "--store", store).want(t, exitPrecondition, "large object", "--skip-large-objects")
	r := dbbackup(t, env, "backup", "single", db, "--store", store, "--skip-large-objects")
	r.must(t, exitOmissions)
	if !strings.Contains(r.stdout, "large object") {
		t.Errorf("the summary does not name the large objects: %s", r.stdout)
	}
	to := c.FreeName(t)
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--no-owner", "--no-acl")...).must(t, exitOK)
	wantTables(t, c, to, "accounts 300", "branches 200")
}
