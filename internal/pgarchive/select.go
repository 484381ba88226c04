package pgarchive

import (
	"fmt"
	"slices"
	"strings"
)

// Selection is what Select chose.
type Selection struct {
	Entries []int     // dump IDs, in the order of the archive
	Left    []LeftOut // what concerns the chosen tables, and is not restored
}

// LeftOut is an entry that a selection does not restore, and why.
type LeftOut struct {
	Entry  Entry
	Reason string
}

func (l LeftOut) String() string { return l.Reason }

// Select chooses the entries that restore the wanted relations into an empty
// database: tables, foreign tables, views, materialized views and sequences
// for which want returns true. The names are those of the catalog, unquoted.
//
//   - A wanted relation comes with all that belongs to it: rows, defaults,
//     constraints, indexes, triggers, rules, policies, statistics, its own
//     sequences with their values, comments, privileges.
//   - A wanted partitioned table brings all its partitions. A wanted partition
//     brings its parents, whole, but not their other partitions.
//   - Whatever these depend on comes too: schemas, types, functions,
//     extensions, and of other tables, views and sequences only what is needed to
//     define them. Their rows stay behind, which Left says.
//   - A foreign key needs both its tables; a materialized view is filled only
//     when the rows of all tables that it reads are chosen.
//   - Publications, subscriptions, event triggers, large objects and the
//     database's own properties are never chosen, default privileges and user
//     mappings neither.
func (t *TOC) Select(want func(schema, table string) bool) Selection {
	g := newGraph(t)
	s := &selector{g: g, level: make([]level, len(t.Entries))}
	for _, i := range g.wanted(want) {
		s.mark(i, whole)
	}
	s.close()
	s.foreignKeys()
	s.refreshes()
	return s.result()
}

// level is how much of an entry is selected.
type level uint8

const (
	absent  level = iota
	defined       // something else needs its definition
	whole         // with all that belongs to it
)

type selector struct {
	g     *graph
	level []level // by index of the entry
	queue []int
	left  []LeftOut
}

func (s *selector) mark(i int, l level) {
	if s.level[i] < l {
		s.level[i] = l
		s.queue = append(s.queue, i)
	}
}

// close adds what the marked entries need, and what follows them.
func (s *selector) close() {
	for len(s.queue) > 0 {
		i := s.queue[len(s.queue)-1]
		s.queue = s.queue[:len(s.queue)-1]
		s.needs(i)
		for _, m := range s.g.members[i] {
			if s.level[i] == whole || followsAlways(&s.g.toc.Entries[m]) {
				s.mark(m, s.level[i])
			}
		}
	}
}

func (s *selector) needs(i int) {
	e := &s.g.toc.Entries[i]
	if schema, ok := s.g.schemas[e.Schema]; ok {
		s.mark(schema, defined)
	}
	for _, id := range e.Dependencies {
		dep, ok := s.g.index[id]
		if ok && !deferred(&s.g.toc.Entries[dep]) {
			s.mark(dep, defined)
		}
	}
}

// deferred entries are never needed by others: rows, and what Select decides
// at the end.
func deferred(e *Entry) bool { return e.Section == Data || e.Desc == "FK CONSTRAINT" }

// followsAlways says whether the entry comes as soon as what it belongs to is
// defined.
func followsAlways(e *Entry) bool {
	switch e.Desc {
	case "COMMENT", "ACL", "SECURITY LABEL", "TABLE ATTACH", "INDEX ATTACH", "SEQUENCE SET", "SEQUENCE OWNED BY":
		return true
	case "RULE": // the body of a view in a circle of views
		return strings.HasSuffix(e.Tag, " _RETURN")
	}
	return false
}

