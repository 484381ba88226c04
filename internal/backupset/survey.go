package backupset

import (
	"cmp"
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/store"
)

// examined is how many manifests are read at a time: from a bucket each takes a
// round trip or two.
const examined = 16

// Survey is what one listing of a store, and the manifests, say of the sets in it.
type Survey struct {
	Folders
	Entries []Entry // oldest first

	trust Option
	bases baseFolders

	mu       sync.Mutex
	remember bool                  // there can be a catalog
	known    map[string]remembered // by a catalog
	digests  map[string]string     // of folders, by id
	held     []remembered          // that count if their bases do
	fresh    []remembered          // that are not in the catalog
}

// Look surveys a store as List does.
func Look(ctx context.Context, st store.Store, options ...Option) (*Survey, error) {
	s := newSurvey(st, options)
	if _, local := st.(store.Local); !local && !keysOf(options).trusts() {
		s.remember, s.known = true, readCatalog(ctx, st)
	}
	return s, s.list(ctx)
}

// LookClosely surveys a store without a catalog: each set is opened.
func LookClosely(ctx context.Context, st store.Store, options ...Option) (*Survey, error) {
	s := newSurvey(st, options)
	return s, s.list(ctx)
}

func newSurvey(st store.Store, options []Option) *Survey {
	return &Survey{
		Folders: Folders{st: st}, trust: WithTrust(keysOf(options)), digests: map[string]string{},
		bases: baseFolders{st: st, sizes: map[string]map[string]int64{}},
	}
}

func (s *Survey) list(ctx context.Context) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(examined)
	err := s.Folders.list(groupCtx, func(folder setFolder) error {
		if !s.recall(folder) {
			group.Go(func() error { return s.examine(groupCtx, folder) })
		}
		return nil
	})
	if err := cmp.Or(group.Wait(), err); err != nil {
		return fmt.Errorf("look at backup sets: %w", err)
	}
	if err := s.again(ctx, s.settle()); err != nil {
		return fmt.Errorf("look at backup sets: %w", err)
	}
	sortByAge(s.Entries, func(e Entry) string { return e.ID })
	return nil
}

// again examines sets that are not what the listing, or the catalog, says.
func (s *Survey) again(ctx context.Context, ids []string) error {
	for _, id := range ids {
		folder, err := listFolder(ctx, s.st, id)
		if err != nil {
			return err
		}
		s.digests[id] = folder.digest()
		if err := s.examine(ctx, folder); err != nil {
			return err
		}
	}
	return nil
}

// baseNames bounds how many names of bases' objects are kept.
const baseNames = 100_000

// baseFolders lists the folders of sets that others refer to: of the sets of many
// nights the same ones.
type baseFolders struct {
	st store.Store

	mu    sync.Mutex
	sizes map[string]map[string]int64
	names int
}

func (b *baseFolders) list(ctx context.Context, id string) (map[string]int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if sizes, ok := b.sizes[id]; ok {
		return sizes, nil
	}
	sizes, err := listSizes(ctx, b.st, id)
	if err != nil {
		return nil, err
	}
	if b.names += len(sizes); b.names > baseNames {
		clear(b.sizes)
		b.names = len(sizes)
	}
	b.sizes[id] = sizes
	return sizes, nil
}
