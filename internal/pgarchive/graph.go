package pgarchive

import (
	"slices"
	"strings"
)

// graph says how the entries of an archive hang together. Entries are named
// by their index in TOC.Entries.
type graph struct {
	toc        *TOC
	index      map[int]int    // dump ID to entry
	schemas    map[string]int // name to SCHEMA entry
	members    map[int][]int  // entry to what belongs to it
	partitions map[int][]int  // partitioned table to its partitions
	parents    map[int][]int  // partition to the tables it is attached to
}

func newGraph(t *TOC) *graph {
	g := &graph{
		toc:        t,
		index:      make(map[int]int, len(t.Entries)),
		schemas:    map[string]int{},
		members:    map[int][]int{},
		partitions: map[int][]int{},
		parents:    map[int][]int{},
	}
	for i := range t.Entries {
		g.index[t.Entries[i].ID] = i
		if t.Entries[i].Desc == "SCHEMA" {
			g.schemas[t.Entries[i].Tag] = i
		}
	}
	for i := range t.Entries {
		g.attach(i)
		for _, owner := range g.owners(i) {
			g.members[owner] = append(g.members[owner], i)
		}
	}
	return g
}

func isRelation(e *Entry) bool {
	switch e.Desc {
	case "TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE":
		return true
	}
	return false
}

// attach notes which table entry i makes a partition of which.
func (g *graph) attach(i int) {
	e := &g.toc.Entries[i]
	if e.Desc != "TABLE ATTACH" && e.parent == "" {
		return
	}
	child, parent := i, -1
	schema, name := splitName(e.parent)
	for _, rel := range g.relations(e) {
		dep := &g.toc.Entries[rel]
		switch {
		case e.parent != "":
			if dep.Schema == schema && dep.Tag == name {
				parent = rel
			}
		case dep.Schema == e.Schema && dep.Tag == e.Tag:
			child = rel
		default:
			parent = rel
		}
	}
	if parent >= 0 && isRelation(&g.toc.Entries[child]) {
		g.partitions[parent] = append(g.partitions[parent], child)
		g.parents[child] = append(g.parents[child], parent)
	}
}

// splitName reads a qualified name as pg_dump writes it: schema.name, each
// quoted where it needs to be.
func splitName(written string) (schema, name string) {
	schema, rest := unquote(written)
	if !strings.HasPrefix(rest, ".") {
		return "", schema
	}
	name, _ = unquote(rest[1:])
	return schema, name
}

// unquote reads the identifier at the beginning of s.
func unquote(s string) (name, rest string) {
	if !strings.HasPrefix(s, `"`) {
		if end := strings.IndexAny(s, `. "`); end >= 0 {
			return s[:end], s[end:]
		}
		return s, ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			b.WriteByte(s[i])
			continue
		}
		if !strings.HasPrefix(s[i+1:], `"`) {
			return b.String(), s[i+1:]
		}
		b.WriteByte('"')
		i++
	}
	return b.String(), ""
}

// relations returns the relations that e depends on, each once.
func (g *graph) relations(e *Entry) []int {
	var rels []int
	for _, id := range e.Dependencies {
		if i, ok := g.index[id]; ok && isRelation(&g.toc.Entries[i]) && !slices.Contains(rels, i) {
			rels = append(rels, i)
		}
	}
	return rels
}

// owners returns the entries that entry i belongs to; none for objects of
// their own.
func (g *graph) owners(i int) []int {
	e := &g.toc.Entries[i]
	switch e.Desc {
	case "COMMENT", "ACL", "SECURITY LABEL":
		return g.commented(e)
	case "INDEX ATTACH":
		return g.dependencies(e, func(dep *Entry) bool {
			return dep.Schema == e.Schema && (dep.Desc == "INDEX" && dep.Tag == e.Tag ||
				dep.Desc == "CONSTRAINT" && strings.HasSuffix(dep.Tag, " "+e.Tag))
		})
	case "TABLE ATTACH", "TABLE DATA", "MATERIALIZED VIEW DATA", "SEQUENCE SET", "SEQUENCE OWNED BY", "STATISTICS DATA", "ROW SECURITY":
		return g.dependencies(e, func(dep *Entry) bool {
			return dep.Tag == e.Tag && dep.Schema == e.Schema && (isRelation(dep) || dep.Desc == "INDEX")
		})
	case "DEFAULT", "CONSTRAINT", "CHECK CONSTRAINT", "TRIGGER", "RULE", "POLICY":
		return g.prefixed(e)
	case "INDEX", "STATISTICS", "SEQUENCE":
		return g.dependencies(e, func(dep *Entry) bool { return isRelation(dep) && dep.Desc != "SEQUENCE" })
	}
	return nil
}