// foreignKeys adds those between two chosen tables.
func (s *selector) foreignKeys() {
	for i := range s.g.toc.Entries {
		e := &s.g.toc.Entries[i]
		if e.Desc != "FK CONSTRAINT" {
			continue
		}
		var missing []string
		tables := s.g.relations(e)
		for _, rel := range tables {
			if s.level[rel] != whole {
				missing = append(missing, s.g.toc.Entries[rel].Name())
			}
		}
		switch owner := s.g.owner(e); {
		case len(missing) == 0 && len(tables) > 0:
			s.mark(i, whole)
		case owner >= 0 && s.level[owner] == whole:
			table := &s.g.toc.Entries[owner]
			s.leave(e, "foreign key %s of %s references %s, which is not selected",
				strings.TrimPrefix(e.Tag, table.Tag+" "), table.Name(), strings.Join(missing, " and "))
		}
	}
	s.close()
}

// refreshes keeps a materialized view from being filled out of tables whose
// rows are not there: empty without an error is worse than not filled.
func (s *selector) refreshes() {
	for i := range s.g.toc.Entries {
		e := &s.g.toc.Entries[i]
		if e.Desc != "MATERIALIZED VIEW DATA" || s.level[i] == absent {
			continue
		}
		if missing := s.rowless(i, map[int]bool{}); len(missing) > 0 {
			s.level[i] = absent
			s.leave(e, "materialized view %s is not filled: it reads %s, of which no rows are selected", e.Name(), strings.Join(missing, " and "))
		}
	}
}

// rowless lists the tables that entry i reads, over views, too, and that are
// selected without their rows.
func (s *selector) rowless(i int, seen map[int]bool) []string {
	var names []string
	for _, id := range s.g.toc.Entries[i].Dependencies {
		dep, ok := s.g.index[id]
		if !ok || seen[dep] {
			continue
		}
		seen[dep] = true
		names = append(names, s.lacking(dep, seen)...)
		names = append(names, s.rowless(dep, seen)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// lacking names entry i, or the partitions below it, whose rows stay behind.
func (s *selector) lacking(i int, seen map[int]bool) []string {
	if rows := s.g.rows(i); rows >= 0 && s.level[rows] == absent {
		return []string{s.g.toc.Entries[i].Name()}
	}
	var names []string
	for _, part := range s.g.partitions[i] {
		if !seen[part] {
			seen[part] = true
			names = append(names, s.lacking(part, seen)...)
		}
	}
	return names
}

func (s *selector) leave(e *Entry, format string, args ...any) {
	s.left = append(s.left, LeftOut{*e, fmt.Sprintf(format, args...)})
}

// result lists the selection in the order of the archive. The entries that
// pg_restore treats as settings come with any selection that is not empty.
func (s *selector) result() Selection {
	var ids []int
	for i := range s.g.toc.Entries {
		e := &s.g.toc.Entries[i]
		switch e.Desc {
		case "ENCODING", "STDSTRINGS", "SEARCHPATH":
			ids = append(ids, e.ID)
		case "DATABASE", "DATABASE PROPERTIES":
		default:
			if s.level[i] != absent {
				ids = append(ids, e.ID)
			} else {
				s.passedOver(e)
			}
		}
	}
	return Selection{Entries: ids, Left: s.left}
}

// passedOver says what a user who asked for the selected tables may miss.
func (s *selector) passedOver(e *Entry) {
	switch e.Desc {
	case "TABLE DATA":
		onlyDefined := func(rel int) bool { return s.level[rel] == defined }
		if owner := s.g.owner(e); owner >= 0 && (onlyDefined(owner) || s.g.below(owner, onlyDefined)) {
			s.leave(e, "the rows of %s are not selected: others need only the definition", e.Name())
		}
	case "PUBLICATION TABLE":
		for _, rel := range s.g.relations(e) {
			if table := &s.g.toc.Entries[rel]; s.level[rel] == whole {
				s.leave(e, "publication %s of %s is not restored with single tables", strings.TrimSuffix(e.Tag, " "+table.Tag), table.Name())
			}
		}
	case "EVENT TRIGGER", "SUBSCRIPTION":
		s.leave(e, "%s %s is the whole database's and not restored with single tables", strings.ToLower(e.Desc), e.Tag)
	case "BLOBS":
		s.leave(e, "large objects belong to no table and are not restored with single tables")
	}
}
