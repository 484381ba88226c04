package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// copied makes a copy of a database as it is now.
func copied(t testing.TB, c *pgtest.Cluster, db string) string {
	t.Helper()
	to := c.FreeName(t)
	c.Exec(t, "postgres", "CREATE DATABASE "+to+" TEMPLATE "+db)
	return to
}

// endSessions terminates sessions of a capture that meet a condition, and
// returns how many those were.
func endSessions(t testing.TB, c *pgtest.Cluster, db, condition string) int {
	t.Helper()
	n, err := strconv.Atoi(c.QueryString(t, "postgres", "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'dbbackup%' AND datname = '"+
		db+"' AND "+condition))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitDefinitions waits until the only run into a store is done with pg_dump.
func awaitDefinitions(t testing.TB, store string) {
	t.Helper()
	eventually(t, "pg_dump is done", func() bool {
		found, err := filepath.Glob(filepath.Join(store, "*", "databases", "*.chunks", backupset.SchemaName))
		return err == nil && len(found) == 1
	})
}

// T58: sessions of a capture are ended. Whatever is left of the snapshot is read
// on under; when nothing is left the capture begins again under a new one.
func TestT58EndedSessions(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	for name, tc := range map[string]struct {
		condition, text string
		same            bool // the snapshot that the run began with
	}{
		"a worker's":       {"query LIKE 'COPY%'", "its chunk is read again under the same snapshot", true},
		"the leader's":     {"state = 'idle in transaction' AND application_name NOT LIKE '%pg_dump%' AND query NOT LIKE 'COPY%' AND pid IN (SELECT pid FROM pg_locks GROUP BY pid HAVING count(DISTINCT relation) > 4)", "a session that held the snapshot was lost; another one takes its place", true},
		"all but workers'": {"state = 'idle in transaction' AND query NOT LIKE '%chunk%' AND query NOT LIKE 'COPY%' AND application_name NOT LIKE '%pg_dump%'", "another one takes its place", true},
		"all":              {"true", "from the chunks that are there", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, store, to := family(t, c), newStore(t), c.FreeName(t)
			then := copied(t, c, db)
			r := startSlow(t, c, chunking(store, db, slow...)...)
			changeFamily(t, c, db)
			condition := tc.condition
			if tc.same { // a worker is left to hold the snapshot, and pg_dump has seen it
				condition += " AND EXISTS (SELECT FROM pg_stat_activity w WHERE w.datname = pg_stat_activity.datname AND w.query LIKE 'COPY%')"
				awaitDefinitions(t, store)
			}
			eventually(t, "sessions are ended", func() bool { return endSessions(t, c, db, condition) > 0 })
			r.wait(t).want(t, exitOK, tc.text)
			wantSound(t, store, 1)
			dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
			if tc.same {
				db = then
			}
			zoo.Compare(t, c, db, c, to)
		})
	}
}

// T52: what would empty, change or take away a table waits until it is captured,
// and is told of (T57); the capture does not wait behind it.
func TestT52ChangesOfTablesWait(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	for name, sql := range map[string]string{
		"truncate": "TRUNCATE child", "alter": "ALTER TABLE child ALTER id TYPE bigint", "vacuum full": "VACUUM FULL child", "drop": "DROP TABLE child",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, store, to := family(t, c), newStore(t), c.FreeName(t)
			then := copied(t, c, db)
			r := startSlow(t, c, chunking(store, db, append(slow, "--stall-timeout", "10s")...)...)
			awaitDefinitions(t, store) // before that the run gives way, see TestT56
			changed := beside(t, c, db, sql)
			got := r.wait(t)
			got.want(t, exitOK, "a session waits for a lock of this backup", sql)
			if err := <-changed; err != nil {
				t.Errorf("%s: %v", sql, err)
			}
			dbbackup(t, c.Env(), restoring(store, db, "--target-db", to)...).must(t, exitOK)
			zoo.Compare(t, c, then, c, to)
		})
	}
}

