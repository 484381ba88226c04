package backupset

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// counted is a store that is no folder, and counts how often objects are opened.
type counted struct {
	store.Store
	opens atomic.Int64
}

func (c *counted) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	c.opens.Add(1)
	return c.Store.Open(ctx, key)
}

// manySets writes sets, an hour apart.
func manySets(t *testing.T, st store.Store, n int) (ids []string) {
	t.Helper()
	for i := range n {
		id := NewID("cluster", time.Date(2026, 1, 2, i, 4, 5, 0, time.UTC), nil)
		must(t, writeSample(t.Context(), st, id))
		ids = append(ids, id)
	}
	return ids
}

func listed(t *testing.T, st store.Store) []Entry {
	t.Helper()
	entries, err := List(t.Context(), st)
	must(t, err)
	return entries
}

func writeCatalog(t *testing.T, st store.Store) {
	t.Helper()
	survey, err := Look(t.Context(), st)
	must(t, err)
	must(t, survey.WriteCatalog(t.Context()))
}

// A catalog says what reading every manifest says, without reading them; and what
// changed since is looked at.
func TestCatalogSavesReadingManifests(t *testing.T) {
	folder := newStore(t)
	ids := manySets(t, folder, 20)
	far := &counted{Store: folder}
	want := listed(t, far)
	if opens := far.opens.Swap(0); opens < 20 {
		t.Fatalf("without a catalog %d objects were opened", opens)
	}
	writeCatalog(t, far)
	far.opens.Store(0)
	if got := listed(t, far); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v,\nwant %+v", got, want)
	}
	if opens := far.opens.Load(); opens != 1 {
		t.Errorf("%d objects were opened, want the catalog alone", opens)
	}

	must(t, os.Truncate(filepath.Join(folder.String(), ids[3], "databases", "db1.dump"), 1))
	must(t, os.Remove(filepath.Join(folder.String(), ids[4], ManifestName)))
	must(t, Remove(t.Context(), folder, ids[5]))
	must(t, os.Chtimes(filepath.Join(folder.String(), ids[6], ManifestName), time.Time{}, time.Unix(1, 0)))
	must(t, writeSample(t.Context(), folder, "cluster-20270102T030405Z"))
	far.opens.Store(0)
	got := listed(t, far)
	opens := far.opens.Load()
	strict, err := LookClosely(t.Context(), far)
	must(t, err)
	if !reflect.DeepEqual(got, strict.Entries) {
		t.Errorf("got %+v,\nwant %+v", got, strict.Entries)
	}
	if got[3].Status != StatusDamaged || got[4].Status != StatusDamaged || len(got) != 20 || opens > 8 {
		t.Errorf("%d objects were opened for %+v", opens, got)
	}
}

// A set that refers to another is looked at when that one changed.
func TestCatalogLooksAtBases(t *testing.T) {
	folder := newStore(t)
	from := openStore(t, "testdata/golden-v2")
	ids := found(t, from).IDs
	newest := ids[len(ids)-1]
	_, err := Copy(t.Context(), from, folder, CopyOptions{}, report.Discard{}, newest)
	must(t, err)
	manySets(t, folder, catalogLeast)
	far := &counted{Store: folder}
	writeCatalog(t, far)
	find := func() Entry {
		for _, e := range listed(t, far) {
			if e.ID == newest {
				return e
			}
		}
		t.Fatal("the set is not listed")
		return Entry{}
	}
	if e := find(); e.Status != StatusComplete {
		t.Fatalf("%+v", e)
	}
	must(t, Remove(t.Context(), folder, ids[0]))
	if e := find(); e.Status != StatusDamaged {
		t.Errorf("its base is gone, and it is %+v", e)
	}
}

// A catalog is written when it says something new, replaces the one before, and
// one that makes no sense is none.
func TestCatalogIsWrittenWhenItIsWorthIt(t *testing.T) {
	folder := newStore(t)
	far := &counted{Store: folder}
	names := func() int {
		found, err := filepath.Glob(filepath.Join(folder.String(), catalogFolder, "*"))
		must(t, err)
		return len(found)
	}
	manySets(t, folder, catalogLeast-1)
	writeCatalog(t, far)
	if n := names(); n != 0 {
		t.Errorf("%d catalogs of a few sets", n)
	}
	must(t, writeSample(t.Context(), folder, "cluster-20270102T030405Z"))
	writeCatalog(t, far)
	must(t, writeSample(t.Context(), folder, "cluster-20270102T040405Z"))
	writeCatalog(t, far)
	found, err := filepath.Glob(filepath.Join(folder.String(), catalogFolder, "*"))
	must(t, err)
	if len(found) != 1 || filepath.Base(found[0]) != "00000001.json" {
		t.Errorf("catalogs: %q", found)
	}
	must(t, os.WriteFile(found[0], []byte(`{"version":1,"sets":[{"entry":{"ID":"`+"\x00"), 0o600))
	want, err := LookClosely(t.Context(), far)
	must(t, err)
	if got := listed(t, far); !reflect.DeepEqual(got, want.Entries) {
		t.Errorf("with a damaged catalog: %+v", got)
	}
	writeCatalog(t, far)
	if n := names(); n != 1 {
		t.Errorf("%d catalogs, want a new one alone", n)
	}
}
