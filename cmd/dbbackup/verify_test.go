package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// goldenIncremental is a copy of a store with two sets, of which the newer refers to
// the older, and returns their ids.
func goldenIncremental(t *testing.T) (store, older, newer string) {
	t.Helper()
	store = filepath.Join(t.TempDir(), "store")
	if err := os.CopyFS(store, os.DirFS(filepath.Join("..", "..", "internal", "backupset", "testdata", "golden-v2"))); err != nil {
		t.Fatal(err)
	}
	ids := idsOf(t, store)
	if len(ids) != 2 {
		t.Fatalf("the golden store has sets %q, want two", ids)
	}
	return store, ids[0], ids[1]
}

// Who asks every night whether the newest set is sound is told when it is not, also
// where an older one is.
func TestVerifyFailsWhereTheNewestSetIsDamaged(t *testing.T) {
	t.Parallel()
	store, older, newer := goldenIncremental(t)
	if err := os.Remove(filepath.Join(store, newer, "globals.sql")); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{{"--quick"}, {}} {
		r := inProcess(t, nil, append([]string{"verify", "--json", "--store", store}, flags...)...)
		r.want(t, exitIntegrity, newer+" is newer, and damaged", "globals.sql")
		var got verifiedJSON
		r.decode(t, &got)
		if got.Set != older || got.Result != "ok" || len(got.Newer) != 1 || got.Newer[0].Set != newer {
			t.Errorf("printed: %s", r.stdout)
		}
	}
	inProcess(t, nil, "verify", "--quick", older, "--store", store).want(t, exitOK)
}

// A store of which nothing is sound has sets: it is damage, and one line however many
// they are. Of sets that nobody trusted has signed the hint is about keys.
func TestLatestOfNothingSound(t *testing.T) {
	t.Parallel()
	store := goldenStore(t)
	id := onlySet(t, store)
	keys := filepath.Join(t.TempDir(), "keys")
	inProcess(t, nil, "key", "new", keys).must(t, exitOK)
	r := inProcess(t, nil, "verify", "--store", store, "--keys", keys)
	r.want(t, exitIntegrity, id, "not signed", "--trust FILE")
	if strings.Contains(r.stderr, "--salvage") {
		t.Errorf("a set that is not trusted is nothing to salvage: %s", r.stderr)
	}
	stamp := strings.TrimPrefix(id, "cluster-")
	for _, kind := range []string{"a", "b", "c", "d", "e"} {
		if err := os.CopyFS(filepath.Join(store, kind+"-"+stamp), os.DirFS(filepath.Join(store, id))); err != nil { // sets under another's name
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(store, id, goldenObject)); err != nil {
		t.Fatal(err)
	}
	r = inProcess(t, nil, "copy", "--from", store, "--to", newStore(t))
	r.want(t, exitIntegrity, "and so were 3 older ones")
	if n := strings.Count(r.stderr, "passed over"); n != 6+3 {
		t.Errorf("named %d times, want each set once and three again: %s", n, r.stderr)
	}
}

// Of several stores gc says what it did in which.
func TestGcNamesTheStores(t *testing.T) {
	t.Parallel()
	a, b := goldenStore(t), goldenStore(t)
	r := inProcess(t, nil, append(in(a, b), "gc")...).must(t, exitOK)
	for _, store := range []string{a, b} {
		if want := "of killed runs from " + store + ".\n"; !strings.Contains(r.stdout, want) {
			t.Errorf("printed %q, want %q in it", r.stdout, want)
		}
	}
	if r := inProcess(t, nil, "gc", "--store", a).must(t, exitOK); r.stdout != "Removed 0 leftovers of killed runs.\n" {
		t.Errorf("printed %q", r.stdout)
	}
}