// T56: a table is changed between the leader's locks and pg_dump's, which would
// wait behind that for ever. The capture gives way and begins again.
func TestT56ChangeBeforePgDump(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to, dir := family(t, c), newStore(t), c.FreeName(t), t.TempDir()
	env := shim(t, c, fmt.Sprintf(`
if [ ! -e %[1]s/begun ]; then touch %[1]s/begun; until [ -e %[1]s/go ]; do sleep 0.05; done; fi
exec "$real" "$@"`, dir))
	r := start(t, env, chunking(store, db)...)
	eventually(t, "pg_dump was started", func() bool { _, err := os.Stat(filepath.Join(dir, "begun")); return err == nil })
	changed, began := beside(t, c, db, "ALTER TABLE child ALTER id TYPE bigint"), time.Now()
	writeFile(t, filepath.Join(dir, "go"), nil, 0o600)
	r.wait(t).want(t, exitOK, "a session that waits for our locks stands in the way", "from the chunks that are there")
	if err := <-changed; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 45*time.Second { // pg_dump's own lock timeout is a minute
		t.Errorf("it took %s to give way", took)
	}
	wantRestored(t, c, store, db, to)
}

// beside runs a statement in a session of its own, and returns when it waits for
// a lock. Its result comes later.
func beside(t testing.TB, c *pgtest.Cluster, db, sql string) <-chan error {
	t.Helper()
	conn := c.Connect(t, db)
	pid, done := conn.PgConn().PID(), make(chan error, 1)
	go func() { _, err := conn.Exec(t.Context(), sql); done <- err }()
	eventually(t, "it waits for a lock", func() bool {
		return c.QueryString(t, "postgres", fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND wait_event_type = 'Lock'", pid)) == "1"
	})
	return done
}

// T57: with --yield-to-ddl the session that waits goes first, at once, and the
// set is right all the same.
func TestT57YieldToDDL(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	r := startSlow(t, c, chunking(store, db, append(slow, "--yield-to-ddl")...)...)
	changed := beside(t, c, db, "ALTER TABLE child ADD COLUMN added int DEFAULT 7")
	if err := <-changed; err != nil {
		t.Fatal(err)
	}
	if sets := listing(t, store); len(sets) != 1 || sets[0].Status != string(backupset.StatusUnfinished) {
		t.Errorf("the waiting session got its lock when there was %+v", sets)
	}
	r.wait(t).want(t, exitOK, "a session waits for a lock of this backup", "gave way to a session", "from the chunks that are there")
	wantRestored(t, c, store, db, to)
}

// T12: slow is not stalled.
func TestT12SlowCaptureOfChunksIsNotEnded(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, began := family(t, c), newStore(t), time.Now()
	dbbackup(t, c.Env(), chunking(store, db, append(slow, "--stall-timeout", "2s")...)...).want(t, exitOK)
	if took := time.Since(began); took < 6*time.Second {
		t.Errorf("the run took %s: it was not slow", took)
	}
	wantSound(t, store, 1)
}

// T54: neither the source's settings nor the target's change a row.
func TestT54HostileSettingsOnBothSides(t *testing.T) {
	t.Parallel()
	source, target := shared.Start(t), shared.Start(t)
	source.CreateDatabase(t, "odd")
	source.Exec(t, "odd", `CREATE TABLE t AS SELECT g AS id, date '2020-03-04' + g AS day, interval '1 day -2 hours' * g AS span, now() + interval '1 hour' * g AS at,
			1 / g::float8 AS ratio, 'back\slash' || chr(200 + g) AS word, xmlelement(name x, g) AS xml, g::text::money AS cash FROM generate_series(1, 500) g;
		CREATE TABLE raw AS SELECT g AS id, decode(md5(g::text), 'hex') AS raw FROM generate_series(1, 500) g; SELECT lo_from_bytea(0, '\x00ff5c27')`)
	want := digestsOf(t, captured(t, source, "odd", "--mode", "chunked"), "odd")
	for _, c := range []*pgtest.Cluster{source, target} {
		loginRole(t, c, "hostile", "secret", "SUPERUSER")
	}
	zoo.HostileSettings(t, source, "odd", "hostile")
	zoo.HostileSettings(t, target, "template1", "hostile")
	target.Exec(t, "postgres", "ALTER ROLE hostile RESET default_transaction_read_only") // that is refused, see T78
	env := func(c *pgtest.Cluster) []string {
		return append(c.Env(), "PGUSER=hostile", "PGPASSWORD=secret", "PGCLIENTENCODING=LATIN1", "PGDATESTYLE=SQL, DMY", "PGTZ=Asia/Kathmandu")
	}
	store := newStore(t)
	dbbackup(t, env(source), "backup", "single", "odd", "--store", store, "--mode", "chunked").want(t, exitOK)
	if got := digestsOf(t, store, "odd"); !slices.Equal(got, want) {
		t.Errorf("rows captured with hostile settings: got %q, want %q", got, want)
	}
	dbbackup(t, env(target), restoring(store, "odd")...).must(t, exitOK)
	for _, c := range []*pgtest.Cluster{source, target} { // which comes back quoted, and means the same
		c.Exec(t, "postgres", "ALTER DATABASE odd RESET search_path")
	}
	zoo.Compare(t, source, "odd", target, "odd")
}

// digestsOf are those of the rows that a store's only set has of a database's tables.
func digestsOf(t testing.TB, store, db string) (all []string) {
	t.Helper()
	contents := readContents(t, filepath.Join(store, onlySet(t, store), "databases", db+".chunks", backupset.ContentsName))
	for i := range contents.Tables {
		all = append(all, contents.Tables[i].Name+" "+contents.Tables[i].Digest)
	}
	return all
}

// T60: a standby cancels what stands in the way of replay. The capture begins
// again, from what it has, a bounded number of times.
func TestT60CaptureOfChunksOnAStandby(t *testing.T) {
	t.Parallel()
	primary := shared.Start(t, pgtest.WithSetting("max_standby_streaming_delay", "0"))
	db := family(t, primary)
	standby := primary.Standby(t)
	conflict := func() {
		primary.Exec(t, db, "UPDATE child SET note = reverse(note) WHERE id % 100 = 1; DELETE FROM child WHERE id % 1000 = 1")
		primary.Exec(t, db, "VACUUM child")
		primary.AwaitReplay(t, standby)
	}
	primary.AwaitReplay(t, standby)
	store, to := newStore(t), "back"
	r := startSlow(t, standby, chunking(store, db, slow...)...)
	conflict()
	r.wait(t).want(t, exitOK, "from the chunks that are there")
	wantRestored(t, primary, store, db, to)

	store = newStore(t)
	r = startSlow(t, standby, chunking(store, db, append(slow, "--attempts", "1")...)...)
	conflict()
	r.wait(t).want(t, exitFailed, db, "hint: raise max_standby_streaming_delay", "hint: dbbackup resume")
	dbbackup(t, standby.Env(), "resume", "--store", store).want(t, exitOK)
	wantRestored(t, primary, store, db, to+"2")
}

// T86: somebody in between ends every connection that is silent for a while.
// Those that hold the snapshot are none of them.
func TestT86SilentConnectionsAreKeptAlive(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	env, ended := impatient(t, c, 8*time.Second)
	began := time.Now()
	got := dbbackup(t, env, chunking(store, db, "--jobs", "2", "--max-rate", "600kB")...)
	got.want(t, exitOK)
	if took := time.Since(began); took < 11*time.Second || strings.Contains(got.stderr, "lost") || ended() != 0 {
		t.Errorf("after %s %d connections were ended for their silence", took, ended())
	}
	wantRestored(t, c, store, db, to)
}

// impatient is a proxy that ends connections which are silent for so long.
func impatient(t testing.TB, c *pgtest.Cluster, patience time.Duration) (env []string, ended func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	n := 0
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for client, err := l.Accept(); err == nil; client, err = l.Accept() {
			server, err := net.Dial("tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
			if err != nil {
				_ = client.Close()
				continue
			}
			end := func() { _ = client.Close(); _ = server.Close() }
			silence := time.AfterFunc(patience, func() {
				mu.Lock()
				defer mu.Unlock()
				n++
				end()
			})
			carry := func(to, from net.Conn) {
				defer end()
				defer silence.Stop()
				buffer := make([]byte, 64<<10)
				for {
					got, err := from.Read(buffer)
					if err != nil {
						return
					}
					silence.Reset(patience)
					if _, err := to.Write(buffer[:got]); err != nil {
						return
					}
				}
			}
			wg.Go(func() { carry(client, server) })
			wg.Go(func() { carry(server, client) })
		}
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return append(c.Env(), "PGHOST=127.0.0.1", "PGPORT="+port), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// T79: a block that the server cannot read fails the run, which names it; what
// else there is can be had without the table.
func TestT79DamagedBlocksAreNamed(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]pgtest.Option{"without checksums": nil, "with checksums": {pgtest.WithInitdbArgs("--data-checksums")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := shared.Start(t, options...)
			db := c.Database(t)
			c.Exec(t, db, `CREATE TABLE heap AS SELECT g AS id, repeat('x', 500) AS note FROM generate_series(1, 1000) g;
				CREATE TABLE toasted(id int, raw bytea); ALTER TABLE toasted ALTER raw SET STORAGE EXTERNAL;
				INSERT INTO toasted SELECT g, decode(repeat(md5(g::text), 400), 'hex') FROM generate_series(1, 2000) g; CREATE TABLE good AS SELECT 1 AS one`)
			toast := c.QueryString(t, db, "SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'toasted'")
			offset := map[bool]int64{true: 5000, false: 12}[options != nil] // a byte of a row, else where free space begins
			damageBlock(t, c, db, "heap", 7, offset)
			damageBlock(t, c, db, toast, 200, offset)
			args := func(store string, more ...string) []string {
				return append([]string{"backup", "single", db, "--store", store, "--mode", "chunked"}, more...)
			}
			store := newStore(t)
			dbbackup(t, c.Env(), args(store, "--exclude-table", "toasted")...).want(t, exitFailed, "table public.heap", "the damage is in block 7 of it", "invalid page in block 7")
			wantNoSet(t, store, "chunked")
			got := dbbackup(t, c.Env(), args(store, "--exclude-table", "heap")...)
			got.want(t, exitFailed, "table public.toasted", "the damage is in block", "invalid page in block 200")
			wantNoSet(t, store, "chunked")
			dbbackup(t, c.Env(), args(store, "--exclude-table", "heap", "--exclude-table", "toasted")...).want(t, exitOK)
		})
	}
}

// T79: with --salvage all is captured that the server can read, what is lost is
// listed, and the set stands for no whole one.
func TestT79BackupSalvage(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	db, store := c.Database(t), newStore(t)
	c.Exec(t, db, `CREATE TABLE heap AS SELECT g AS id, repeat('x', 500) AS note FROM generate_series(1, 1000) g;
		CREATE TABLE toasted(id int, raw bytea); ALTER TABLE toasted ALTER raw SET STORAGE EXTERNAL;
		INSERT INTO toasted SELECT g, decode(repeat(md5(g::text), 400), 'hex') FROM generate_series(1, 2000) g;
		CREATE TABLE good AS SELECT 1 AS one`)
	args := func(more ...string) []string {
		return append([]string{"backup", "single", db, "--store", store}, more...)
	}
	dbbackup(t, c.Env(), args("--mode", "chunked")...).must(t, exitOK)
	whole := onlySet(t, store)
	damageBlock(t, c, db, "heap", 7, 12)
	damageBlock(t, c, db, c.QueryString(t, db, "SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'toasted'"), 200, 12)
	dbbackup(t, c.Env(), args("--mode", "custom", "--salvage")...).want(t, exitUsage, "hint: use --mode chunked")
	dbbackup(t, c.Env(), args("--mode", "chunked")...).want(t, exitFailed, "hint: ", "--salvage")

	const rows = `SELECT count(*), count(*) FILTER (WHERE id BETWEEN 1 AND 1000 AND note = repeat('x', 500)) FROM heap`
	const values = `SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE raw = decode(repeat(md5(id::text), 400), 'hex')) FROM toasted`
	kept := c.Query(t, db, "SELECT (SELECT count(*) FROM heap WHERE ctid < '(7,0)') + (SELECT count(*) FROM heap WHERE ctid >= '(8,0)')")[0][0]
	for i, flags := range [][]string{nil, {"--incremental"}, {"--chunk-size", "64kB", "--jobs", "3"}} {
		got := dbbackup(t, c.Env(), args(append(flags, "--salvage", "--keep-last", "1")...)...)
		got.want(t, exitOmissions, "mode=chunked", "the server cannot read a part of a table", "invalid page in block 7", "invalid page in block 200")
		listed := strings.Join(strings.Fields(got.stdout), " ")
		for _, text := range []string{`1 block (7) of table "public"."heap"`, `of table "public"."toasted": the server cannot read it`} {
			if !strings.Contains(listed, text) {
				t.Errorf("%v: printed %s, want %q in it", flags, got.stdout, text)
			}
		}
		set := idsOf(t, store)[i+1]
		wantSound(t, store, i+2) // nothing was pruned
		to := c.FreeName(t)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--set", set)...).want(t, exitOK, "without what the server could not read")
		if n := c.Query(t, to, rows)[0]; n[0] != kept || n[1] != kept {
			t.Errorf("%v: of the table with a damaged block %q rows came back, want %s", flags, n, kept)
		}
		if n := c.Query(t, to, values)[0]; n[0] == "2000" || n[0] < "1990" || n[1] != n[0] || n[2] != n[0] {
			t.Errorf("%v: of the table with a damaged value %q came back", flags, n)
		}
		if n := c.QueryString(t, to, "SELECT count(*) FROM good"); n != "1" {
			t.Errorf("%v: of the good table %s rows came back", flags, n)
		}
	}
	inProcess(t, nil, pruning(store, "--keep-last", "1")...).must(t, exitOK)
	if ids := idsOf(t, store); !slices.Contains(ids, whole) {
		t.Errorf("the whole set went, and %q stayed", ids)
	}
}

// damageBlock changes a byte of a table's block, on disk.
func damageBlock(t testing.TB, c *pgtest.Cluster, db, table string, block, offset int64) {
	t.Helper()
	c.Exec(t, db, "CHECKPOINT")
	path := filepath.Join(c.QueryString(t, db, "SHOW data_directory"), c.QueryString(t, db, "SELECT pg_relation_filepath('"+table+"')"))
	c.Stop(t)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if _, err := file.ReadAt(b, block*8192+offset); err != nil {
		t.Fatal(err)
	}
	b[0], b[1] = ^b[0], ^b[1]
	if _, err := file.WriteAt(b, block*8192+offset); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	c.Restart(t)
}

// T50: a run within 256 MiB, which the database's tables and values would not
// fit into, completes, and so do its verification and its restore.
func TestT50SmallMemory(t *testing.T) {
	t.Parallel()
	needRoot(t)
	c := shared.Cluster(t)
	db, store, to := c.Database(t), newStore(t), c.FreeName(t)
	c.Exec(t, db, `DO $$ BEGIN FOR i IN 1..1000 LOOP EXECUTE format('CREATE TABLE t%s AS SELECT %s AS i', i, i); IF i % 200 = 0 THEN COMMIT; END IF; END LOOP; END $$`)
	c.Exec(t, db, `CREATE TABLE wide(id int, raw bytea); ALTER TABLE wide ALTER raw SET STORAGE EXTERNAL;
		INSERT INTO wide SELECT g, decode(repeat(md5(g::text), 6000000), 'hex') FROM generate_series(1, 3) g`)
	group := filepath.Join("/sys/fs/cgroup/memory", "dbbackup-"+db)
	if err := os.Mkdir(group, 0o755); err != nil { //nolint:gosec // as all of them
		cannot(t, "memory cgroup: "+err.Error())
	}
	t.Cleanup(func() {
		eventually(t, "the group is empty", func() bool { return os.Remove(group) == nil })
	})
	writeFile(t, filepath.Join(group, "memory.limit_in_bytes"), []byte("268435456"), 0o600)
	within := []string{"sh", "-c", `echo $$ > "$0/cgroup.procs" && exec "$@"`, group}
	for _, args := range [][]string{
		{"backup", "single", db, "--store", store, "--mode", "chunked", "--jobs", "2"},
		{"verify", "--store", store},
		restoring(store, db, "--target-db", to, "--jobs", "2"),
	} {
		got, peak := startUnder(t, c.Env(), within, args...).waitMeasured(t)
		got.must(t, exitOK)
		t.Logf("%s took %d MB", args[0], peak>>20)
	}
	const digest = "SELECT md5(string_agg(id || md5(raw), ',' ORDER BY id)) FROM wide"
	if got, want := c.QueryString(t, to, digest), c.QueryString(t, db, digest); got != want {
		t.Error("wide values came back different")
	}
	if got := c.QueryString(t, to, "SELECT count(*) FROM pg_stat_user_tables"); got != "1001" {
		t.Errorf("%s tables came back", got)
	}
}

// T49: a chunk that claims to be small and is not. It is read as far as it claims
// to reach, although every digest fits.
func TestT49BombInPlaceOfAChunk(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, to := smallDatabase(t, c), c.FreeName(t)
	store := captured(t, c, db, "--mode", "chunked")
	bomb := filepath.Join(t.TempDir(), "bomb")
	makeBomb(t, bomb, 1<<30)
	edit(t, store, func(folder string, m *backupset.Manifest) {
		replaceChunk(t, folder, m, readFile(t, bomb))
	})
	for _, args := range [][]string{{"verify", "--store", store}, restoring(store, db, "--target-db", to)} {
		began := time.Now()
		got, peak := start(t, c.Env(), args...).waitMeasured(t)
		got.want(t, exitIntegrity)
		for _, text := range []string{"000001.copy.zst", compress.ErrTooLarge.Error()} {
			if !strings.Contains(got.stdout+got.stderr, text) {
				t.Errorf("got %s%s, want %q in it", got.stdout, got.stderr, text)
			}
		}
		if peak > 256<<20 || time.Since(began) > time.Minute {
			t.Errorf("%s took %d MB and %s", args[0], peak>>20, time.Since(began))
		}
	}
	if hasDatabase(t, c, to) {
		t.Error("the database has its name")
	}
	if left := unfinished(t, c, to); left != "" {
		c.DropDatabase(t, left)
	}
}

// makeBomb writes so many zeros, compressed.
func makeBomb(t testing.TB, path string, bytes int) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := compress.Fastest().NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	w.Reset(file)
	for zeros := make([]byte, 1<<20); bytes > 0; bytes -= len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

// replaceChunk puts other bytes into a set's only object of rows, of which each
// table's piece is all; what the pieces say of their rows stays.
func replaceChunk(t testing.TB, folder string, m *backupset.Manifest, text []byte) {
	t.Helper()
	d := &m.Databases[0]
	object := d.Dump + "/000001.copy.zst"
	writeFile(t, filepath.Join(folder, object), text, 0o600)
	contents := filepath.Join(folder, d.Dump, backupset.ContentsName)
	changed := rewriteContents(t, contents, func(c *backupset.Contents) {
		c.Pieces(func(_ *backupset.ChunkedTable, p *backupset.Piece) {
			p.Offset, p.Bytes, p.SHA256 = 0, int64(len(text)), hexDigest(text)
		})
	})
	for i := range m.Objects {
		switch o := &m.Objects[i]; o.Name {
		case object:
			o.Bytes, o.SHA256 = int64(len(text)), hexDigest(text)
		case d.Dump + "/" + backupset.ContentsName:
			o.Bytes, o.SHA256 = int64(len(changed)), hexDigest(changed)
		}
	}
}

// A run that a signal ends while DDL waits behind it leaves nobody waiting.
func TestT57SignalLetsTheWaitingGo(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, mark := family(t, c), newStore(t), marker(t)
	args := chunking(store, db, slow...)
	r := start(t, append(c.Env(), mark), args...)
	eventually(t, "some chunks are finished", func() bool { return len(journals(t, store)) >= 8 })
	changed := beside(t, c, db, "TRUNCATE child")
	r.wantStopped(t, syscall.SIGTERM)
	if err := <-changed; err != nil {
		t.Error(err)
	}
	wantNoTrace(t, c, db, mark)
	to := c.FreeName(t)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitOK)
	wantRestored(t, c, store, db, to)
}
