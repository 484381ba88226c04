package pgarchive

// Phase is a part of the post-data section that can be restored together.
type Phase struct {
	Parallel bool // by several sessions; otherwise by one, in the order of the archive
	IDs      []int
}

// The phases of post-data. An entry belongs to the first one that its kind
// allows and that is not before any entry that it depends on.
const (
	building   = iota // indexes, primary keys, contents of materialized views
	upgrading         // what takes a stronger lock on its way, or locks two tables
	connecting        // foreign keys, which pg_restore itself keeps apart
	finishing         // everything else, which is quick
	phases
)

// kindPhase is the earliest phase of each kind of entry that is not finishing.
var kindPhase = map[string]int{
	"INDEX": building, "CONSTRAINT": building, "MATERIALIZED VIEW DATA": building,
	"INDEX ATTACH": upgrading, "TABLE ATTACH": upgrading, "FK CONSTRAINT": connecting,
}

// PostData cuts the post-data entries among ids into phases, to be restored
// one after the other. Within one phase pg_restore -j does not deadlock with
// itself, as it does when it has all of post-data to choose from: it keeps
// apart entries that lock a table exclusively, but an index that also marks
// its table (CLUSTER ON, REPLICA IDENTITY USING INDEX) takes that lock only
// after it has built, and ATTACH PARTITION takes two.
//
// Entries outside of sections, such as comments, belong to the section that
// they stand in, as in pg_restore. nil ids are all entries. Phases without
// entries are left out.
func (t *TOC) PostData(ids []int) []Phase {
	wanted := make(map[int]bool, len(ids))
	for _, id := range ids {
		wanted[id] = true
	}
	cut := [phases]Phase{building: {Parallel: true}, connecting: {Parallel: true}}
	of := map[int]int{} // the phase of each post-data entry, wanted or not
	section := None
	for i := range t.Entries {
		e := &t.Entries[i]
		if e.Section != None {
			section = e.Section
		}
		if section != PostData {
			continue
		}
		phase := e.phase(of)
		of[e.ID] = phase
		if ids == nil || wanted[e.ID] {
			cut[phase].IDs = append(cut[phase].IDs, e.ID)
		}
	}
	var result []Phase
	for _, p := range cut {
		if len(p.IDs) > 0 {
			result = append(result, p)
		}
	}
	return result
}

// phase returns the phase of an entry when those of all before it are known.
func (e *Entry) phase(of map[int]int) int {
	phase, known := kindPhase[e.Desc]
	switch {
	case e.Section == None && len(e.Dependencies) > 0:
		phase = building // with what it belongs to
	case !known:
		phase = finishing
	case e.upgrades:
		phase = upgrading
	}
	for _, id := range e.Dependencies {
		if before, ok := of[id]; ok {
			phase = max(phase, before)
		}
	}
	return phase
}
