package pgcopy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// Source is where a capture reads from.
type Source struct {
	Endpoint *pg.Endpoint
	Tools    pgtool.Tools
	Standby  bool // the server is in recovery
}

// Request is what to capture, and how.
type Request struct {
	Database   string
	Folder     string // of the objects, e.g. databases/app.chunks
	Codec      compress.Codec
	ChunkBytes int64 // of heap and TOAST in a chunk, at most
	Binary     bool  // COPY's binary form wherever the types allow it, not only for tables with bytea
	Workers    int   // sessions that read, at most

	Salvage bool // what the server cannot read is left out, see Captured.Lost; from version 14 on

	WithoutData      []pgname.Table // tables of which only the definition is wanted
	SkipLargeObjects bool

	// Base are the chunks to start from. What this capture finishes is added, also
	// when it fails, so that a further attempt starts from there. Never nil.
	Base *Base

	Before   pg.Moment                                // one that the caller knows of, if any
	Expected int64                                    // bytes that will be stored, estimated
	Free     func() (bytes, inodes uint64, err error) // what the store has left; nil: nobody knows

	LockTimeout time.Duration // for each table's lock; 0 waits for ever
	Limit       time.Duration // for the whole capture; 0 none
	Stall       time.Duration // without a sign of life; 0 none
	Manners     Manners
}

// Captured is a finished capture. Its objects are recorded in the set.
type Captured struct {
	Dump          string // the folder of objects
	RawBytes      int64  // of the COPY streams, reused ones included
	StoredBytes   int64  // in this set
	ReferredBytes int64  // in older ones
	Snapshot      pg.Snapshot
	Timeline      int64 // of the snapshot's WAL position; 0 when unknown
	Chunks        backupset.Chunks
	References    []backupset.Reference
	Usage         child.Usage // of pg_dump
	Lost          []Lost      // what the server could not read, by table
}

// Capture writes one database into the set. When it returns an error nothing of
// it is recorded but chunks that Request.Base names. An error of kind
// fault.Unavailable means that another attempt may work: the server was lost, or
// a table was changed between snapshot and lock.
func Capture(ctx context.Context, src Source, req Request, pool *Pool, set *backupset.Writer, r report.Reporter, task report.Task) (Captured, error) {
	return newCapture(src, req, pool, set, r, task).capture(ctx)
}

func newCapture(src Source, req Request, pool *Pool, set *backupset.Writer, r report.Reporter, task report.Task) *capture {
	application := pgdump.ApplicationName("chunked")
	src.Endpoint = src.Endpoint.As(application)
	return &capture{
		src: src, req: req, pool: pool, set: set, report: r, task: task, limits: ordinary(), proven: proven, queue: newQueue(), durable: make(chan struct{}),
		application: application, usesObject: map[string]bool{}, manners: newGate(req.Manners.Rate),
	}
}

func (c *capture) capture(ctx context.Context) (Captured, error) {
	conflicts, err := pg.WatchConflicts(ctx, c.src.Endpoint, c.src.Standby, c.req.Database)
	if err != nil {
		return Captured{}, err
	}
	watch := child.WatchOptions{Limit: c.req.Limit, Stall: c.req.Stall, Progress: c.signs.Load}
	err = child.Watch(ctx, watch, c.run)
	if err != nil {
		// A session behind a network that has swallowed it, or that waits for a lock,
		// does not notice that its client is gone.
		pgdump.EndBackends(ctx, c.src.Endpoint, c.application, c.report, c.req.Database)
		err = pgdump.Cancelled(ctx, conflicts, c.explainRoom(err))
		return Captured{}, fmt.Errorf("capture database %s: %w", pgname.Printable(c.req.Database), err)
	}
	return c.captured, nil
}

// capture is one attempt at one database.
type capture struct {
	src         Source
	req         Request
	pool        *Pool
	set         *backupset.Writer
	report      report.Reporter
	task        report.Task
	application string // of all sessions, so that they can be found and ended
	limits      limits
	proven      func(captured backupset.Chunk, rows, born int64) bool

	identity pg.Identity
	reached  uint64 // WAL position before the snapshot
	snapshot *snapshot
	ended    pg.Moment
	durable  chan struct{} // closed when all that has ended is durable
	leader   *pg.Conn      // exported the snapshot, and holds the locks
	holder   *keeper       // the second keeper, which has all locks, too
	encoding string
	planner  planner
	shapes   []pg.Shape
	tables   []*table
	views    []pg.MaterializedView
	// sequences are those that the snapshot sees; their values are not its.
	sequences []pgname.Table
	blobs     *largeObjects
	queue     *queue
	manners   *gate

	signs  atomic.Int64 // grows while anything moves
	stored atomic.Int64 // bytes, reused ones included
	active activity

	mu         sync.Mutex
	usesObject map[string]bool // objects of this set that a chunk of the result lies in

	captured Captured
}

// table is one table on its way.
type table struct {
	*pg.Shape
	binary       bool // read in COPY's binary form
	pages        uint32
	bytesPerPage float64
	ranges       bool // can be read by ranges of pages

	mu       sync.Mutex
	chunks   []backupset.Chunk
	wideOver int64
}

