package backupset

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDrillsAreReadBackAndAreNoSets(t *testing.T) {
	st, ctx := newStore(t), t.Context()
	id, other := "cluster-20260101T000000Z", "single-db1-20260102T000000Z"
	writeSmall(t, st, id, "db1")
	at := time.Date(2026, 11, 3, 4, 5, 6, 789, time.UTC)
	for i, result := range []string{DrillOK, DrillFailed, DrillFailed} { // two in one second
		must(t, WriteDrill(ctx, st, Drill{Set: id, Result: result, Started: at.Add(time.Duration(i/2) * time.Hour), Seconds: float64(i)}))
	}
	must(t, WriteDrill(ctx, st, Drill{Set: other, Result: DrillOK, Started: at}))
	for key, text := range map[string]string{
		"drills/" + id + "/x.json": "{", "drills/" + id + "/y.json": `{"set":"` + other + `","result":"ok","started":"2026-01-01T00:00:00Z"}`,
		"drills/" + id + "/z.json": `{"set":"` + id + `","result":"fine","started":"2026-01-01T00:00:00Z"}`, "drills/w.json": "{}",
		"drills/" + id + "/v.json": `{"set":"` + id + `","result":"ok"}`,
	} {
		must(t, put(ctx, st, key, []byte(text)))
	}

	drills, notes, err := ReadDrills(ctx, st, "")
	must(t, err)
	if len(drills) != 2 || len(drills[id]) != 3 || len(notes) != 5 {
		t.Errorf("got %v and notes %q", drills, notes)
	}
	last, ok := drills.Last(id)
	if !ok || last.Result != DrillFailed || last.Seconds != 2 || !last.Finished().Equal(at.Add(time.Hour+2*time.Second)) {
		t.Errorf("last: got %+v", last)
	}
	if passed, ok := drills.LastOK(id); !ok || !passed.Started.Equal(at) {
		t.Errorf("last that passed: got %+v", passed)
	}
	if _, ok := drills.LastOK("nosuch"); ok {
		t.Error("a set that was never drilled passed")
	}
	one, _, err := ReadDrills(ctx, st, other)
	must(t, err)
	if len(one) != 1 || len(one[other]) != 1 {
		t.Errorf("of one set: got %v", one)
	}

	if folders := found(t, st); !slices.Equal(folders.IDs, []string{id}) || len(folders.Unfinished) != 0 {
		t.Errorf("ids %q, unfinished %q", folders.IDs, folders.Unfinished)
	}
	if _, _, err := Resolve(ctx, st, "drills", Want{}); err == nil || !strings.Contains(err.Error(), "no such backup set") {
		t.Errorf("resolve drills: got %v", err)
	}
	must(t, Remove(ctx, st, id))
	if drills, _, err = ReadDrills(ctx, st, id); err != nil || len(drills[id]) != 3 {
		t.Errorf("after the set was removed: got %v (%v), want its records still there", drills, err)
	}
}
