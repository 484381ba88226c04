package backup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// Result is what a run did. It is complete also when Run returns an error, as
// far as the run came.
type Result struct {
	ID       string // of the committed set; empty when there is none
	Manifest backupset.Manifest
	Outcomes []Outcome // one for each database that was to be captured
}

// Outcome is how one database ended.
type Outcome struct {
	Name     string
	Captured *backupset.Database // nil when it failed
	Err      error
}

// run is one run on its way.
type run struct {
	o       Options
	server  pg.Server
	before  pg.Moment // when the run began to ask the server
	tools   pgtool.Tools
	plans   []plan
	set     *backupset.Writer
	started time.Time
	pool    *pgcopy.Pool // of the sessions that read chunks
	rate    *rate.Limiter
	bases   map[string]*pgcopy.Base // of a resumed run, by database
	stock   stock                   // of the store, from when it was locked
	older   []*backupset.Set        // an incremental run's, the newest first

	mu       sync.Mutex // for what several databases add to
	manifest backupset.Manifest
}

// Run makes one backup set. The error names everything that failed; a set with
// what did not fail is committed all the same, and then Result.ID says which.
// Omissions are no error: they are in Result.Manifest.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	r := &run{o: o, started: o.Now()}
	if err := r.survey(ctx); err != nil {
		return Result{}, err
	}
	held, release, err := r.lock(ctx)
	if err != nil {
		return Result{}, err
	}
	result, err := r.locked(held)
	if err == nil {
		r.catalog(held)
	}
	return result, errors.Join(err, release())
}

// locked is the part of a run that holds the store's lock.
func (r *run) locked(ctx context.Context) (Result, error) {
	if err := r.plan(ctx); err != nil {
		return Result{}, err
	}
	if err := r.takeStock(ctx); err != nil {
		return Result{}, err
	}
	if err := r.checkSpace(ctx); err != nil {
		return Result{}, err
	}
	if err := r.openOlder(ctx); err != nil {
		return Result{}, err
	}
	if err := r.awaitCalm(ctx); err != nil {
		return Result{}, err
	}
	if err := r.clean(ctx); err != nil {
		return Result{}, err
	}
	if err := r.begin(ctx); err != nil {
		return Result{}, err
	}
	var globalsErr error
	var globals sync.WaitGroup
	globals.Go(func() { globalsErr = r.captureGlobals(ctx) }) // beside: they take little, and as long as a small database
	outcomes := r.captureDatabases(ctx)
	globals.Wait()
	return r.finish(ctx, globalsErr, outcomes)
}

