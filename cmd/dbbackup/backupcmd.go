package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"dbbackup/backup"
	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/report"
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

// backup runs the hooks around a run and prints what came of it.
func (a *application) backup(ctx context.Context, s *settings, kind func(*backup.Options)) error {
	began := time.Now()
	var result backup.Result
	err := a.beforeHook(ctx, s)
	if err == nil {
		result, err = a.runBackup(ctx, s, kind)
	}
	err = interrupted(ctx, err)
	if err == nil && result.Manifest.Unasked() {
		err = errOmissions
	}
	a.log.close() // the bars end before the table begins
	summary := summarize(s, result, err, began)
	err = a.keep(err, a.printSummary(s, summary))
	err = a.keep(err, a.writeMetrics(ctx, s, summary))
	return a.keep(err, a.afterHook(ctx, s, summary))
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

func (a *application) runBackup(ctx context.Context, s *settings, kind func(*backup.Options)) (backup.Result, error) {
	o, err := a.backupOptions(ctx, s, kind)
	if err != nil {
		return backup.Result{}, err
	}
	if err := o.Validate(); err != nil {
		return backup.Result{}, err
	}
	if o.Source, err = s.endpoint(ctx); err != nil {
		return backup.Result{}, err
	}
	place, err := s.openStore(true)
	if err != nil {
		return backup.Result{}, err
	}
	defer place.Close() //nolint:errcheck // everything was synced by then
	o.Store = place
	return backup.Run(ctx, o)
}

// backupOptions resolves everything but the server and the store.
func (a *application) backupOptions(ctx context.Context, s *settings, kind func(*backup.Options)) (backup.Options, error) {
	_, limits := s.hostFacts(ctx)
	o := backup.Options{
		Search: s.search(), Report: a.log, SpaceCheck: !s.Bool("no-space-check"),
		ParallelDatabases: s.orLimit("parallel-databases", a.config.ParallelDatabases, limits.ParallelDatabases),
		Jobs:              s.orLimit("jobs", a.config.Jobs, limits.Jobs),
		Procs:             limits.CompressionProcs,
		Attempts:          s.orLimit("attempts", a.config.Attempts, 3),
		Tool:              backupset.Tool{Name: "dbbackup", Version: version},
		Host:              hostname(), PID: os.Getpid(), Now: time.Now,
		PerDatabase: map[string]backup.Settings{},
	}
	kind(&o)
	var err error
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

// databaseSettings resolves what holds for one database: a flag beats its
// section, which beats the file's defaults.
func (a *application) databaseSettings(s *settings, of string, section capture) (backup.Settings, error) {
	c := section.over(a.config.capture)
	level, capped := compress.Cap(s.number("compression", c.Compression))
	if capped && !a.capNoticed {
		a.capNoticed = true
		a.log.Warn(fmt.Sprintf("compression levels above %d cost time and save next to nothing: %d is used", compress.MaxLevel, level), report.F("for", of))
	}
	set := backup.Settings{
		Mode: backupset.Mode(s.text("mode", c.Mode)), Level: level,
		SkipLargeObjects: s.yes("skip-large-objects", c.SkipLargeObjects), ExcludeTables: c.ExcludeTables,
	}
	var errs [4]error
	set.PlainOver, errs[0] = parseBytes("plain-over", s.text("plain-over", c.PlainOver))
	set.Limit, errs[1] = parseTime("timeout", s.text("timeout", c.Timeout))
	set.Stall, errs[2] = parseTime("stall-timeout", s.text("stall-timeout", c.StallTimeout))
	set.LockTimeout, errs[3] = parseTime("lock-timeout", s.text("lock-timeout", c.LockTimeout))
	return set, errors.Join(errs[:]...)
}

// over returns c with what it leaves open taken from base.
func (c capture) over(base capture) capture {
	return capture{
		Mode: or(c.Mode, base.Mode), PlainOver: or(c.PlainOver, base.PlainOver), Compression: or(c.Compression, base.Compression),
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

// firstLine is the part of an error that fits a table.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
