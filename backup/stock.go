package backup

import (
	"context"
	"slices"
	"sync"

	"dbbackup/internal/backupset"
	"dbbackup/internal/store"
)

// stock is what each of a run's stores held when the run took their lock. Nobody
// else changes a set while it holds that, so each store is listed once.
type stock map[store.Place]*backupset.Survey

func (r *run) takeStock(ctx context.Context) error {
	r.stock = stock{}
	var mu sync.Mutex
	look := func(place store.Place) error {
		survey, err := backupset.Look(ctx, place)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		r.stock[place] = survey
		return nil
	}
	if several, ok := r.o.Store.(store.Several); ok {
		return several.Each(ctx, look)
	}
	return look(r.o.Store)
}

// ids are those of all sets' folders.
func (s stock) ids() (ids []string) {
	for _, survey := range s {
		ids = append(ids, survey.IDs...)
	}
	return ids
}

// resumable are the ids of the sets that an interrupted run left in some store.
func (s stock) resumable() (ids []string) {
	for _, survey := range s {
		ids = append(ids, survey.Resumable...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// complete are the sets that are complete in all of the stores, the newest first.
func (s stock) complete() []backupset.Entry {
	in := map[string]int{}
	var all []backupset.Entry
	for _, survey := range s {
		for _, e := range survey.Entries {
			if e.Status != backupset.StatusComplete {
				continue
			}
			if in[e.ID]++; in[e.ID] == len(s) {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b backupset.Entry) int {
		if backupset.Older(a.ID, b.ID) {
			return 1
		}
		return -1
	})
	return all
}
