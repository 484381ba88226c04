package drill

import (
	"context"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
	"dbbackup/restore"
)

// Options say which set to drill, and where.
type Options struct {
	Set *backupset.Set // which package verify has just found sound
	// Target is a server to restore into; nil: a throwaway one.
	Target *pg.Endpoint
	// Dir is the folder that the throwaway server is made in; empty: the
	// system's for temporary files.
	Dir    string
	Search pgtool.Search
	Env    []string // this process's

	Jobs              int   // sessions of a restore and of a comparison
	MaintenanceMemory int64 // see restore.Options

	Report report.Reporter
	Now    func() time.Time
}

// Check finds out early whether there are programs for a throwaway server; if
// not, the error is a fault.Precondition.
func (o Options) Check(ctx context.Context) error {
	if o.Target != nil {
		return nil
	}
	major := o.major()
	if major < 10 {
		return fault.New(fault.Precondition, "name a server with --drill-target",
			"drill backup set %s: its manifest names no version of PostgreSQL that a throwaway server could be of", o.Set.ID())
	}
	_, err := o.Search.Server(ctx, major)
	return err
}

// major is the version that the set comes from.
func (o Options) major() int { return pgtool.VersionOf(o.Set.Manifest().Server.VersionNum).Major }

// restoring are the options of a restore into the endpoint.
func (o Options) restoring(endpoint *pg.Endpoint, kind backupset.Kind) restore.Options {
	return restore.Options{
		Target: endpoint, Search: o.Search, Set: o.Set, Checked: true, Report: o.Report, Kind: kind,
		Jobs: o.Jobs, MaintenanceMemory: o.MaintenanceMemory, Now: o.Now,
	}
}
