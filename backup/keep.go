package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// keepBases makes the objects of older sets that this one refers to as hard to
// delete as its own: where the store locks objects, their locks are extended to
// when this set's end (T93).
func (r *run) keepBases(ctx context.Context) error {
	var errs []error
	for _, place := range placesOf(r.o.Store) {
		lockable, ok := place.(store.Lockable)
		if !ok || lockable.LockPeriod() == 0 {
			continue
		}
		errs = append(errs, r.extendLocks(ctx, lockable))
	}
	return errors.Join(errs...)
}

func (r *run) extendLocks(ctx context.Context, place store.Lockable) error {
	until := r.o.Now().Add(place.LockPeriod())
	for _, ref := range r.manifest.References {
		if err := place.ExtendLock(ctx, r.set.ReferenceKey(ref), until); err != nil {
			return fmt.Errorf("backup set %s is complete, but an object that it refers to is not kept as long as it is: %w", r.set.ID(), err)
		}
	}
	if n := len(r.manifest.References); n > 0 {
		r.o.Report.Info("extended the locks of what the set refers to", report.F("objects", n), report.F("until", until.UTC().Format(time.RFC3339)))
	}
	return nil
}
