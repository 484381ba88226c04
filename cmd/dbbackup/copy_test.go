package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/backup"
	"dbbackup/internal/store"
	"dbbackup/internal/stores"
)

// goldenObject is a part of a database in the set of goldenStore.
const goldenObject = "databases/golden_custom.dump"

// What --all cannot bring is named, whatever it is, until the other store has it
// from elsewhere: a nightly copy that passes over it in silence is found out on the
// day of the restore.
func TestCopyAllNamesWhatItCannotBring(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		harm func(t *testing.T, store, id string)
		code int
		text string
	}{
		"a lost object": {func(t *testing.T, store, id string) {
			if err := os.Remove(filepath.Join(store, id, goldenObject)); err != nil {
				t.Fatal(err)
			}
		}, exitIntegrity, goldenObject},
		"a newer release's": {func(t *testing.T, store, id string) {
			forge(t, store, id, func(text string) string { return strings.Replace(text, `"format": 1`, `"format": 99`, 1) })
		}, exitPrecondition, "newest dbbackup"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := goldenStore(t), newStore(t)
			id := onlySet(t, from)
			test.harm(t, from, id)
			r := inProcess(t, nil, "copy", "--all", "--from", from, "--to", to)
			r.want(t, test.code, id, from, test.text)
			if strings.Contains(r.stdout, "has it all") {
				t.Errorf("printed: %s", r.stdout)
			}
			inProcess(t, nil, "copy", "--all", "--from", goldenStore(t), "--to", to).must(t, exitOK)
			inProcess(t, nil, "copy", "--all", "--from", from, "--to", to).want(t, exitOK)
		})
	}
}

// A store without a set is what a mistyped prefix of a bucket looks like.
func TestCopyAllOfNothing(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	r := inProcess(t, nil, "copy", "--all", "--from", empty, "--to", newStore(t))
	r.want(t, exitNotFound, empty, "hint:")
	if r.stdout != "" {
		t.Errorf("printed: %s", r.stdout)
	}
}

// Who could not even lock a store claims nothing about what is in it.
func TestNothingIsClaimedOfAStoreThatCannotBeLocked(t *testing.T) {
	t.Parallel()
	folder := goldenStore(t)
	place, err := stores.Open(t.Context(), folder, stores.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, release, err := backup.Lock(t.Context(), place, store.Holder{Purpose: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(release(), place.Close()); err != nil {
			t.Error(err)
		}
	}()
	for name, args := range map[string][]string{
		"copy":       {"copy", "--all", "--from", goldenStore(t), "--to", folder},
		"prune":      {"prune", "--keep-last", "1", "--store", folder},
		"prune json": {"prune", "--keep-last", "1", "--store", folder, "--json"},
	} {
		r := inProcess(t, nil, args...)
		r.want(t, exitLocked)
		if r.stdout != "" {
			t.Errorf("%s printed: %s", name, r.stdout)
		}
	}
}
