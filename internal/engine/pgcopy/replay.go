package pgcopy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// Load is what to replay into a database that exists.
type Load struct {
	// Schema says how the definitions are replayed; its Path and TOC are those of
	// the set's schema.dump, and its Jobs hold for the rows, too.
	Schema   pgdump.Load
	Set      *backupset.Set
	Contents *backupset.Contents
	// Entries are the chosen ones, those that AddRows added included; nil: all, and
	// the large objects. Schema.Entries are set from them.
	Entries []int
	// Options identify what was asked for: an interrupted replay is only gone on
	// with when they are the same.
	Options string
}

// Replay fills a database, or goes on filling one that an interrupted Replay of
// the same options left. What the target refused is returned by object; the rest
// was done all the same. The error says that the replay itself broke off; then the
// database can be gone on with.
//
// With Schema.Whole all rows are loaded in one transaction into tables that are
// there, or into those of an empty database.
func Replay(ctx context.Context, t pgdump.Target, l Load, r report.Reporter) ([]pgtool.ObjectError, error) {
	l.Schema.Entries = l.Schema.TOC.Stored(l.Entries)
	p := &replay{target: t, load: l, report: r, archive: pgdump.NewArchive(t, l.Schema, r)}
	if l.Schema.Whole {
		return p.whole(ctx)
	}
	err := p.run(ctx)
	return p.problems, err
}

type replay struct {
	target  pgdump.Target
	load    Load
	report  report.Reporter
	archive *pgdump.Archive
	ledger  *ledger
	chosen  map[string]bool // see wanted

	mu       sync.Mutex
	problems []pgtool.ObjectError
	rows     atomic.Int64
}

// run reads as the order of things.
func (p *replay) run(ctx context.Context) error {
	if err := p.define(ctx); err != nil {
		return err
	}
	if !p.load.Schema.SchemaOnly {
		if err := p.loadAll(ctx); err != nil {
			return fmt.Errorf("load rows: %w", err)
		}
		if err := p.loadLargeObjects(ctx); err != nil {
			return fmt.Errorf("load large objects: %w", err)
		}
		if err := p.setSequences(ctx); err != nil {
			return err
		}
	}
	if err := p.complete(ctx); err != nil {
		return err
	}
	if !p.load.Schema.SchemaOnly {
		if err := p.refresh(ctx); err != nil {
			return err
		}
	}
	return p.end(ctx)
}

// refused notes what the target refused. Everything else is an error.
func (p *replay) refused(object string, err error) error {
	if err == nil || !pg.IsRefused(err) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = append(p.problems, pgtool.ObjectError{Object: object, Message: err.Error()})
	return nil
}

// connect opens a session that writes.
func (p *replay) connect(ctx context.Context) (*pg.Stream, error) {
	stream, err := p.target.Endpoint.ConnectStream(ctx, p.load.Schema.Database)
	if err != nil {
		return nil, err
	}
	// What a crash of the server loses together with its row in the ledger is
	// loaded again; the renaming at the end is durable, and all before it with it.
	sql := "SET synchronous_commit = off"
	if quiet := p.target.WithoutEventTriggers(); quiet != "" {
		sql += "; " + quiet
	}
	if err := stream.Exec(ctx, "prepare session", sql); err != nil {
		return nil, errors.Join(err, stream.Close(ctx))
	}
	return stream, nil
}

// define makes the definitions that rows need, and the ledger after them: where
// there is one, that was done.
func (p *replay) define(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	if p.ledger, err = readLedger(ctx, conn); err != nil {
		return err
	}
	if p.ledger != nil {
		p.report.Info("going on with an interrupted restore", report.F("database", p.load.Schema.Database), report.F("steps done", len(p.ledger.done)-1))
		return nil
	}
	for _, s := range p.archive.Steps(pgarchive.PreData) {
		problems, err := p.archive.Run(ctx, s, false)
		p.problems = append(p.problems, problems...)
		if err != nil {
			return fmt.Errorf("restore %s: %w", s.Name, err)
		}
	}
	p.ledger = &ledger{done: map[string]bool{}}
	options := p.load.Options
	if len(p.problems) > 0 {
		options = "" // nobody goes on with it: what was refused here would be forgotten
	}
	return makeLedger(ctx, conn, options)
}

// loadAll loads the chunks by several sessions: also those of one table.
func (p *replay) loadAll(ctx context.Context) error {
	jobs := p.jobs()
	p.report.Info("loading rows", report.F("database", p.load.Schema.Database), report.F("chunks", len(jobs)))
	release := p.keepVacuumAway(ctx, jobs)
	defer release()
	queue := newLoadQueue(jobs)
	group, ctx := errgroup.WithContext(ctx)
	for range min(max(p.load.Schema.Jobs, 1), max(len(jobs), 1)) {
		group.Go(func() error { return p.loader(ctx, queue) })
	}
	return group.Wait()
}

