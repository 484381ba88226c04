package backupset

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// That a set was verified is said of one manifest of one set: with another one in its
// place it is another set.
func TestVerifiedIsOfOneManifest(t *testing.T) {
	st, ctx := newStore(t), t.Context()
	const other = "cluster-20260103T030405Z"
	must(t, writeSample(ctx, st, sampleID))
	must(t, writeSample(ctx, st, other))
	wantVerified := func(id string, want bool) {
		t.Helper()
		set, err := Open(ctx, st, id)
		must(t, err)
		if got, err := IsVerified(ctx, set); err != nil || got != want {
			t.Errorf("%s is verified: %t (%v), want %t", id, got, err, want)
		}
	}
	wantVerified(sampleID, false)
	must(t, WriteVerified(ctx, mustOpen(t, st, sampleID), time.Now()))
	wantVerified(sampleID, true)
	wantVerified(other, false)

	note := tree(t, st.String())[verifiedKey(sampleID)]
	for name, text := range map[string]string{
		"cut": note[:len(note)/2], "of another set": note, "empty": "",
		"of another set, with this one's digest": strings.Replace(note, digestOf(t, st, sampleID), digestOf(t, st, other), 1),
	} {
		must(t, put(ctx, st, verifiedKey(other), []byte(text)))
		set := mustOpen(t, st, other)
		if known, err := IsVerified(ctx, set); err != nil || known {
			t.Errorf("%s: %t, %v", name, known, err)
		}
		must(t, ForgetVerified(ctx, set))
	}

	rewrite(t, filepath.Join(st.String(), sampleID), func(s string) string {
		return strings.Replace(s, `"host": "db1.example"`, `"host": "db2.example"`, 1)
	})
	wantVerified(sampleID, false)
	must(t, WriteVerified(ctx, mustOpen(t, st, sampleID), time.Now()))
	wantVerified(sampleID, true)
	must(t, ForgetVerified(ctx, mustOpen(t, st, sampleID)))
	wantVerified(sampleID, false)
}

func digestOf(t *testing.T, st interface{ String() string }, id string) string {
	t.Helper()
	sums := tree(t, st.String())[id+"/"+SumsName]
	return sums[:64]
}

// T104: what was noted down about a set goes with it, and nothing of a set whose id
// begins with its own.
func TestRecordsOfOneSet(t *testing.T) {
	st, ctx := newStore(t), t.Context()
	ids := []string{"db1-20260101T000000Z", "db1-20260101T000000Z-2"}
	var want []string
	for _, id := range ids {
		writeSmall(t, st, id, "db1")
		must(t, WriteDrill(ctx, st, Drill{Set: id, Result: DrillOK, Started: time.Date(2026, 11, 3, 4, 5, 6, 0, time.UTC)}))
		must(t, WriteVerified(ctx, mustOpen(t, st, id), time.Now()))
	}
	records := func() (all []string) {
		for _, key := range keys(t, st) {
			if strings.HasPrefix(key, drillsFolder+"/") || strings.HasPrefix(key, verifiedFolder+"/") {
				all = append(all, key)
			}
		}
		return all
	}
	for _, key := range records() {
		if strings.Contains(key, ids[1]) {
			want = append(want, key)
		}
	}
	if all := records(); len(all) != 4 || len(want) != 2 {
		t.Fatalf("the records are %q", all)
	}
	must(t, RemoveRecords(ctx, st, ids[0]))
	if got := records(); !slices.Equal(got, want) {
		t.Errorf("left: %q, want %q", got, want)
	}
}
