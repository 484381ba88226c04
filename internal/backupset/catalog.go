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

// WriteCatalog writes down what the survey found, and what sets are that were made
// since, when enough of it is new, so that List is quick where each set costs a round
// trip. What changed in the meantime is looked at again by who reads it. The caller
// holds the store's lock. Of a survey without a catalog nothing is written.
func (s *Survey) WriteCatalog(ctx context.Context, made ...string) error {
	if fresh := len(s.fresh) + len(made); fresh < catalogLeast || fresh*catalogShare < len(s.known) {
		return nil
	}
	if err := s.again(ctx, made); err != nil {
		return fmt.Errorf("write the catalog: %w", err)
	}
	text, err := json.Marshal(catalog{Version: catalogVersion, Sets: s.remembered()})
	if err != nil {
		return fmt.Errorf("write the catalog: %w", err)
	}
	var older []string
	next := 1
	err = s.st.List(ctx, catalogFolder+"/", func(info store.Info) error {
		older = append(older, info.Key)
		var n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(info.Key, catalogFolder+"/"), "%d.json", &n); err == nil {
			next = max(next, n+1)
		}
		return nil
	})
	if err == nil {
		err = put(ctx, s.st, fmt.Sprintf("%s/%08d.json", catalogFolder, next), text)
	}
	for _, key := range older {
		if err == nil {
			err = s.st.Delete(ctx, key)
		}
	}
	if err != nil && !errors.Is(err, store.ErrDenied) {
		return fmt.Errorf("write the catalog: %w", err)
	}
	return nil
}

// recall takes the entry of a folder from what is remembered.
func (s *Survey) recall(folder setFolder) bool {
	if !s.remember {
		return false
	}
	digest := folder.digest()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.digests[folder.id] = digest
	r, ok := s.known[folder.id]
	if !ok || r.Files != digest {
		return false
	}
	s.held = append(s.held, r)
	return true
}

// settle takes what is remembered of sets whose bases are as they were, and
// returns the ids of the others.
func (s *Survey) settle() (doubtful []string) {
	kept := s.held[:0]
	for _, r := range s.held {
		same := true
		for base, digest := range r.Bases {
			same = same && s.digests[base] == digest
		}
		if !same {
			doubtful = append(doubtful, r.Entry.ID)
			continue
		}
		kept = append(kept, r)
		s.Entries = append(s.Entries, r.Entry)
	}
	s.held = kept
	return doubtful
}

// add keeps an entry that was examined.
func (s *Survey) add(e Entry, bases []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Entries = append(s.Entries, e)
	if s.remember && e.Status == StatusComplete && len(e.Problems) == 0 {
		r := remembered{Entry: e, Bases: map[string]string{}}
		for _, base := range bases {
			r.Bases[base] = ""
		}
		s.fresh = append(s.fresh, r)
	}
}

// remembered is what a new catalog has.
func (s *Survey) remembered() []remembered {
	all := append(slices.Clone(s.held), s.fresh...)
	for i := range all {
		all[i].Files = s.digests[all[i].Entry.ID]
		for base := range all[i].Bases {
			all[i].Bases[base] = s.digests[base]
		}
	}
	slices.SortFunc(all, func(a, b remembered) int { return strings.Compare(a.Entry.ID, b.Entry.ID) })
	return all
}
