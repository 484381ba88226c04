package pgcopy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/internal/store/dir"
)

var shared = pgtest.Shared{Options: []pgtest.Option{
	pgtest.WithHBA("host all all 127.0.0.1/32 trust"), // SCRAM takes longer than a tiny capture
	pgtest.WithSetting("max_prepared_transactions", "20"),
	pgtest.WithSetting("shared_buffers", "64MB"),
	pgtest.WithSetting("autovacuum_naptime", "1s"),
}}

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

// tiny limits bring a test with some hundred kilobytes to where others need gigabytes.
var tiny = limits{leastChunk: 1, minTail: 0, wideOver: 256 << 20, sliceBytes: 32 << 20, pingEvery: 100 * time.Millisecond}

// site is a database and a store for sets of it.
type site struct {
	cluster *pgtest.Cluster
	db      string
	src     Source
	store   *dir.Dir
	root    string
}

func newSite(t *testing.T, c *pgtest.Cluster, db string) *site {
	t.Helper()
	root := filepath.Join(memoryDir(t), "store")
	st, err := dir.Open(root, true)
	must(t, err)
	t.Cleanup(func() { _ = st.Close() })
	return &site{cluster: c, db: db, src: source(t, c), store: st, root: root}
}

// memoryDir is a folder of the test's own where fsync costs nothing: hundreds of
// tiny chunks would wait for a disk.
func memoryDir(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	dir, err := os.MkdirTemp(memory, "pgcopy-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// source is a cluster as a capture takes it.
func source(t *testing.T, c *pgtest.Cluster) Source {
	t.Helper()
	e, err := pg.Resolve(t.Context(), pg.Options{
		Params: pg.Params{"host": c.Host, "port": strconv.Itoa(c.Port), "user": c.User, "password": c.Password},
		Env:    []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, Application: "dbbackup",
	})
	must(t, err)
	tools, err := pgtool.Search{BinDir: c.BinDir, Path: os.Getenv("PATH")}.ForServer(t.Context(), c.VersionNum)
	must(t, err)
	return Source{Endpoint: e, Tools: tools}
}

const folder = "databases/db.chunks"

// begin begins a set; it can be resumed when it is left unfinished.
func (s *site) begin(t *testing.T) *backupset.Writer {
	t.Helper()
	found, err := backupset.ListFolders(t.Context(), s.store)
	must(t, err)
	set, err := backupset.Create(t.Context(), s.store, backupset.NewID("test", time.Now(), found.IDs))
	must(t, err)
	must(t, set.WriteScratch(t.Context(), backupset.RunName, []byte("{}")))
	return set
}

// shot is one capture.
type shot struct {
	base  *Base // nil: an empty one
	tune  func(c *capture)
	held  func(c *capture) // called while the snapshot is held and the locks are
	codec compress.Codec
	bytes int64 // of a chunk; 32 kB
	quiet bool  // the definitions are those of the store's first set: pg_dump does not run
}

// hook calls fn once, when the definitions were captured.
type hook struct {
	report.Discard
	fn   func()
	once sync.Once
	t    *testing.T
}

func (h *hook) Info(message string, _ ...report.Field) {
	if message == "definitions captured" && h.fn != nil {
		h.once.Do(h.fn)
	}
}

func (h *hook) Warn(message string, fields ...report.Field) { h.t.Log(message, fields) }

// into captures the database into a set.
func (s *site) into(ctx context.Context, t *testing.T, set *backupset.Writer, o shot) (Captured, error) {
	t.Helper()
	if o.base == nil {
		o.base = NewBase()
	}
	if o.codec.Name == "" {
		o.codec = compress.Fastest()
	}
	if o.bytes == 0 {
		o.bytes = 32 << 10
	}
	h := &hook{t: t}
	src := s.src
	if o.quiet {
		src.Tools.Dump = s.canned(t)
	}
	req := Request{
		Database: s.db, Folder: folder, Codec: o.codec, ChunkBytes: o.bytes, Workers: 2, Base: o.base, LockTimeout: 30 * time.Second,
	}
	c := newCapture(src, req, NewPool(2), set, h, report.Discard{}.Task("", 0))
	c.limits = tiny
	if o.tune != nil {
		o.tune(c)
	}
	if o.held != nil {
		h.fn = func() { o.held(c) }
	}
	return c.capture(ctx)
}

// canned is a pg_dump that repeats what the real one once said.
func (s *site) canned(t *testing.T) string {
	t.Helper()
	path := filepath.Join(s.root, "..", "pg_dump")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	archive := filepath.Join(s.root, "..", "schema.dump")
	cmd := exec.Command(filepath.Join(s.cluster.BinDir, "pg_dump"), "-Fc", "--schema-only", "--quote-all-identifiers", "-f", archive, "-d", s.db) //nolint:gosec // a program of PostgreSQL
	cmd.Env = append(s.cluster.Env(), "PATH="+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_dump: %v: %s", err, out)
	}
	text := "#!/bin/sh\nfor a; do case $a in --file=*) exec cp '" + archive + "' \"${a#--file=}\";; esac; done\nexit 1\n"
	must(t, os.WriteFile(path, []byte(text), 0o700)) //nolint:gosec // a program
	return path
}

// commit makes the set exist, and opens it. change may falsify what the manifest says.
func (s *site) commit(t *testing.T, set *backupset.Writer, c Captured, change ...func(d *backupset.Database)) (*backupset.Set, *backupset.Database, *backupset.Contents) {
	t.Helper()
	ctx, now := t.Context(), time.Now().UTC()
	properties, create := "databases/db.properties.json", "databases/db.create.sql"
	must(t, set.WriteFile(ctx, properties, []byte("{}\n")))
	must(t, set.WriteFile(ctx, create, []byte("CREATE DATABASE db;\n")))
	conn, err := s.src.Endpoint.Connect(ctx, s.db)
	must(t, err)
	defer conn.Close(ctx)
	server, err := conn.Server(ctx)
	must(t, err)
	d := backupset.Database{
		Name: s.db, Mode: backupset.Chunked, Why: "test", Dump: c.Dump, Properties: properties, Create: create,
		Owner: "postgres", Encoding: "UTF8", LocaleProvider: "libc", Collate: "C", CType: "C", Tablespace: "pg_default",
		Roles: []string{}, Tablespaces: []string{}, Extensions: []string{}, EstimatedRows: -1, Attempts: 1, Chunks: &c.Chunks,
		Snapshot: backupset.Snapshot{XMin: c.Snapshot.XMin, XMax: c.Snapshot.XMax, XIP: c.Snapshot.XIP, LSN: c.Snapshot.LSN, Time: c.Snapshot.Time.UTC(), Timeline: c.Timeline},
		Started:  now, Finished: now, StoredBytes: c.StoredBytes, DumpBytes: c.RawBytes,
	}
	for _, fn := range change {
		fn(&d)
	}
	must(t, set.Commit(ctx, backupset.Manifest{
		Kind: backupset.Single, Tool: backupset.Tool{Name: "dbbackup", Version: "test"}, Host: "test", Started: now, Finished: now,
		Server:    backupset.Server{Host: s.cluster.Host, Port: s.cluster.Port, User: "postgres", Version: "15", VersionNum: s.cluster.VersionNum, SystemIdentifier: server.SystemIdentifier, Timeline: server.Timeline, BootstrapRole: "postgres"},
		Databases: []backupset.Database{d}, References: c.References,
	}))
	opened, err := backupset.Open(ctx, s.store, set.ID())
	must(t, err)
	database := &opened.Manifest().Databases[0]
	contents, err := opened.Contents(ctx, database)
	must(t, err)
	return opened, database, contents
}

// capture captures the database into a set of its own.
func (s *site) capture(t *testing.T, o shot, change ...func(d *backupset.Database)) captured {
	t.Helper()
	set := s.begin(t)
	got, err := s.into(t.Context(), t, set, o)
	must(t, err)
	opened, d, contents := s.commit(t, set, got, change...)
	return captured{got, opened, d, contents}
}

// captured is a set and what it says.
type captured struct {
	Captured
	set      *backupset.Set
	database *backupset.Database
	contents *backupset.Contents
}

// base is what the next capture starts from.
func (c captured) base() *Base {
	b := NewBase()
	b.AddSet(c.set, c.database, c.contents)
	return b
}

func (c captured) table(t testing.TB, name string) *backupset.ChunkedTable {
	t.Helper()
	for i := range c.contents.Tables {
		if one := &c.contents.Tables[i]; one.Name == name || one.Schema+"."+one.Name == name {
			return &c.contents.Tables[i]
		}
	}
	t.Fatalf("no table %s in the set", name)
	return nil
}

// reused counts the chunks of a table that lie in older sets, and the others.
func (c captured) reused(t testing.TB, name string) (reused, read int) {
	t.Helper()
	for _, chunk := range c.table(t, name).Chunks {
		switch {
		case chunk.Set != "":
			reused++
		case chunk.Object != "":
			read++
		}
	}
	return reused, read
}

// intact reads all chunks of a set back.
func (c captured) intact(t testing.TB) {
	t.Helper()
	damage, err := Check(t.Context(), c.set, c.contents, nil)
	must(t, err)
	for _, d := range damage {
		t.Errorf("damaged: %+v", d)
	}
}

// replayed restores a set into a database of its own, and compares that with what
// the set says. It returns the database.
func (s *site) replayed(t *testing.T, c captured, tune ...func(k *comparison)) string {
	t.Helper()
	db := s.cluster.Database(t)
	problems, err := s.replayInto(t.Context(), t, c, db)
	must(t, err)
	for _, p := range problems {
		t.Errorf("refused: %+v", p)
	}
	shapes, err := shapesOf(t.Context(), s.src.Endpoint, db)
	must(t, err)
	k := &comparison{shapes: shapes, contents: c.contents, limits: ordinary()}
	for _, fn := range tune {
		fn(k)
	}
	differences, err := k.run(t.Context(), s.src.Endpoint, db, 2)
	must(t, err)
	for _, d := range differences {
		t.Errorf("restored %s: %s: %s", c.set.ID(), d.Table, d.Text)
	}
	return db
}

func (s *site) replayInto(ctx context.Context, t *testing.T, c captured, db string) ([]pgtool.ObjectError, error) {
	t.Helper()
	path := filepath.Join(s.root, c.set.ID(), folder, backupset.SchemaName)
	toc, err := pgarchive.Open(path, pgarchive.WithoutSQL())
	must(t, err)
	toc.AddRows(func(string, string) bool { return true })
	target := pgdump.Target{Endpoint: s.src.Endpoint, Tools: s.src.Tools, Superuser: true, VersionNum: s.cluster.VersionNum}
	return Replay(ctx, target, Load{
		Schema: pgdump.Load{Database: db, Mode: backupset.Chunked, Path: path, TOC: toc, Jobs: 2},
		Set:    c.set, Contents: c.contents, Options: "test",
	}, report.Discard{})
}

// rowsOf are the rows of a table, whole, as text and in order.
func rowsOf(t testing.TB, c *pgtest.Cluster, db, table string) string {
	t.Helper()
	return c.QueryString(t, db, fmt.Sprintf("SELECT count(*) || ' ' || coalesce(md5(string_agg(r::text, e'\\n' ORDER BY r::text COLLATE \"C\")), '') FROM %s r", strings.Replace("ONLY "+table, "ONLY (", "(", 1)))
}

// sameRows compares tables of the source with those of a restored database.
func (s *site) sameRows(t testing.TB, restored string, tables ...string) {
	t.Helper()
	for _, table := range tables {
		if want, got := rowsOf(t, s.cluster, s.db, table), rowsOf(t, s.cluster, restored, table); got != want {
			t.Errorf("table %s: restored as %s, want %s", table, got, want)
		}
	}
}

// eventually polls until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		if holds() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

func contains(t testing.TB, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want it to say %q", err, part)
		}
	}
}
