package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// sessionsPerDatabase are those of the native engine that do not read: two that
// keep the snapshot, one that watches, and pg_dump's.
const sessionsPerDatabase = 4

// chunkedFolder is where a chunked database's objects lie.
func chunkedFolder(database string) string { return objectBase(database) + ".chunks" }

// chunked reports whether the native engine captures one of the databases.
func (r *run) chunked() bool {
	return slices.ContainsFunc(r.plans, func(p plan) bool { return p.mode == backupset.Chunked && p.problem == nil })
}

// readers is how many sessions read chunks at a time, over all databases.
func (r *run) readers() int {
	if r.o.MaxConnections == 0 {
		return r.o.Readers
	}
	return max(1, min(r.o.Readers, r.o.MaxConnections-sessionsPerDatabase*r.parallel()))
}

// parallel is how many databases are captured at a time.
func (r *run) parallel() int {
	if r.o.MaxConnections == 0 {
		return r.o.ParallelDatabases
	}
	return max(1, min(r.o.ParallelDatabases, r.o.MaxConnections/(sessionsPerDatabase+1)))
}

// captureChunks returns the function for one attempt by the native engine. All
// attempts share a base, so that each starts from what the ones before it finished.
func (r *run) captureChunks(ctx context.Context, p plan, task report.Task) func() (captured, error) {
	base := pgcopy.NewBase()
	folder := chunkedFolder(p.database.Name)
	if found := r.bases[p.database.Name]; found != nil {
		base = found
	} else if r.o.Incremental {
		r.addOlder(ctx, base, p)
	}
	req := pgcopy.Request{
		Database: p.database.Name, Folder: folder, Codec: p.settings.Codec, ChunkBytes: p.settings.ChunkBytes, Binary: p.settings.Binary, Salvage: r.o.Salvage,
		Workers: r.readers(), WithoutData: p.without, SkipLargeObjects: p.settings.SkipLargeObjects, Base: base,
		Before: r.before, Expected: p.expected, Free: r.free(),
		LockTimeout: p.settings.LockTimeout, Limit: p.settings.Limit, Stall: p.settings.Stall,
		Manners: pgcopy.Manners{Rate: r.rate, MaxLag: r.o.MaxLag, YieldToDDL: r.o.YieldToDDL},
	}
	src := pgcopy.Source{Endpoint: r.o.Source, Tools: r.tools, Standby: r.server.Standby}
	return func() (captured, error) {
		c, err := pgcopy.Capture(ctx, src, req, r.pool, r.set, r.o.Report, task)
		req.Before = pg.Moment{} // a server that was lost since may have taken transactions back
		if err != nil {
			return captured{}, err
		}
		return captured{
			Captured: pgdump.Captured{
				Dump: c.Dump, DumpBytes: c.RawBytes, StoredBytes: c.StoredBytes, Snapshot: c.Snapshot, Usage: c.Usage,
			},
			chunks: &c.Chunks, timeline: c.Timeline, references: c.References, referredBytes: c.ReferredBytes, lost: c.Lost,
		}, nil
	}
}

// maxYields is how often a database gives way to sessions that wait for its
// locks, before that is a failure.
const maxYields = 50

// attemptsFor is how many attempts there are after an error.
func (r *run) attemptsFor(err error) int {
	if errors.Is(err, pgcopy.ErrYielded) {
		return maxYields
	}
	return r.o.Attempts
}

// refer adds objects of older sets to the manifest.
func (r *run) refer(references []backupset.Reference) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifest.References = append(r.manifest.References, references...)
}

// declareLost lists what the server could not read.
func (r *run) declareLost(database string, lost []pgcopy.Lost) {
	for _, l := range lost {
		r.omit(database, fmt.Sprintf("%s of table %s", l, l.Table), "the server cannot read it: "+l.Reason)
	}
}

// openOlder finds the sets that an incremental run can start from.
func (r *run) openOlder(ctx context.Context) error {
	if !r.o.Incremental {
		return nil
	}
	wanted := map[string]int{} // by database; of a cluster's many sets only the newest are opened
	for _, p := range r.plans {
		if p.mode == backupset.Chunked && p.problem == nil {
			wanted[p.database.Name] = basesLookedAt
		}
	}
	for _, e := range r.stock.complete() {
		// What is encrypted refers to what is encrypted, and nothing else does.
		if !wants(wanted, e.Databases) || (e.Sealed != nil) != (r.o.Sealing != nil) {
			continue
		}
		set, locked, err := r.openBase(ctx, e.ID)
		switch {
		case err != nil:
			return err
		case locked: // what does not open one seldom opens the others, and to try a passphrase takes a second
			for _, name := range e.Databases {
				wanted[name]--
			}
		case set != nil:
			r.older = append(r.older, set)
			count(wanted, set.Manifest())
		}
	}
	return nil
}

// basesLookedAt is how many sets a database may be taken from, should the contents
// of the newest be damaged.
const basesLookedAt = 3

func wants(wanted map[string]int, databases []string) bool {
	return slices.ContainsFunc(databases, func(name string) bool { return wanted[name] > 0 })
}

func count(wanted map[string]int, m *backupset.Manifest) {
	for i := range m.Databases {
		if m.Databases[i].Mode == backupset.Chunked {
			wanted[m.Databases[i].Name]--
		}
	}
}

