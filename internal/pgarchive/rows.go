package pgarchive

// AddRows adds to the table of contents of an archive without data the entries
// that it would have with it, so that Select chooses among rows that are stored
// elsewhere: one for each table of which has says so, for each materialized view,
// and for each sequence. They are marked as Added and are no entries for
// pg_restore.
func (t *TOC) AddRows(has func(schema, table string) bool) {
	last := 0
	for i := range t.Entries {
		last = max(last, t.Entries[i].ID)
	}
	for i := range len(t.Entries) {
		e := &t.Entries[i]
		var desc string
		switch {
		case e.Desc == "TABLE" && has(e.Schema, e.Tag):
			desc = "TABLE DATA"
		case e.Desc == "MATERIALIZED VIEW":
			desc = "MATERIALIZED VIEW DATA"
		case e.Desc == "SEQUENCE":
			desc = "SEQUENCE SET"
		default:
			continue
		}
		last++
		t.Entries = append(t.Entries, Entry{
			ID: last, Tag: e.Tag, Schema: e.Schema, Owner: e.Owner, Desc: desc, Section: Data,
			Dependencies: []int{t.Entries[i].ID}, Offset: -1, Added: true,
		})
	}
}

// Stored returns those of the entries that the archive itself holds; nil are all.
func (t *TOC) Stored(ids []int) []int {
	if ids == nil {
		return nil
	}
	added := map[int]bool{}
	for i := range t.Entries {
		if t.Entries[i].Added {
			added[t.Entries[i].ID] = true
		}
	}
	stored := []int{}
	for _, id := range ids {
		if !added[id] {
			stored = append(stored, id)
		}
	}
	return stored
}
