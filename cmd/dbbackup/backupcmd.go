package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"dbbackup/backup"
	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

func (a *application) backupCluster(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	return a.backup(ctx, s, func(o *backup.Options) {
		o.Kind, o.Exclude, o.Purpose = backupset.Cluster, s.list("exclude-db", a.config.ExcludeDatabases), "backup cluster"
	})
}

func (a *application) backupSingle(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 1, 1); err != nil {
		return err
	}
	return a.backup(ctx, s, func(o *backup.Options) {
		o.Kind, o.Database = backupset.Single, s.Args().First()
		o.Purpose = "backup single " + o.Database
		o.Tables, o.Schemas = s.StringSlice("table"), s.StringSlice("schema")
		o.ExcludeTables, o.ExcludeSchemas = s.StringSlice("exclude-table"), s.StringSlice("exclude-schema")
	})
}

// resume goes on with a run of the native engine that was interrupted.
func (a *application) resume(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 1); err != nil {
		return err
	}
	return a.backup(ctx, s, func(o *backup.Options) {
		o.Resume = cmp.Or(s.Args().First(), backupset.Latest)
		o.Purpose = "resume"
	})
}

// backup runs the hooks around a run and prints what came of it.
func (a *application) backup(ctx context.Context, s *settings, kind func(*backup.Options)) error {
	began := time.Now()
	var result backup.Result
	behind := []behindSummary{}
	err := a.beforeHook(ctx, s)
	if err == nil {
		result, behind, err = a.runBackup(ctx, s, kind)
	}
	err = interrupted(ctx, err)
	switch {
	case err != nil:
	case len(behind) > 0:
		err = errBehind
	case result.Manifest.Unasked():
		err = errOmissions
	}
	a.log.Close() // the bars end before the table begins
	summary := summarize(s, result, behind, err, began)
	err = a.keep(err, a.printSummary(s, summary))
	err = a.keep(err, a.pruneAfter(ctx, s, behind, err))
	err = a.keep(err, a.writeMetrics(ctx, s, summary))
	return a.keep(err, a.afterHook(ctx, s, summary))
}

// pruneAfter applies the policy that a backup was given, when it has succeeded. A
// store that fell behind is left alone: it is named already, mostly does not answer,
// and lacks the newest set.
func (a *application) pruneAfter(ctx context.Context, s *settings, behind []behindSummary, err error) error {
	policy, given, policyErr := s.policy()
	if !given || (err != nil && !errors.Is(err, errOmissions)) {
		return nil
	}
	if policyErr != nil {
		return policyErr
	}
	m := newPruneMetrics()
	refs := slices.DeleteFunc(slices.Clone(s.storeRefs()), func(ref string) bool {
		return slices.ContainsFunc(behind, func(b behindSummary) bool { return b.ref == ref })
	})
	pruneErr := s.eachOf(ctx, refs, func(place store.Place) error {
		result, err := a.pruneStore(ctx, s, place, policy, false)
		a.log.Close()
		if err != nil && !planned(result) {
			return err
		}
		m.add(place, result)
		a.log.Info("pruned", report.F("store", place.String()), report.F("kept", len(result.Keep)), report.F("removed", len(result.Deleted)))
		return err
	})
	if pruneErr == nil && len(behind) > 0 {
		pruneErr = errBehind
	}
	pruneErr = a.keep(pruneErr, m.write(s, interrupted(ctx, pruneErr)))
	if errors.Is(pruneErr, errOmissions) {
		return pruneErr
	}
	if pruneErr != nil {
		return fmt.Errorf("the backup succeeded, but not what was to follow: %w", pruneErr)
	}
	return nil
}

// keep joins a later error to the run's own; omissions alone give way to it.
func (a *application) keep(err, later error) error {
	switch {
	case later == nil:
		return err
	case err == nil || errors.Is(err, errOmissions):
		return later
	}
	return errors.Join(err, later)
}

func (a *application) runBackup(ctx context.Context, s *settings, kind func(*backup.Options)) (result backup.Result, behind []behindSummary, err error) {
	if _, _, err := s.policy(); err != nil { // said before hours of work
		return result, nil, err
	}
	o, err := a.backupOptions(ctx, s, kind)
	if err != nil {
		return result, nil, err
	}
	if o.Resume == "" {
		if o.Sealing, err = s.sealing(ctx); err != nil {
			return result, nil, err
		}
		if err := o.Validate(); err != nil {
			return result, nil, err
		}
	} else if o.Sealing, err = s.resumed(ctx); err != nil {
		return result, nil, err
	}
	limitMemory(o.Readers)
	if o.Source, err = s.endpoint(ctx); err != nil {
		return result, nil, err
	}
	place, err := s.openForRun(ctx, o.Resume == "")
	if err != nil {
		return result, nil, err
	}
	defer place.Close() //nolint:errcheck // everything was synced by then
	o.Store = place
	if o.Resume != "" {
		if o, err = backup.Resuming(ctx, o); err != nil {
			return result, nil, err
		}
	}
	result, err = backup.Run(ctx, o)
	return result, s.lagging(place), err
}

// What the garbage collector is asked to keep the heap below: it runs more often
// near it, and goes beyond where it must.
const (
	heapBytes          = 36 << 20
	heapBytesPerReader = 12 << 20 // beyond two
)

func limitMemory(readers int) {
	debug.SetMemoryLimit(heapBytes + int64(max(readers-2, 0))*heapBytesPerReader)
}

