package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// Clean removes what killed runs left in the store, and returns how many
// things that were. The caller holds the store's lock: what a living run is
// writing looks the same.
func Clean(ctx context.Context, place store.Place, r report.Reporter) (int, error) {
	found, err := backupset.ListFolders(ctx, place)
	if err != nil {
		return 0, err
	}
	return clean(ctx, place, found, found.Unfinished, r)
}

// placesOf are the stores that a place stands for, which are looked at one by one:
// a set that is whole in one of them may be unfinished in another.
func placesOf(place store.Place) []store.Place {
	if several, ok := place.(store.Several); ok {
		return several.Places()
	}
	return []store.Place{place}
}

// clean removes what killed runs left and nobody could go on with.
func (r *run) clean(ctx context.Context) error {
	for _, place := range placesOf(r.o.Store) {
		found := &r.stock[place].Folders
		hopeless := slices.DeleteFunc(slices.Clone(found.Unfinished), func(id string) bool { return slices.Contains(found.Resumable, id) })
		_, err := clean(ctx, place, found, hopeless, r.o.Report)
		switch {
		case err == nil:
		case ctx.Err() == nil && (errors.Is(err, store.ErrDenied) || fault.Is(err, fault.Precondition)): // a run needs no more than to write
			r.o.Report.Info("what killed runs left stays until gc is run by somebody who may remove it", report.F("store", place.String()), report.F("because", err))
		default:
			return fmt.Errorf("store %s: %w", place, err)
		}
	}
	return nil
}

// clean removes from one store what is found there, and of the unfinished sets some.
func clean(ctx context.Context, place store.Place, found *backupset.Folders, unfinished []string, r report.Reporter) (int, error) {
	if tidied, err := found.Tidy(ctx); err != nil {
		return len(tidied), err
	}
	for _, id := range unfinished {
		if err := backupset.RemoveUnfinished(ctx, place, id); err != nil {
			return 0, err
		}
		r.Info("removed a set that a killed run left unfinished", report.F("set", id))
	}
	leftovers, err := place.Leftovers(ctx)
	if err != nil {
		return len(unfinished), err
	}
	for _, name := range leftovers {
		if err := place.RemoveLeftover(ctx, name); err != nil {
			return len(unfinished), err
		}
	}
	if len(leftovers) > 0 {
		r.Info("removed temporary files of killed runs", report.F("files", len(leftovers)))
	}
	return len(unfinished) + len(leftovers), nil
}

// Catalog writes down what the store holds, so that listing it stays quick. It is
// of use only where each set costs a round trip, and what goes wrong costs nothing
// but time.
func Catalog(ctx context.Context, place store.Place, r report.Reporter) {
	if _, local := place.(store.Local); local {
		return
	}
	found, err := backupset.Look(ctx, place)
	if err == nil {
		err = found.WriteCatalog(ctx)
	}
	sayNoCatalog(err, place, r)
}

// catalog is Catalog of what the run found, and of the set that it made.
func (r *run) catalog(ctx context.Context) {
	for _, place := range placesOf(r.o.Store) {
		sayNoCatalog(r.stock[place].WriteCatalog(ctx, r.set.ID()), place, r.o.Report)
	}
}

func sayNoCatalog(err error, place store.Place, r report.Reporter) {
	if err != nil {
		r.Info("no catalog of the store was written", report.F("store", place.String()), report.F("because", err))
	}
}
