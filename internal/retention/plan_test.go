package retention

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// daily makes n sets of one database, the newest first, a day apart.
func daily(n int) []Set {
	var sets []Set
	for i := range n {
		sets = append(sets, Set{
			ID: fmt.Sprintf("d%03d", i), Finished: noon.AddDate(0, 0, -i), Verified: true,
			Databases: []Database{{"app", 1000}},
		})
	}
	return sets
}

// sized makes such sets of databases of these sizes.
func sized(bytes ...int64) func([]Set) []Set {
	return func([]Set) []Set {
		sets := daily(len(bytes))
		for i := range sets {
			sets[i].Databases[0].Bytes = bytes[i]
		}
		return sets
	}
}

func kept(p Plan) string {
	var ids []string
	for _, k := range p.Keep {
		ids = append(ids, k.ID)
	}
	return strings.Join(ids, " ")
}

func doomed(p Plan) string {
	var ids []string
	for _, d := range p.Delete {
		ids = append(ids, d.ID)
	}
	return strings.Join(ids, " ")
}

func TestPolicies(t *testing.T) {
	for _, tt := range []struct {
		policy Policy
		want   string
	}{
		{Policy{Last: 3}, "d000 d001 d002"},
		{Policy{Daily: 2}, "d000 d001"},
		{Policy{Weekly: 3}, "d000 d003 d010"}, // 2026-11-25 is a Wednesday
		{Policy{Monthly: 3}, "d000 d025 d056"},
		{Policy{Yearly: 2}, "d000"},
		{Policy{Within: 49 * time.Hour}, "d000 d001 d002"},
		{Policy{Last: 1, Weekly: 2, Monthly: 2}, "d000 d003 d025"},
		{Policy{Last: 1000}, kept(NewPlan(Policy{Within: 1e6 * time.Hour}, noon, daily(60), ""))},
	} {
		if got := kept(NewPlan(tt.policy, noon, daily(60), "")); got != tt.want {
			t.Errorf("%+v keeps %s, want %s", tt.policy, got, tt.want)
		}
	}
}

