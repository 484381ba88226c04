package backupset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"

	"dbbackup/internal/store"
)

// catalogFolder holds what List found out about sets the last time that it was
// written down, so that it need not read a thousand manifests again to say so. It
// is no truth: an entry counts only while the set's files are, by name, size and
// the time of its manifest, those of then, and so are those of the sets that it
// refers to. Nothing is restored, verified or removed by it: all of these open the
// set itself.
const catalogFolder = "catalog"

// catalogVersion changes with what is remembered.
const catalogVersion = 1

// maxCatalogBytes bounds what is read of a catalog.
const maxCatalogBytes = 64 << 20

// A catalog is worth writing when this share of the sets, and this many, are not
// in the one that is there.
const (
	catalogShare = 16
	catalogLeast = 16
)

type catalog struct {
	Version int          `json:"version"`
	Sets    []remembered `json:"sets"`
}

// remembered is a whole set without anything to say against it.
type remembered struct {
	Entry Entry             `json:"entry"`
	Files string            `json:"files"`           // digest of the listing of its folder
	Bases map[string]string `json:"bases,omitempty"` // the same of the sets that it refers to
}

// digest is that of the folder's names and sizes, and of when its manifest was
// written.
func (f *setFolder) digest() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(f.bytes)) {
		fmt.Fprintf(sum, "%q %d\n", name, f.bytes[name])
	}
	fmt.Fprintf(sum, "%d", f.manifestTime.UnixNano())
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// readCatalog returns what is remembered, by id. A catalog that cannot be read, or
// makes no sense, is none.
func readCatalog(ctx context.Context, st store.Store) map[string]remembered {
	newest := ""
	err := st.List(ctx, catalogFolder+"/", func(info store.Info) error {
		newest = info.Key
		return nil
	})
	if err != nil || newest == "" {
		return nil
	}
	in, err := st.Open(ctx, newest)
	if err != nil {
		return nil
	}
	defer in.Close()
	var c catalog
	if json.NewDecoder(io.LimitReader(untilDone(ctx, in), maxCatalogBytes)).Decode(&c) != nil || c.Version != catalogVersion {
		return nil
	}
	known := make(map[string]remembered, len(c.Sets))
	for _, r := range c.Sets {
		known[r.Entry.ID] = r
	}
	return known
}

// WriteCatalog writes down what List finds, when enough of it is new, so that it
// is quick where each set costs a round trip. The caller holds the store's lock.
func WriteCatalog(ctx context.Context, st store.Store) error {
	l := lister{st: st, remember: true, known: readCatalog(ctx, st)}
	if _, err := l.list(ctx); err != nil {
		return fmt.Errorf("write the catalog: %w", err)
	}
	if fresh := len(l.fresh); fresh < catalogLeast || fresh*catalogShare < len(l.known) {
		return nil
	}
	text, err := json.Marshal(catalog{Version: catalogVersion, Sets: l.remembered()})
	if err != nil {
		return fmt.Errorf("write the catalog: %w", err)
	}
	var older []string
	next := 1
	err = st.List(ctx, catalogFolder+"/", func(info store.Info) error {
		older = append(older, info.Key)
		var n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(info.Key, catalogFolder+"/"), "%d.json", &n); err == nil {
			next = max(next, n+1)
		}
		return nil
	})
	if err == nil {
		err = put(ctx, st, fmt.Sprintf("%s/%08d.json", catalogFolder, next), text)
	}
	for _, key := range older {
		if err == nil {
			err = st.Delete(ctx, key)
		}
	}
	if err != nil && !errors.Is(err, store.ErrDenied) {
		return fmt.Errorf("write the catalog: %w", err)
	}
	return nil
}

// lister examines the sets of a store.
type lister struct {
	st    store.Store
	trust Option
	known map[string]remembered // nil: nothing is

	remember bool // what is fresh is kept for a catalog

	mu      sync.Mutex
	entries []Entry
	digests map[string]string // of folders, by id
	held    []remembered      // that count if their bases do
	fresh   []remembered
}

// recall takes the entry of a folder from what is remembered.
func (l *lister) recall(folder setFolder) bool {
	if l.known == nil && !l.remember {
		return false
	}
	digest := folder.digest()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.digests == nil {
		l.digests = map[string]string{}
	}
	l.digests[folder.id] = digest
	r, ok := l.known[folder.id]
	if !ok || r.Files != digest {
		return false
	}
	l.held = append(l.held, r)
	return true
}

// settle takes what is remembered of sets whose bases are as they were, and
// returns the ids of the others.
func (l *lister) settle() (doubtful []string) {
	kept := l.held[:0]
	for _, r := range l.held {
		same := true
		for base, digest := range r.Bases {
			same = same && l.digests[base] == digest
		}
		if !same {
			doubtful = append(doubtful, r.Entry.ID)
			continue
		}
		kept = append(kept, r)
		l.entries = append(l.entries, r.Entry)
	}
	l.held = kept
	return doubtful
}

// add keeps an entry that was examined.
func (l *lister) add(e Entry, bases []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	if l.remember && e.Status == StatusComplete && len(e.Problems) == 0 {
		r := remembered{Entry: e, Bases: map[string]string{}}
		for _, base := range bases {
			r.Bases[base] = ""
		}
		l.fresh = append(l.fresh, r)
	}
}

// remembered is what a new catalog has.
func (l *lister) remembered() []remembered {
	all := append(slices.Clone(l.held), l.fresh...)
	for i := range all {
		all[i].Files = l.digests[all[i].Entry.ID]
		for base := range all[i].Bases {
			all[i].Bases[base] = l.digests[base]
		}
	}
	slices.SortFunc(all, func(a, b remembered) int { return strings.Compare(a.Entry.ID, b.Entry.ID) })
	return all
}
