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
	return clean(ctx, place, r, false)
}

// placesOf are the stores that a place stands for, which are looked at one by one:
// a set that is whole in one of them may be unfinished in another.
func placesOf(place store.Place) []store.Place {
	if several, ok := place.(store.Several); ok {
		return several.Places()
	}
	return []store.Place{place}
}

// clean is Clean that may keep what `resume` could go on with.
func clean(ctx context.Context, place store.Place, r report.Reporter, keepResumable bool) (removed int, err error) {
	places := placesOf(place)
	for _, one := range places {
		n, err := cleanOne(ctx, one, r, keepResumable)
		removed += n
		refused := errors.Is(err, store.ErrDenied) || fault.Is(err, fault.Precondition)
		switch {
		case err == nil:
		case keepResumable && refused && ctx.Err() == nil: // a run needs no more than to write
			r.Info("what killed runs left stays until gc is run by somebody who may remove it", report.F("store", one.String()), report.F("because", err))
		case len(places) > 1:
			return removed, fmt.Errorf("store %s: %w", one, err)
		default:
			return removed, err
		}
	}
	return removed, nil
}

func cleanOne(ctx context.Context, place store.Place, r report.Reporter, keepResumable bool) (int, error) {
	if tidied, err := backupset.Tidy(ctx, place); err != nil {
		return len(tidied), err
	}
	unfinished, err := backupset.Unfinished(ctx, place)
	if err != nil {
		return 0, err
	}
	if keepResumable {
		resumable, err := backupset.Resumable(ctx, place)
		if err != nil {
			return 0, err
		}
		unfinished = slices.DeleteFunc(unfinished, func(id string) bool { return slices.Contains(resumable, id) })
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
	for _, one := range placesOf(place) {
		if _, local := one.(store.Local); local {
			continue
		}
		if err := backupset.WriteCatalog(ctx, one); err != nil {
			r.Info("no catalog of the store was written", report.F("store", one.String()), report.F("because", err))
		}
	}
}