// Tables above a size, so many at most, are kept from autovacuum while they are loaded.
const (
	vacuumedBytes  = 16 << 20
	vacuumedTables = 500
	vacuumedWait   = 5 * time.Second // for one that is being vacuumed
)

// keepVacuumAway locks the larger tables against VACUUM and ANALYZE, which would come by
// itself once enough rows are in, and read and write what is not complete yet. Loading
// rows goes on beside the lock. It is a favor: without it the load only takes longer. The
// returned function ends it.
func (p *replay) keepVacuumAway(ctx context.Context, jobs []loadJob) (release func()) {
	bytes := map[pgname.Table]int64{}
	var tables []pgname.Table
	for _, j := range jobs {
		if j.table.Via != nil {
			continue // whoever loads through a parent does not know where to
		}
		t := pgname.Table{Schema: j.table.Schema, Name: j.table.Name}
		before := bytes[t]
		bytes[t] += j.chunk.RawBytes
		if before < vacuumedBytes && bytes[t] >= vacuumedBytes && len(tables) < vacuumedTables {
			tables = append(tables, t)
		}
	}
	if len(tables) == 0 {
		return func() {}
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return func() {}
	}
	_ = conn.KeepVacuumAway(ctx, tables, vacuumedWait)
	return func() { _ = conn.Close(ctx) } // it has written nothing
}

