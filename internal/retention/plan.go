package retention

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"dbbackup/internal/backupset"
)

// Set is what the planner knows of one set.
type Set struct {
	ID         string
	Bytes      int64     // stored
	Finished   time.Time // UTC; zero when it is not known
	Databases  []Database
	References []string // the sets that it needs
	Verified   bool     // it was read to its end, and found sound
	Unusable   string   // why it is no backup that counts, and is left alone; empty when it is one
}

// Database is one database of a set.
type Database struct {
	Lineage string // which database of which server this is
	Bytes   int64  // its size on the server
}

// Plan is what would happen to each set. The planner changes nothing.
type Plan struct {
	Keep   []Kept
	Delete []Set    // in the order in which they must go: the newest first, before what they refer to
	Verify []string // sets that must be read and found sound before anything goes
	Stops  []string // why sets stay that the policy does not keep, for a person to look at
}

// Kept is a set that stays.
type Kept struct {
	Set
	Reasons []string
	Newest  []string // those of the reasons that say of which database it is the newest set
}

// shrinkSample is how many earlier sets the newest one is compared with.
const shrinkSample = 7

type planner struct {
	policy  Policy
	now     time.Time
	sets    []Set // newest first
	reasons map[string][]string
	newest  map[string][]string // those of them that say so
	plan    Plan
}

// NewPlan says what a policy means for the sets of a store. suspended is an
// unfinished set that `resume` could go on with; empty where there is none.
func NewPlan(policy Policy, now time.Time, sets []Set, suspended string) Plan {
	p := &planner{policy: policy, now: now, sets: slices.Clone(sets), reasons: map[string][]string{}, newest: map[string][]string{}}
	slices.SortStableFunc(p.sets, func(a, b Set) int {
		return cmp.Or(b.Finished.Compare(a.Finished), strings.Compare(b.ID, a.ID))
	})
	lineages := map[string][]*Set{}
	var names []string
	for i := range p.sets {
		s := &p.sets[i]
		switch {
		case s.Unusable != "":
			p.keep(s.ID, s.Unusable)
			continue
		case s.Finished.After(now.Add(backupset.ClockSlack)):
			p.keep(s.ID, "its time lies in the future; it counts for nothing")
			continue
		case len(s.Databases) == 0:
			p.keep(s.ID, "it holds no database")
			continue
		}
		if suspended != "" {
			p.keep(s.ID, "the unfinished set "+suspended+" may need it")
		}
		for _, d := range s.Databases {
			if lineages[d.Lineage] == nil {
				names = append(names, d.Lineage)
			}
			lineages[d.Lineage] = append(lineages[d.Lineage], s)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		p.apply(name, lineages[name])
	}
	p.closeOver()
	for _, name := range names {
		p.guard(name, lineages[name])
	}
	p.closeOver()
	return p.result()
}

func (p *planner) keep(id, reason string) {
	if !slices.Contains(p.reasons[id], reason) {
		p.reasons[id] = append(p.reasons[id], reason)
	}
}

func (p *planner) kept(id string) bool { return len(p.reasons[id]) > 0 }

// apply keeps what the policy keeps of one database. sets are newest first.
func (p *planner) apply(lineage string, sets []*Set) {
	newest := "the newest of " + lineage
	p.keep(sets[0].ID, newest)
	p.newest[sets[0].ID] = append(p.newest[sets[0].ID], newest)
	for _, rule := range p.policy.rules() {
		last, left := "", rule.count
		for i, s := range sets {
			if left == 0 {
				break
			}
			period := fmt.Sprint(i + 1)
			if rule.period != nil {
				period = rule.period(s.Finished.UTC())
			}
			if period == last {
				continue
			}
			p.keep(s.ID, rule.name+" "+period)
			last, left = period, left-1
		}
	}
	for _, s := range sets {
		if p.policy.Within > 0 && p.now.Sub(s.Finished) < p.policy.Within {
			p.keep(s.ID, "within "+p.policy.Within.String())
		}
	}
}

// closeOver keeps what kept sets refer to, and what those refer to.
func (p *planner) closeOver() {
	for again := true; again; {
		again = false
		for _, s := range p.sets {
			for _, id := range s.References {
				if p.kept(s.ID) && !p.kept(id) {
					again = true
				}
				if p.kept(s.ID) {
					p.keep(id, s.ID+" refers to it")
				}
			}
		}
	}
}

// guard looks at one database before sets of it go: the newest set must have
// been verified, and must not be much smaller than those before it.
func (p *planner) guard(lineage string, sets []*Set) {
	doomed := slices.ContainsFunc(sets, func(s *Set) bool { return !p.kept(s.ID) })
	if !doomed {
		return
	}
	if !sets[0].Verified && !slices.Contains(p.plan.Verify, sets[0].ID) {
		p.plan.Verify = append(p.plan.Verify, sets[0].ID)
	}
	if p.policy.AllowShrink {
		return
	}
	newest, before := size(sets[0], lineage), median(sets[1:], lineage)
	if newest >= before/2 {
		return
	}
	p.plan.Stops = append(p.plan.Stops, fmt.Sprintf("%s has shrunk to %d bytes in %s, from %d before: look at it, and allow it with --allow-shrink",
		lineage, newest, sets[0].ID, before))
	for _, s := range sets {
		p.keep(s.ID, lineage+" has shrunk")
	}
}

func size(s *Set, lineage string) int64 {
	for _, d := range s.Databases {
		if d.Lineage == lineage {
			return d.Bytes
		}
	}
	return 0
}

func median(sets []*Set, lineage string) int64 {
	var sizes []int64
	for _, s := range sets[:min(len(sets), shrinkSample)] {
		sizes = append(sizes, size(s, lineage))
	}
	if len(sizes) == 0 {
		return 0
	}
	slices.Sort(sizes)
	return sizes[len(sizes)/2]
}

func (p *planner) result() Plan {
	for _, s := range p.sets {
		if p.kept(s.ID) {
			p.plan.Keep = append(p.plan.Keep, Kept{s, p.reasons[s.ID], p.newest[s.ID]})
		} else {
			p.plan.Delete = append(p.plan.Delete, s)
		}
	}
	if len(p.plan.Delete) == 0 {
		p.plan.Verify = nil
	}
	return p.plan
}
