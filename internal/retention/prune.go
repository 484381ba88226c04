package retention

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// Options say what Prune does.
type Options struct {
	Store  store.Store
	Policy Policy
	DryRun bool // only the plan; nothing is read or removed
	// Verify reads a whole set. It returns an error of kind fault.Integrity for
	// one that is not sound.
	Verify func(ctx context.Context, set *backupset.Set) error
	// Keys open encrypted sets that are read, and say whose sets count.
	Keys   backupset.Keys
	Report report.Reporter
	Now    time.Time
}

// Result is what Prune did, or would do.
type Result struct {
	Plan
	Deleted []string
}

// Prune removes the sets that the policy does not keep. The caller holds the
// store's lock, but for a dry run. The error is of kind fault.Precondition when
// sets stayed that a person must look at, and store.ErrDenied when the store
// refuses to delete: where it refuses everything nothing was changed (T93). What
// is removed is removed in an order that leaves no set without what it refers to,
// wherever Prune is killed (T90).
func Prune(ctx context.Context, o Options) (Result, error) {
	if err := o.Policy.Validate(); err != nil {
		return Result{}, err
	}
	found, err := backupset.LookClosely(ctx, o.Store, backupset.WithTrust(o.Keys))
	if err != nil {
		return Result{}, err
	}
	sets, err := describe(ctx, found, backupset.WithTrust(o.Keys))
	if err != nil {
		return Result{}, err
	}
	newest := ""
	if n := len(found.Resumable); n > 0 {
		newest = found.Resumable[n-1]
	}
	for {
		result := Result{Plan: NewPlan(o.Policy, o.Now, sets, newest)}
		if o.DryRun {
			return result, stopped(result.Plan)
		}
		if len(result.Verify) > 0 {
			if err := o.prove(ctx, sets, result.Verify[0]); err != nil {
				return result, err
			}
			continue
		}
		err := o.remove(ctx, found, &result)
		return result, errors.Join(err, stopped(result.Plan))
	}
}

func stopped(plan Plan) error {
	var errs []error
	for _, text := range plan.Stops {
		errs = append(errs, fault.New(fault.Precondition, "", "%s", text))
	}
	return errors.Join(errs...)
}

// prove reads a set on which the removal of others relies. One that is not
// sound counts for nothing from then on.
func (o Options) prove(ctx context.Context, sets []Set, id string) error {
	at := slices.IndexFunc(sets, func(s Set) bool { return s.ID == id })
	o.Report.Info("reading a set before older ones go", report.F("set", id))
	set, err := backupset.Open(ctx, o.Store, id, backupset.WithKeys(o.Keys))
	if fault.Is(err, fault.WrongKey) { // its digests can be checked all the same
		set, err = backupset.Open(ctx, o.Store, id, backupset.WithTrust(o.Keys))
	}
	if err == nil {
		err = o.Verify(ctx, set)
	}
	switch {
	case err == nil:
		sets[at].Verified = true
		return backupset.WriteVerified(ctx, set, o.Now)
	case fault.Is(err, fault.Integrity), fault.Is(err, fault.NotFound):
		o.Report.Warn("a set is not sound, and counts for nothing", report.F("set", id), report.F("because", err))
		sets[at].Unusable = "it is damaged"
		return nil
	}
	return fmt.Errorf("verify backup set %s before older ones go: %w", id, err)
}

// remove removes what the plan names. A set that cannot be removed keeps those
// that it refers to.
func (o Options) remove(ctx context.Context, found *backupset.Survey, result *Result) error {
	if len(result.Delete) == 0 {
		return nil
	}
	if err := backupset.CheckDeletable(ctx, o.Store); err != nil {
		return err
	}
	if _, err := found.Tidy(ctx); err != nil { // what a run that may not delete left in its sets
		return err
	}
	needed := map[string]bool{}
	var errs []error
	for _, s := range result.Delete {
		if ctx.Err() != nil {
			return errors.Join(append(errs, context.Cause(ctx))...)
		}
		var err error
		if !needed[s.ID] {
			err = o.removeOne(ctx, s.ID)
		}
		if err != nil || needed[s.ID] { // it stays, so what it refers to does, too
			errs = append(errs, err)
			for _, id := range s.References {
				needed[id] = true
			}
			continue
		}
		result.Deleted = append(result.Deleted, s.ID)
		o.Report.Info("removed a backup set", report.F("set", s.ID), report.F("bytes", s.Bytes))
	}
	return errors.Join(errs...)
}

func (o Options) removeOne(ctx context.Context, id string) error {
	if err := backupset.Remove(ctx, o.Store, id); err != nil {
		return err
	}
	return backupset.RemoveRecords(ctx, o.Store, id)
}

// describe reads what the planner needs of what was found. A store that cannot be
// listed to its end is an error (T33); so is a set of a newer release, of which
// nobody here knows what it refers to.
func describe(ctx context.Context, found *backupset.Survey, trust backupset.Option) ([]Set, error) {
	st := found.Store()
	var sets []Set
	for _, e := range found.Entries {
		s := Set{ID: e.ID, Bytes: e.Bytes, Finished: e.Finished.UTC()}
		switch e.Status {
		case backupset.StatusUnfinished:
			continue // gc's
		case backupset.StatusNewer:
			return nil, fault.New(fault.Precondition, "prune this store with the newest dbbackup that writes to it",
				"backup set %s: %s; what it refers to is not known", e.ID, e.Reason)
		case backupset.StatusComplete:
			set, err := backupset.Open(ctx, st, e.ID, trust)
			if err != nil {
				return nil, err
			}
			if err := s.describe(ctx, set); err != nil {
				return nil, err
			}
			if len(e.Lossy) > 0 { // an older set may have what it lacks
				s.Unusable = "it was captured with --salvage, and lacks what the server could not read"
			}
		default:
			s.Unusable = "it is damaged: " + e.Reason
			// What it refers to may still serve to repair it.
			if set, err := backupset.Open(ctx, st, e.ID); err == nil {
				s.References = set.Bases()
			}
		}
		sets = append(sets, s)
	}
	return sets, nil
}

func (s *Set) describe(ctx context.Context, set *backupset.Set) error {
	m := set.Manifest()
	s.References = set.Bases()
	server := cmp.Or(m.Server.SystemIdentifier, fmt.Sprintf("%s:%d", m.Server.Host, m.Server.Port))
	for i := range m.Databases {
		d := &m.Databases[i]
		lineage := fmt.Sprintf("database %q of server %s", d.Name, server)
		if d.Selection.Chosen() {
			lineage = "tables of " + lineage // never in place of the whole
		}
		s.Databases = append(s.Databases, Database{Lineage: lineage, Bytes: d.DatabaseBytes})
	}
	var err error
	s.Verified, err = backupset.IsVerified(ctx, set)
	return err
}