func TestPolicyThatKeepsNothing(t *testing.T) {
	for _, p := range []Policy{{}, {Last: -1, Daily: 3}, {Within: -time.Hour}, {AllowShrink: true}} {
		if err := p.Validate(); !fault.Is(err, fault.Usage) {
			t.Errorf("%+v: %v, want a usage error", p, err)
		}
	}
	if err := (Policy{Weekly: 1}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestWhatIsLeftAlone(t *testing.T) {
	last := Policy{Last: 1}
	for name, tt := range map[string]struct {
		change    func(sets []Set) []Set
		suspended string
		doomed    string
	}{
		"nothing special": {func(s []Set) []Set { return s }, "", "d001 d002 d003"},
		"a base":          {func(s []Set) []Set { s[0].References = []string{"d002"}; return s }, "", "d001 d003"},
		"a base's base": {func(s []Set) []Set {
			s[0].References, s[2].References = []string{"d002"}, []string{"d003"}
			return s
		}, "", "d001"},
		"a base of a set that goes": {func(s []Set) []Set { s[1].References = []string{"d002"}; return s }, "", "d001 d002 d003"},
		"a damaged one":             {func(s []Set) []Set { s[1].Unusable = "it is damaged"; return s }, "", "d002 d003"},
		"a damaged newest":          {func(s []Set) []Set { s[0].Unusable = "it is damaged"; return s }, "", "d002 d003"},
		"one from the future":       {func(s []Set) []Set { s[0].Finished = noon.AddDate(0, 0, 9); return s }, "", "d002 d003"},
		"another database's last": {func(s []Set) []Set {
			s[3].Databases = append(s[3].Databases, Database{"old", 5})
			return s
		}, "", "d001 d002"},
		"bases that are newer by their clocks": {func([]Set) []Set {
			s := daily(6)
			for i, base := range map[int]string{0: "d005", 5: "d004", 4: "d003", 3: "d002"} {
				s[i].References = []string{base}
			}
			return s
		}, "", "d001"},
		"one without a database": {func(s []Set) []Set { s[2].Databases = nil; return s }, "", "d001 d003"},
		"while one is suspended": {func(s []Set) []Set { return s }, "d999", ""},
		"a shrunken database":    {sized(400, 1000, 1000, 1000), "", ""},
		"one a little smaller":   {sized(600, 1000, 1000, 1000), "", "d001 d002 d003"},
		"half of it":             {sized(500, 1000, 1000), "", "d001 d002"},
		"a shrunken database, of which one was small before": {sized(400, 1000, 10, 1000), "", ""},
		"a shrunken database, of two others":                 {sized(400, 700, 900), "", ""},
		"one that was larger long ago":                       {sized(100, 100, 100, 100, 100, 100, 100, 100, 900, 900, 900, 900, 900, 900, 900, 900), "", "d001 d002 d003 d004 d005 d006 d007 d008 d009 d010 d011 d012 d013 d014 d015"},
		"a shrunken database, and a base that holds another one": {func(s []Set) []Set {
			s = sized(400, 1000, 1000, 1000)(s)
			s[0].Databases = append(s[0].Databases, Database{"old", 5})
			s[1].References, s[3].Databases = []string{"d003"}, []Database{{"old", 5}}
			return s
		}, "", ""},
	} {
		plan := NewPlan(last, noon, tt.change(daily(4)), tt.suspended)
		if got := doomed(plan); got != tt.doomed {
			t.Errorf("%s: %q goes, want %q", name, got, tt.doomed)
		}
		if strings.HasPrefix(name, "a shrunken database") != (len(plan.Stops) > 0) {
			t.Errorf("%s: stops %q", name, plan.Stops)
		}
	}
	if plan := NewPlan(Policy{Last: 4}, noon, sized(400, 1000, 1000, 1000)(nil), ""); len(plan.Stops) > 0 {
		t.Errorf("nothing would go, and it stops at %q", plan.Stops)
	}
	last.AllowShrink = true
	shrunk := daily(4)
	shrunk[0].Databases[0].Bytes = 1
	if got := doomed(NewPlan(last, noon, shrunk, "")); got != "d001 d002 d003" {
		t.Errorf("allowed to shrink: %q goes", got)
	}
}

func TestNewestIsVerifiedFirst(t *testing.T) {
	sets := daily(3)
	sets[0].Verified = false
	if got := NewPlan(Policy{Last: 1}, noon, sets, "").Verify; !slices.Equal(got, []string{"d000"}) {
		t.Errorf("to be verified: %q", got)
	}
	if got := NewPlan(Policy{Last: 3}, noon, sets, "").Verify; len(got) > 0 {
		t.Errorf("nothing goes, and %q is to be verified", got)
	}
}

// T92: sets with times in the future, as many as a writer likes to make, take no
// good one's place.
func TestT92SetsFromTheFutureCountForNothing(t *testing.T) {
	sets := daily(4)
	for i := range 20 {
		s := daily(1)[0]
		s.ID, s.Finished = fmt.Sprintf("f%03d", i), noon.AddDate(0, 0, 1+i)
		sets = append(sets, s)
	}
	for _, policy := range []Policy{{Last: 2}, {Daily: 2}, {Last: 2, Weekly: 1}, {Within: 36 * time.Hour}} {
		plan := NewPlan(policy, noon, sets, "")
		if got, want := doomed(plan), doomed(NewPlan(policy, noon, daily(4), "")); got != want || got == "" {
			t.Errorf("%+v: %q goes, want %q as without those of the future", policy, got, want)
		}
		if len(plan.Verify) > 0 && plan.Verify[0] != "d000" {
			t.Errorf("%+v: to be verified: %q", policy, plan.Verify)
		}
	}
}

// Whatever the sets are like: the newest good set of every database stays, and
// so does all that a set which stays refers to.
func TestPlanNeverHurts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "sets")
		var sets []Set
		for i := range n {
			s := Set{ID: fmt.Sprintf("s%d", i), Finished: noon.Add(-time.Duration(rapid.IntRange(-50, 3000).Draw(t, "age")) * time.Hour)}
			s.Verified = rapid.Bool().Draw(t, "verified")
			if rapid.IntRange(0, 5).Draw(t, "damaged") == 0 {
				s.Unusable = "it is damaged"
			}
			for _, name := range []string{"a", "b"} {
				if rapid.Bool().Draw(t, name) {
					s.Databases = append(s.Databases, Database{name, int64(rapid.IntRange(0, 100).Draw(t, "bytes"))})
				}
			}
			if i > 0 && rapid.Bool().Draw(t, "incremental") {
				s.References = []string{fmt.Sprintf("s%d", rapid.IntRange(0, n-1).Draw(t, "base"))}
			}
			sets = append(sets, s)
		}
		policy := Policy{
			Last: rapid.IntRange(0, 3).Draw(t, "last"), Daily: rapid.IntRange(0, 3).Draw(t, "daily"),
			Monthly: rapid.IntRange(0, 3).Draw(t, "monthly"), AllowShrink: rapid.Bool().Draw(t, "shrink"),
		}
		plan := NewPlan(policy, noon, sets, "")
		gone := map[string]bool{}
		for _, d := range plan.Delete {
			gone[d.ID] = true
		}
		if len(plan.Keep)+len(plan.Delete) != n {
			t.Fatalf("%d sets, %d stay and %d go", n, len(plan.Keep), len(plan.Delete))
		}
		newest := map[string]Set{}
		for _, s := range sets {
			if s.Unusable != "" && gone[s.ID] {
				t.Errorf("%s goes, which nobody understands", s.ID)
			}
			if s.Unusable != "" || s.Finished.After(noon.Add(backupset.ClockSlack)) {
				continue
			}
			for _, d := range s.Databases {
				if s.Finished.After(newest[d.Lineage].Finished) {
					newest[d.Lineage] = s
				}
			}
		}
		for name, s := range newest {
			if slices.ContainsFunc(sets, func(o Set) bool { return o.Finished.Equal(s.Finished) && o.ID != s.ID }) {
				continue // either may be the one
			}
			if gone[s.ID] {
				t.Errorf("%s goes, the newest of %s", s.ID, name)
			}
		}
		sound := map[string]time.Time{} // by database: the newest set that is, or will be before anything goes
		for _, k := range plan.Keep {
			for _, id := range k.References {
				if gone[id] {
					t.Errorf("%s goes, to which %s refers", id, k.ID)
				}
			}
			if k.Unusable != "" || k.Finished.After(noon.Add(backupset.ClockSlack)) || !k.Verified && !slices.Contains(plan.Verify, k.ID) {
				continue
			}
			for _, d := range k.Databases {
				if k.Finished.After(sound[d.Lineage]) {
					sound[d.Lineage] = k.Finished
				}
			}
		}
		for _, s := range plan.Delete {
			for _, d := range s.Databases {
				if s.Finished.After(sound[d.Lineage]) {
					t.Errorf("%s goes, and no set of %s that is as new was found sound", s.ID, d.Lineage)
				}
			}
		}
	})
}
