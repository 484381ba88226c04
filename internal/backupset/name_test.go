package backupset

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "databases/a%2Fb.dir/1.dat.gz", "x/manifest.json", "A-Z_0+9.x", "-Fp", strings.Repeat("x", 255)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	bad := []string{"", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", ".a", "a/.b", "a b", "a\\b", "a\nb", "a\x00b", "ä", "a*",
		ManifestName, SumsName, unfinishedName, strings.Repeat("x", 256), strings.Repeat("x/", 2500)}
	for _, name := range bad {
		if CheckName(name) == nil {
			t.Errorf("the name %q is accepted", name)
		}
	}
}

// T87
func TestNewID(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 999, time.FixedZone("", 3600))
	for _, tt := range []struct {
		name     string
		existing []string
		want     string
	}{
		{"first", nil, "c-20260102T020405Z"},
		{"older", []string{"c-20260102T020404Z-9"}, "c-20260102T020405Z"},
		{"same second", []string{"c-20260102T020405Z"}, "c-20260102T020405Z-2"},
		{"third", []string{"c-20260102T020405Z-2", "c-20260102T020405Z"}, "c-20260102T020405Z-3"},
		{"turns are used up", []string{"c-20260102T020405Z-9"}, "c-20260102T020406Z"},
		{"clock went back", []string{"c-20360102T020405Z"}, "c-20360102T020405Z-2"},
		{"other prefixes", []string{"c1-20360102T020405Z", "c-1-20360102T020405Z", "c-20360102T020405Zx", "c-20369902T020405Z"}, "c-20260102T020405Z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := NewID("c", now, tt.existing); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// T87: whatever the clock does, ids are unique and sort in the order of their making.
func TestNewIDAlwaysGrows(t *testing.T) {
	now := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)
	jumps := []time.Duration{0, time.Hour, -2 * time.Hour, 0, 87600 * time.Hour, -2 * 87600 * time.Hour, time.Millisecond}
	var ids []string
	for i := range 60 {
		now = now.Add(jumps[i%len(jumps)])
		id := NewID("single-db1", now, ids)
		if err := CheckID(id); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Errorf("ids do not grow: %q", ids)
	}
}