// commented returns all that a comment or an ACL is about. A column's ACL
// depends on its table's ACL, too, which owns nothing.
func (g *graph) commented(e *Entry) []int {
	return g.dependencies(e, func(dep *Entry) bool { return dep.Desc != "ACL" })
}

// prefixed returns what e's tag begins with: "table constraint". Where names
// with spaces leave that open, it is all candidates, the longest first.
func (g *graph) prefixed(e *Entry) []int {
	owners := g.dependencies(e, func(dep *Entry) bool {
		return (isRelation(dep) || dep.Desc == "DOMAIN") && dep.Schema == e.Schema && strings.HasPrefix(e.Tag, dep.Tag+" ")
	})
	slices.SortStableFunc(owners, func(a, b int) int {
		return len(g.toc.Entries[b].Tag) - len(g.toc.Entries[a].Tag)
	})
	return owners
}

func (g *graph) dependencies(e *Entry, match func(*Entry) bool) []int {
	var found []int
	for _, id := range e.Dependencies {
		if i, ok := g.index[id]; ok && match(&g.toc.Entries[i]) && !slices.Contains(found, i) {
			found = append(found, i)
		}
	}
	return found
}

// owner returns the likeliest owner of e, or -1.
func (g *graph) owner(e *Entry) int {
	owners := g.prefixed(e)
	if e.Desc == "TABLE DATA" {
		owners = g.owners(g.index[e.ID])
	}
	if len(owners) == 0 {
		return -1
	}
	return owners[0]
}

// rows returns the entry that fills table or materialized view i, or -1.
func (g *graph) rows(i int) int {
	for _, m := range g.members[i] {
		if d := g.toc.Entries[m].Desc; d == "TABLE DATA" || d == "MATERIALIZED VIEW DATA" {
			return m
		}
	}
	return -1
}

// below says whether one of the partitioned tables above i satisfies match.
func (g *graph) below(i int, match func(parent int) bool) bool {
	above := slices.Clone(g.parents[i])
	seen := map[int]bool{i: true}
	for n := 0; n < len(above); n++ { // grows while it runs
		parent := above[n]
		if seen[parent] {
			continue
		}
		if match(parent) {
			return true
		}
		seen[parent] = true
		above = append(above, g.parents[parent]...)
	}
	return false
}

// wanted returns the relations that want names, with the partitions below them
// and the partitioned tables above; of an archive without definitions, the
// rows and sequence values.
func (g *graph) wanted(want func(schema, table string) bool) []int {
	seen := map[int]bool{}
	var list []int
	add := func(i int) {
		if !seen[i] {
			seen[i] = true
			list = append(list, i)
		}
	}
	for i := range g.toc.Entries {
		e := &g.toc.Entries[i]
		if (isRelation(e) || g.orphan(i)) && want(e.Schema, e.Tag) {
			add(i)
		}
	}
	for n := 0; n < len(list); n++ { // grows while it runs
		for _, child := range g.partitions[list[n]] {
			add(child)
		}
	}
	for n := 0; n < len(list); n++ {
		for _, parent := range g.parents[list[n]] {
			add(parent)
		}
	}
	return list
}

// orphan says whether entry i holds data of a relation that the archive does
// not define.
func (g *graph) orphan(i int) bool {
	switch g.toc.Entries[i].Desc {
	case "TABLE DATA", "SEQUENCE SET", "MATERIALIZED VIEW DATA", "STATISTICS DATA":
		return len(g.owners(i)) == 0
	}
	return false
}