// backupOptions resolves everything but the server and the store.
func (a *application) backupOptions(ctx context.Context, s *settings, kind func(*backup.Options)) (backup.Options, error) {
	_, limits := s.hostFacts(ctx)
	o := backup.Options{
		Search: s.search(), Report: a.log, SpaceCheck: !s.Bool("no-space-check"),
		ParallelDatabases: s.orLimit("parallel-databases", a.config.ParallelDatabases, limits.ParallelDatabases),
		Jobs:              s.orLimit("jobs", a.config.Jobs, limits.Jobs),
		Readers:           s.orLimit("jobs", a.config.Jobs, limits.Readers),
		Procs:             limits.CompressionProcs,
		Attempts:          s.orLimit("attempts", a.config.Attempts, 3),
		Tool:              backupset.Tool{Name: "dbbackup", Version: version},
		Host:              hostname(), PID: os.Getpid(), Now: time.Now,
		PerDatabase: map[string]backup.Settings{},
	}
	kind(&o)
	o.Incremental = s.yes("incremental", a.config.Incremental)
	o.MaxConnections = s.number("max-connections", a.config.MaxConnections)
	o.YieldToDDL = s.yes("yield-to-ddl", a.config.YieldToDDL)
	o.Salvage = s.Bool("salvage")
	var errs [3]error
	o.MaxRate, errs[0] = parseBytes("max-rate", orNone(s.text("max-rate", a.config.MaxRate)))
	o.MaxLag, errs[1] = parseBytes("max-replication-lag", orNone(s.text("max-replication-lag", a.config.MaxReplicationLag)))
	o.MaxSnapshotAge, errs[2] = parseTime("max-snapshot-age", orNone(s.text("max-snapshot-age", a.config.MaxSnapshotAge)))
	err := errors.Join(errs[:]...)
	if err != nil {
		return o, err
	}
	if o.Defaults, err = a.databaseSettings(s, "defaults", capture{}); err != nil {
		return o, err
	}
	for name, section := range a.config.Databases {
		if o.PerDatabase[name], err = a.databaseSettings(s, "database "+name, section); err != nil {
			return o, err
		}
	}
	return o, nil
}

// orNone is a limit that a command without a flag for it does not have.
func orNone(limit string) string { return cmp.Or(limit, "0") }

// databaseSettings resolves what holds for one database: a flag beats its
// section, which beats the file's defaults.
func (a *application) databaseSettings(s *settings, of string, section capture) (backup.Settings, error) {
	c := section.over(a.config.capture)
	set := backup.Settings{
		Mode:             backupset.Mode(s.text("mode", c.Mode)),
		SkipLargeObjects: s.yes("skip-large-objects", c.SkipLargeObjects), ExcludeTables: c.ExcludeTables,
	}
	if err := a.compression(s.text("compression", c.Compression), of, &set); err != nil {
		return set, err
	}
	switch format := s.text("copy-format", c.CopyFormat); format {
	case "auto":
	case "binary":
		set.Binary = true
	default:
		return set, fault.New(fault.Usage, "auto or binary", "%s: there is no copy format %q", of, format)
	}
	var errs [5]error
	set.ChunkBytes, errs[4] = parseBytes("chunk-size", s.text("chunk-size", c.ChunkSize))
	set.ChunkedOver, errs[0] = parseBytes("chunked-over", s.text("chunked-over", c.ChunkedOver))
	set.Limit, errs[1] = parseTime("timeout", s.text("timeout", c.Timeout))
	set.Stall, errs[2] = parseTime("stall-timeout", s.text("stall-timeout", c.StallTimeout))
	set.LockTimeout, errs[3] = parseTime("lock-timeout", s.text("lock-timeout", c.LockTimeout))
	return set, errors.Join(errs[:]...)
}

// compression resolves one word for both engines: zstd is the native engine's
// alone.
func (a *application) compression(text, of string, set *backup.Settings) error {
	set.Level, set.Codec = compress.MaxLevel, compress.Fastest()
	if text == "auto" {
		return nil
	}
	asked, err := compress.ParseCodec(text)
	if err != nil {
		return fault.New(fault.Usage, "", "%s: %w", of, err)
	}
	used, capped := asked.Capped()
	if capped && !a.capNoticed {
		a.capNoticed = true
		a.log.Warn(fmt.Sprintf("compression levels above %d cost time and save next to nothing: %d is used", compress.MaxLevel, used.Level), report.F("for", of))
	}
	set.Codec = used
	switch {
	case used.Name != compress.Zstd:
		set.Level = used.Level
	case set.Mode != backupset.Auto && set.Mode != backupset.Chunked:
		return fault.New(fault.Usage, "give a gzip level, or --mode chunked", "%s: compression %s is not for mode %s", of, used, set.Mode)
	}
	return nil
}

// over returns c with what it leaves open taken from base.
func (c capture) over(base capture) capture {
	return capture{
		Mode: or(c.Mode, base.Mode), ChunkedOver: or(c.ChunkedOver, base.ChunkedOver), Compression: or(c.Compression, base.Compression), ChunkSize: or(c.ChunkSize, base.ChunkSize), CopyFormat: or(c.CopyFormat, base.CopyFormat),
		Timeout: or(c.Timeout, base.Timeout), StallTimeout: or(c.StallTimeout, base.StallTimeout),
		LockTimeout: or(c.LockTimeout, base.LockTimeout), SkipLargeObjects: or(c.SkipLargeObjects, base.SkipLargeObjects),
		ExcludeTables: append(append([]string{}, base.ExcludeTables...), c.ExcludeTables...),
	}
}

func or[T any](a, b *T) *T {
	if a != nil {
		return a
	}
	return b
}

// plural is for messages.
func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