// print is of all that decides how the rows of the table's chunks read: also of the
// order of columns, which is another table's when they are loaded through that.
func (t *table) fingerprint() string {
	if t.Via == (pgname.Table{}) {
		return t.Fingerprint
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %q", t.Fingerprint, t.Columns))
	return hex.EncodeToString(sum[:16])
}

// run reads as the order of things: nothing may change its place.
func (c *capture) run(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	defer c.snapshot.close(ctx)
	for _, step := range []func(context.Context) error{c.lock, c.plan} {
		c.signs.Add(1)
		if err := step(ctx); err != nil {
			return err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	besideCtx, endBeside := context.WithCancel(groupCtx)
	group.Go(func() error {
		defer endBeside()
		return c.work(groupCtx)
	})
	group.Go(func() error { return c.awaitDurable(groupCtx) })
	group.Go(func() error { return c.snapshot.keep(besideCtx, c.limits.pingEvery, c.replaceKeeper) })
	group.Go(func() error { return c.behave(besideCtx) })
	group.Go(func() error { return c.tell(besideCtx) })
	if err := group.Wait(); err != nil {
		return err
	}
	return c.finish(ctx)
}

// begin exports the snapshot, and lets a second session hold it, too.
func (c *capture) begin(ctx context.Context) error {
	conn, err := c.src.Endpoint.Connect(ctx, c.req.Database)
	if err != nil {
		return err
	}
	closing := func(err error) error { return errors.Join(err, conn.Close(ctx)) }
	if c.identity, err = conn.Identity(ctx); err != nil {
		return closing(err)
	}
	if c.reached, err = conn.Reached(ctx); err != nil {
		return closing(err)
	}
	exported, err := conn.BeginExported(ctx)
	if err != nil {
		return closing(err)
	}
	if c.ended, err = c.ending(ctx, conn); err != nil {
		return closing(err)
	}
	if c.identity.Known() { // so the role may ask: what is refused would end the transaction
		after, err := conn.Identity(ctx)
		if err != nil {
			return closing(err)
		}
		if after != c.identity { // promoted meanwhile: nobody knows on which side the snapshot is
			c.identity.Timeline = 0
		}
	}
	c.leader, c.encoding = conn, conn.ServerEncoding()
	c.snapshot = newSnapshot(c.src.Endpoint, c.req.Database, exported, conn)
	second, err := c.snapshot.join(ctx)
	if err != nil {
		c.snapshot.close(ctx)
		return err
	}
	c.holder = c.snapshot.addKeeper(second)
	c.captured.Snapshot, c.captured.Timeline = exported, c.identity.Timeline
	return nil
}

// lock takes the tables and finds out whether one of them was changed between
// the snapshot and its lock: rewritten or truncated, it would read as empty
// (FACTS: snapshots and locks).
func (c *capture) lock(ctx context.Context) error {
	var err error
	if c.shapes, err = c.leader.Shapes(ctx); err != nil {
		return err
	}
	if err := c.checkNames(); err != nil {
		return err
	}
	if c.views, err = c.leader.MaterializedViews(ctx); err != nil {
		return err
	}
	if c.sequences, err = c.leader.Sequences(ctx); err != nil {
		return err
	}
	if err := c.lockAs(ctx, c.leader); err != nil {
		return err
	}
	return c.lockHolder(ctx, c.holder.session.(*pg.Stream)) //nolint:forcetypeassert // begin made it one
}

// lockAs takes all locks in a session under the snapshot.
func (c *capture) lockAs(ctx context.Context, conn *pg.Conn) error {
	var blockers pgdump.Blockers
	stop := blockers.WatchPID(ctx, c.src.Endpoint, conn.PID(), c.report, c.req.Database)
	err := conn.LockTables(ctx, c.tableNames(), c.req.LockTimeout)
	stop()
	switch {
	case pg.IsGone(err):
		return changedError("%w", err)
	case pg.IsLockTimeout(err):
		if holder := blockers.Recent(); holder != "" {
			err = fmt.Errorf("it is locked by %s: %w", holder, err)
		}
		return fault.New(fault.Failed, "end that session, or allow a longer --lock-timeout", "%w", err)
	case err != nil:
		return err
	}
	return c.apart(ctx, c.compareShapes)
}

// changedError is of the kind that is tried again, under a new snapshot.
func changedError(format string, args ...any) error {
	return fault.New(fault.Unavailable, "", "a table was changed while the capture began: "+format, args...)
}

// apart calls fn with a session that is not under the snapshot.
func (c *capture) apart(ctx context.Context, fn func(ctx context.Context, conn *pg.Conn) error) error {
	conn, err := c.src.Endpoint.Connect(ctx, c.req.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	return fn(ctx, conn)
}

// compareShapes compares what the snapshot sees of the tables with what they are
// now.
func (c *capture) compareShapes(ctx context.Context, conn *pg.Conn) error {
	now, err := conn.ShapePrints(ctx)
	if err != nil {
		return err
	}
	current := make(map[uint32]*pg.Shape, len(now))
	for i := range now {
		current[now[i].OID] = &now[i]
	}
	for i := range c.shapes {
		was := &c.shapes[i]
		is, ok := current[was.OID]
		switch {
		case !ok:
			return changedError("%s is gone", was.Printable())
		case is.Table != was.Table:
			return changedError("%s is called %s now", was.Printable(), is.Printable())
		case is.Filenode != was.Filenode:
			return changedError("%s was truncated or rewritten", was.Printable())
		case is.Fingerprint != was.Fingerprint:
			return changedError("%s, or a type that it uses, was altered", was.Printable())
		}
	}
	return nil
}

// checkNames refuses what contents.json cannot hold.
func (c *capture) checkNames() error {
	for i := range c.shapes {
		s := &c.shapes[i]
		for _, name := range append([]string{s.Schema, s.Name}, s.Columns...) {
			if !validName(name) {
				return fault.New(fault.Precondition, "use --mode custom for this database",
					"table %s: the name %s is not UTF-8, which the native engine cannot write down", s.Printable(), pgname.Printable(name))
			}
		}
	}
	return nil
}

// work runs pg_dump and the workers. Whose work is done stays until all is: by then
// its session may be the last one that holds the snapshot.
func (c *capture) work(ctx context.Context) error {
	workers := make([]*worker, c.req.Workers)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.dumpSchema(groupCtx) })
	for i := range workers {
		workers[i] = c.newWorker()
		group.Go(func() error { return workers[i].work(groupCtx) })
	}
	err := group.Wait()
	for _, w := range workers {
		w.leave(ctx)
	}
	return err
}

// dumpSchema lets pg_dump write the definitions, under the same snapshot.
func (c *capture) dumpSchema(ctx context.Context) error {
	began := time.Now()
	object := c.req.Folder + "/" + backupset.SchemaName
	if err := c.set.Drop(ctx, object); err != nil { // an earlier attempt's, under its snapshot
		return err
	}
	src := pgdump.Source{Endpoint: c.src.Endpoint, Tools: c.src.Tools}
	usage, err := pgdump.CaptureSchema(ctx, src, pgdump.SchemaRequest{
		Database: c.req.Database, Object: object, Application: c.application,
		Snapshot: c.snapshot.exported(), Encoding: c.encoding, LockTimeout: c.req.LockTimeout, Signs: &c.signs,
	}, c.set)
	if err != nil {
		return c.explainDump(ctx, fmt.Errorf("capture definitions: %w", err))
	}
	c.captured.Usage = usage
	c.report.Info("definitions captured", report.F("database", c.req.Database), report.F("took", time.Since(began).Round(time.Millisecond)))
	return nil
}

// explainDump finds out whether pg_dump failed because the server went away, or
// because it waited behind somebody who waits for the leader.
func (c *capture) explainDump(ctx context.Context, err error) error {
	var exit *child.ExitError
	if !errors.As(err, &exit) || exit.Cause != nil || ctx.Err() != nil {
		return err
	}
	held, queued := c.snapshot.held(ctx), false
	_ = c.apart(ctx, func(ctx context.Context, conn *pg.Conn) error { // err is what counts
		blocked, err := conn.BlockedByUs(ctx, c.snapshot.pids())
		queued = len(blocked) > 0
		return err
	})
	switch {
	case ctx.Err() != nil:
	case !held:
		return fault.New(fault.Unavailable, "", "a session that held the snapshot is lost, too: %w", err)
	case queued:
		return fmt.Errorf("%w: %w", errQueued, err)
	}
	return err
}

// replaceKeeper puts a new session in the place of one that was lost. That of
// the leader takes all locks again, and makes sure that nothing happened to the
// tables meanwhile.
func (c *capture) replaceKeeper(ctx context.Context, k *keeper) error {
	c.report.Warn("a session that held the snapshot was lost; another one takes its place", report.F("database", c.req.Database))
	if k.session != exporter(c.leader) {
		stream, err := c.snapshot.join(ctx)
		if err != nil {
			return err
		}
		if err := c.lockHolder(ctx, stream); err != nil {
			return errors.Join(err, stream.Close(ctx))
		}
		return c.snapshot.replace(ctx, k, stream)
	}
	conn, err := c.src.Endpoint.Connect(ctx, c.req.Database)
	if err != nil {
		return err
	}
	err = conn.ImportSnapshot(ctx, c.snapshot.exported())
	if pg.IsUnknownSnapshot(err) {
		stale := c.snapshot.exported()
		if err = c.snapshot.exportAgain(ctx, stale); err == nil {
			conn.Close(ctx) //nolint:errcheck // it was never used
			return c.replaceKeeper(ctx, k)
		}
	}
	if err == nil {
		err = c.lockAs(ctx, conn)
	}
	if pg.IsLockTimeout(err) {
		err = fmt.Errorf("%w: %w", errQueued, err)
	}
	if err == nil {
		err = c.snapshot.replace(ctx, k, conn)
	}
	if err != nil {
		return errors.Join(err, conn.Close(ctx))
	}
	c.leader = conn
	return nil
}