// openBase opens a set that an incremental run may refer to. Without an error it
// may be none; locked says that the run's keys do not open it.
func (r *run) openBase(ctx context.Context, id string) (set *backupset.Set, locked bool, err error) {
	set, err = backupset.Open(ctx, r.o.Store, id, r.o.reads()...)
	if fault.Is(err, fault.WrongKey) {
		locked = true
		r.o.Report.Warn("a set cannot be started from; looking for an older one", report.F("set", id), report.F("because", err))
	}
	if err != nil {
		return nil, locked, ctx.Err() // list says what is wrong with it
	}
	return set, false, nil
}

// addOlder adds the chunks of the newest complete set that holds the database
// as chunks.
func (r *run) addOlder(ctx context.Context, base *pgcopy.Base, p plan) {
	for _, set := range r.older {
		m := set.Manifest()
		for i := range m.Databases {
			d := &m.Databases[i]
			if d.Name != p.database.Name || d.Mode != backupset.Chunked {
				continue
			}
			contents, err := set.Contents(ctx, d)
			if err == nil {
				err = r.set.Refer(set)
			}
			if err != nil {
				r.o.Report.Warn("a set cannot be started from; looking for an older one", report.F("set", set.ID()), report.F("because", err))
				continue
			}
			r.o.Report.Info("unchanged chunks will be taken from an older set", report.F("database", p.database.Name), report.F("set", set.ID()))
			base.AddSet(set, d, contents)
			if base.Empty() && len(contents.Tables) > 0 {
				r.o.Report.Warn("the identity of the server was not known then, so that all is captured again", report.F("set", set.ID()))
			}
			return
		}
	}
	r.o.Report.Info("there is no set to start from: all is captured", report.F("database", p.database.Name))
}

// dropFailed removes the chunks of databases that failed from a set that is
// about to be committed without them.
func (r *run) dropFailed(ctx context.Context, outcomes []Outcome) error {
	for i, o := range outcomes {
		if o.Err == nil || r.plans[i].mode != backupset.Chunked {
			continue
		}
		if err := r.set.Drop(ctx, chunkedFolder(o.Name)); err != nil {
			return err
		}
	}
	return nil
}

// reopen goes on with an unfinished set: the chunks that are whole become the
// base of their databases, and all else that it left is deleted.
func (r *run) reopen(ctx context.Context) (err error) {
	if several, ok := r.o.Store.(store.Several); ok {
		if err := several.Align(ctx, r.o.Resume+"/"); err != nil {
			return err
		}
	}
	if r.set, err = backupset.Reopen(ctx, r.o.Store, r.o.Resume, r.o.writes()...); err != nil {
		return err
	}
	r.set.KeepScratch(backupset.RunName)
	r.bases = map[string]*pgcopy.Base{}
	for _, p := range r.plans {
		if p.mode == backupset.Chunked && p.problem == nil {
			base := pgcopy.NewBase()
			r.bases[p.database.Name] = base
			if r.o.Incremental {
				r.addOlder(ctx, base, p)
			}
		}
	}
	r.o.Report.Info("reading what the interrupted run left", report.F("set", r.set.ID()))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(2)
	for name, base := range r.bases {
		group.Go(func() error { return base.AddInterrupted(groupCtx, r.set, chunkedFolder(name)) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return r.set.DiscardRest(ctx)
}

// dropSuperseded removes what interrupted runs left that were asked for the same
// as the run that has just succeeded: nobody would go on with them now.
func (r *run) dropSuperseded(ctx context.Context) error {
	for _, id := range r.stock.resumable() {
		former, err := askedFor(ctx, r.o, id)
		if fault.Is(err, fault.Precondition) || fault.Is(err, fault.WrongKey) {
			// What it was asked for cannot be read here. A whole set of the same
			// database, or of the cluster, has all of it.
			if !r.o.whole() || backupset.Prefix(id) != backupset.Prefix(r.set.ID()) {
				continue
			}
		} else if err != nil || !former.supersededBy(r.o) {
			continue // gc removes what nobody understands
		}
		if err := backupset.RemoveUnfinished(ctx, r.o.Store, id); err != nil {
			if errors.Is(err, store.ErrDenied) {
				return nil // clean has said so
			}
			return err
		}
		r.o.Report.Info("removed an unfinished set that this one supersedes", report.F("set", id))
	}
	return nil
}

// calmEvery is how often the server is asked whether it is calm.
const calmEvery = 5 * time.Second

// awaitCalm waits while another session holds a snapshot for longer than it may:
// the run's own would add to what VACUUM cannot remove.
func (r *run) awaitCalm(ctx context.Context) error {
	if r.o.MaxSnapshotAge == 0 {
		return nil
	}
	conn, err := r.o.Source.Connect(ctx, r.o.Source.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	for told := false; ; told = true {
		age, err := conn.OldestSnapshot(ctx)
		if err != nil || age <= r.o.MaxSnapshotAge {
			return err
		}
		if !told {
			r.o.Report.Info("waiting, because another session holds an old snapshot", report.F("age", age.Round(time.Second)))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(calmEvery, cmp.Or(r.o.MaxSnapshotAge, calmEvery))):
		}
	}
}