// survey asks the server and finds the tools: what cannot work is refused
// before anything is touched.
func (r *run) survey(ctx context.Context) error {
	if err := r.o.Source.RefusePooler(ctx); err != nil {
		return err
	}
	conn, err := r.o.Source.Connect(ctx, r.o.Source.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	if r.before, err = conn.Moment(ctx); err != nil {
		return err
	}
	if r.server, err = conn.Server(ctx); err != nil {
		return err
	}
	if r.tools, err = r.o.Search.ForServer(ctx, r.server.VersionNum); err != nil {
		return err
	}
	if own := pgtool.VersionOf(r.server.VersionNum).Major; r.tools.Version.Major > own {
		// Seen with 18 on 17: a column's option that only the server's own
		// pg_dump knows to leave out made a dump that no server takes.
		r.o.Report.Warn(fmt.Sprintf("pg_dump %s is newer than the server; one of version %d knows it best (--pg-bin)", r.tools.Version, own),
			report.F("dir", r.tools.Dir))
	}
	return nil
}

// lock takes the store for this run, when it can be written to at all.
func (r *run) lock(ctx context.Context) (held context.Context, release func() error, err error) {
	if err := r.o.Store.CheckWritable(ctx); err != nil {
		return nil, nil, err
	}
	for _, warning := range r.o.Store.Warnings() {
		r.o.Report.Warn(warning)
	}
	return Lock(ctx, r.o.Store, store.Holder{Host: r.o.Host, PID: r.o.PID, Since: r.o.Now(), Purpose: r.o.Purpose})
}

// Lock takes a store's run lock. When another run holds it the error is
// fault.Locked and names the holder. held ends when the lock is lost.
func Lock(ctx context.Context, place store.Store, holder store.Holder) (held context.Context, release func() error, err error) {
	held, release, err = place.Lock(ctx, holder)
	var locked *store.LockedError
	if errors.As(err, &locked) {
		return nil, nil, fault.New(fault.Locked, "", "%w", err)
	}
	return held, release, err
}

// begin claims the set's name.
func (r *run) begin(ctx context.Context) error {
	if err := r.openSet(ctx); err != nil {
		return err
	}
	r.pool, r.rate = pgcopy.NewPool(r.readers()), pgcopy.NewRate(r.o.MaxRate)
	r.manifest = backupset.Manifest{
		Format: backupset.Version, ID: r.set.ID(), Kind: r.o.Kind, Tool: r.o.Tool,
		Host: r.o.Host, Started: r.started.UTC(), Server: r.serverFacts(), Omissions: r.omissions(),
		Databases: []backupset.Database{}, Failures: []backupset.Failure{},
	}
	return nil
}

// openSet makes the new set, or goes on with an unfinished one. A run of the
// native engine says first what it was asked for.
func (r *run) openSet(ctx context.Context) error {
	if r.o.Resume != "" {
		return r.reopen(ctx)
	}
	prefix := string(backupset.Cluster)
	if r.o.Kind == backupset.Single {
		prefix = setPrefix(r.o.Database)
	}
	set, err := backupset.Create(ctx, r.o.Store, backupset.NewID(prefix, r.started, r.stock.ids()), r.o.writes()...)
	if err != nil {
		return err
	}
	r.set = set
	if !r.chunked() {
		return nil
	}
	text, err := r.o.asked()
	if err == nil {
		err = r.set.WriteScratch(ctx, backupset.RunName, text)
	}
	if err != nil {
		return errors.Join(err, r.abandon(ctx))
	}
	return nil
}

func (r *run) serverFacts() backupset.Server {
	return backupset.Server{
		Host: r.o.Source.Host, Port: r.o.Source.Port, User: r.o.Source.User,
		Version: r.server.Version, VersionNum: r.server.VersionNum,
		SystemIdentifier: r.server.SystemIdentifier, Timeline: r.server.Timeline,
		Standby: r.server.Standby, Superuser: r.server.Superuser, BootstrapRole: r.server.BootstrapRole,
	}
}

// finish commits the set when it holds at least one database and the run was
// not interrupted, and says what failed.
func (r *run) finish(ctx context.Context, globalsErr error, outcomes []Outcome) (Result, error) {
	failure := r.record(globalsErr, outcomes)
	result := Result{Manifest: r.manifest, Outcomes: outcomes}
	if ctx.Err() != nil {
		return result, errors.Join(context.Cause(ctx), r.stop(ctx))
	}
	if len(r.manifest.Databases) == 0 {
		return result, errors.Join(failure, r.stop(ctx))
	}
	if err := r.dropFailed(ctx, outcomes); err != nil {
		return result, errors.Join(failure, err, r.stop(ctx))
	}
	r.manifest.Finished = r.o.Now().UTC()
	r.manifest.Resources = r.resources()
	if err := r.set.Commit(ctx, r.manifest); err != nil {
		return result, errors.Join(failure, err, r.stop(ctx))
	}
	result.ID, result.Manifest = r.set.ID(), r.manifest
	failure = errors.Join(failure, r.keepBases(ctx))
	if failure != nil {
		return result, failure
	}
	return result, r.dropSuperseded(ctx)
}

// stop ends a run without a set. What the native engine has captured stays, for
// `resume`; anything else is removed, unless the lock was lost: what lies under the
// set's id may be what another run goes on with.
func (r *run) stop(ctx context.Context) error {
	if fault.Is(context.Cause(ctx), fault.Locked) && !r.set.Journaled() {
		return r.set.Suspend()
	}
	if r.set.Journaled() {
		if err := r.set.Suspend(); err != nil {
			return err
		}
		return fault.Keeping("dbbackup resume "+r.set.ID(), "what was captured so far is kept as unfinished set "+r.set.ID())
	}
	err := r.abandon(ctx)
	if errors.Is(err, store.ErrDenied) {
		r.o.Report.Warn("the store refuses to delete: the unfinished set stays until gc is run by somebody who may", report.F("set", r.set.ID()))
		return nil
	}
	return err
}

// abandon removes the set's objects, also when the run was interrupted.
func (r *run) abandon(ctx context.Context) error {
	return r.set.Abandon(context.WithoutCancel(ctx))
}