// jobs are the chunks that are not in the ledger, the largest first.
func (p *replay) jobs() []loadJob {
	var all []loadJob
	for i := range p.load.Contents.Tables {
		t := &p.load.Contents.Tables[i]
		if !p.wanted("TABLE DATA", t.Schema, t.Name) {
			continue
		}
		for j := range t.Chunks {
			c := &t.Chunks[j]
			step := fmt.Sprintf("chunk %d %d", t.OID, c.FirstPage)
			if c.Rows > 0 && !p.ledger.done[step] {
				all = append(all, loadJob{t, c, step})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b loadJob) int { return cmp.Compare(b.chunk.RawBytes, a.chunk.RawBytes) })
	return all
}

// loader is one session that loads.
type loader struct {
	r      *replay
	stream *pg.Stream
}

func (p *replay) loader(ctx context.Context, queue *loadQueue) error {
	stream, err := p.connect(ctx)
	if err != nil {
		return err
	}
	l := &loader{p, stream}
	defer stream.Close(ctx) //nolint:errcheck // every statement was acknowledged
	for {
		j, done, ok := queue.next()
		if !ok {
			return nil
		}
		err := p.load.Set.Reread(func() error {
			return l.transact(ctx, noted(j.step), func() error { return l.loadChunk(ctx, j.table, j.chunk) })
		})
		done()
		if err := p.refused("TABLE DATA "+printable(j.table), err); err != nil {
			return fmt.Errorf("table %s: %w", printable(j.table), err)
		}
	}
}

// transact runs fn in a transaction that ends with a row in the ledger.
func (l *loader) transact(ctx context.Context, note string, fn func() error) error {
	if err := l.stream.Exec(ctx, "begin", "BEGIN"); err != nil {
		return err
	}
	err := fn()
	if err == nil {
		return l.stream.Exec(ctx, "commit", note+"; COMMIT")
	}
	if l.stream.Lost() {
		return err
	}
	return errors.Join(err, l.stream.Exec(context.WithoutCancel(ctx), "roll back", "ROLLBACK"))
}

// loadChunk loads the rows of a chunk, and counts them.
func (l *loader) loadChunk(ctx context.Context, t *backupset.ChunkedTable, c *backupset.Chunk) error {
	into := pgname.Table{Schema: t.Schema, Name: t.Name}
	if t.Via != nil {
		into = pgname.Table{Schema: t.Via.Schema, Name: t.Via.Name}
	}
	want, _ := narrowPart(c)
	if want > 0 {
		sql := loadSQL(l.stream.Quote, into, t.Columns, t.Format)
		rows, err := l.copyIn(ctx, &c.Piece, "load rows of table "+printable(t), sql)
		if err != nil {
			return err
		}
		if rows != want {
			return fmt.Errorf("the server took %d rows of a chunk of %d", rows, want)
		}
	}
	for i := range c.Wide {
		if err := l.loadRow(ctx, t, into, &c.Wide[i]); err != nil {
			return err
		}
	}
	l.r.rows.Add(c.Rows)
	return nil
}

func (p *replay) openPiece(ctx context.Context, piece *backupset.Piece) (*pieceReader, error) {
	return openPiece(ctx, p.load.Set, piece)
}

// wanted reports whether something that AddRows added to the archive's contents is
// among the chosen entries.
func (p *replay) wanted(desc, schema, name string) bool {
	if p.load.Entries == nil {
		return true
	}
	if p.chosen == nil {
		p.chosen = map[string]bool{}
		ids := map[int]bool{}
		for _, id := range p.load.Entries {
			ids[id] = true
		}
		for i := range p.load.Schema.TOC.Entries {
			if e := &p.load.Schema.TOC.Entries[i]; e.Added && ids[e.ID] {
				p.chosen[e.Desc+" "+pgname.Qualified(e.Schema, e.Tag)] = true
			}
		}
	}
	return p.chosen[desc+" "+pgname.Qualified(schema, name)]
}

// setSequences gives sequences their values; twice is no harm.
func (p *replay) setSequences(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	return p.setIn(ctx, conn)
}

func (p *replay) setIn(ctx context.Context, conn *pg.Stream) error {
	for _, s := range p.load.Contents.Sequences {
		if !p.wanted("SEQUENCE SET", s.Schema, s.Name) {
			continue
		}
		name := pgname.Table{Schema: s.Schema, Name: s.Name}
		text := conn.Quote(s.Schema) + "." + conn.Quote(s.Name)
		// A name that is not ASCII reaches the server escaped within an identifier,
		// so the sequence is found by one, and not by a literal.
		sql := fmt.Sprintf("SELECT setval(tableoid_of.oid, %d, %t) FROM (SELECT tableoid AS oid FROM %s) tableoid_of", s.Last, s.Called, text)
		if err := p.refused("SEQUENCE SET "+name.Printable(), conn.Exec(ctx, "set sequence "+name.Printable(), sql)); err != nil {
			return err
		}
	}
	return nil
}

// complete makes indexes, constraints and all else that comes after the rows, in
// phases, each of which is noted. One that was interrupted begins by dropping what it left.
func (p *replay) complete(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	for i, s := range p.archive.Steps(pgarchive.PostData) {
		begun, done := fmt.Sprintf(postDataStep+"%d begun", i), fmt.Sprintf(postDataStep+"%d", i)
		if p.ledger.done[done] {
			continue
		}
		if !p.ledger.done[begun] {
			if err := conn.Exec(ctx, "note a step", noted(begun)); err != nil {
				return err
			}
		}
		p.report.Info("restoring "+s.Name, report.F("database", p.load.Schema.Database))
		problems, err := p.archive.Run(ctx, s, p.ledger.done[begun])
		for i := range problems {
			problems[i].ForeignKey = s.ForeignKeys
		}
		p.problems = append(p.problems, problems...)
		if err != nil {
			return fmt.Errorf("restore %s: %w", s.Name, err)
		}
		if len(problems) == 0 {
			err = conn.Exec(ctx, "note a step", noted(done))
		}
		if err != nil {
			return err
		}
	}
	problems, err := p.archive.MapOwnership(ctx)
	p.problems = append(p.problems, problems...)
	return err
}

// refresh fills the materialized views that were populated, in an order in which
// each finds those that it reads.
func (p *replay) refresh(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	for _, v := range p.load.Contents.MaterializedViews {
		name := pgname.Table{Schema: v.Schema, Name: v.Name}
		step := refreshStep + name.String()
		if !v.Populated || p.ledger.done[step] || !p.wanted("MATERIALIZED VIEW DATA", v.Schema, v.Name) {
			continue
		}
		sql := "REFRESH MATERIALIZED VIEW " + conn.Quote(v.Schema) + "." + conn.Quote(v.Name)
		err := conn.Exec(ctx, "refresh materialized view "+name.Printable(), "BEGIN; "+sql+"; "+noted(step)+"; COMMIT")
		if err != nil && !conn.Lost() {
			_ = conn.Exec(ctx, "roll back", "ROLLBACK") // the error is err
		}
		if err := p.refused("MATERIALIZED VIEW DATA "+name.Printable(), err); err != nil {
			return err
		}
	}
	return nil
}

func (p *replay) end(ctx context.Context) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)        //nolint:errcheck // every statement was acknowledged
	return dropLedger(ctx, conn) // also of what is kept: it is looked at, and not gone on with
}

// whole loads everything in one transaction, by one session: into tables that
// are there (data only).
func (p *replay) whole(ctx context.Context) ([]pgtool.ObjectError, error) {
	if !p.load.Schema.DataOnly {
		problems, err := p.archive.RunWhole(ctx)
		return problems, err
	}
	conn, err := p.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	p.ledger = &ledger{done: map[string]bool{}}
	l := &loader{p, conn}
	object := "rows"
	err = l.transact(ctx, "SELECT 1", func() error {
		if p.target.Superuser { // as pg_restore --disable-triggers
			if err := conn.Exec(ctx, "disable triggers", "SET LOCAL session_replication_role = replica"); err != nil {
				return err
			}
		}
		for _, j := range p.jobs() {
			object = "TABLE DATA " + printable(j.table)
			if err := l.loadChunk(ctx, j.table, j.chunk); err != nil {
				return err
			}
		}
		if p.load.Entries == nil {
			object = "large objects"
			if err := p.blobsIn(ctx, l); err != nil {
				return err
			}
		}
		return p.setIn(ctx, conn)
	})
	err = p.refused(object, err)
	return p.problems, err
}
