package pgname

import (
	"fmt"
	"strings"
)

// Pattern selects names. It is taken literally first: a pattern that is the
// exact name of something matches that and nothing else, so a table called
// "50%*" can be chosen. Otherwise * stands for any characters and ? for one.
// Case always counts. A table's name may be given bare, as schema.table, or
// with either part in double quotes.
type Pattern string

// Set is several patterns; a name is in it when one of them matches.
type Set []Pattern

// Patterns makes a Set of what a user typed.
func Patterns(texts []string) Set {
	set := make(Set, 0, len(texts))
	for _, t := range texts {
		set = append(set, Pattern(t))
	}
	return set
}

// Table is a name within a schema.
type Table struct{ Schema, Name string }

// String quotes the table as SQL.
func (t Table) String() string { return Qualified(t.Schema, t.Name) }

// Printable shows the table in a message.
func (t Table) Printable() string { return Printable(t.Schema + "." + t.Name) }

// spellings are the ways in which a user may write the table.
func (t Table) spellings() []string {
	return []string{
		t.Schema + "." + t.Name, t.Name,
		Qualified(t.Schema, t.Name), Ident(t.Name),
		Ident(t.Schema) + "." + t.Name, t.Schema + "." + Ident(t.Name),
	}
}

// ChooseNames returns those of names that the set selects, in their order.
// A pattern that selects nothing is an error that quotes it: a typing mistake
// must not shrink a backup silently.
func (s Set) ChooseNames(names []string) ([]string, error) {
	return strict(match(s, names, nameSpellings))
}

// ChooseTables is ChooseNames for tables.
func (s Set) ChooseTables(tables []Table) ([]Table, error) {
	return strict(match(s, tables, Table.spellings))
}

// MatchNames is ChooseNames where a pattern may select nothing; those that do
// are returned. It is for exclusions that are written down once for all nights
// and all databases: what is not there need not be left out.
func (s Set) MatchNames(names []string) (chosen []string, idle []Pattern) {
	return match(s, names, nameSpellings)
}

// MatchTables is MatchNames for tables.
func (s Set) MatchTables(tables []Table) (chosen []Table, idle []Pattern) {
	return match(s, tables, Table.spellings)
}

func nameSpellings(name string) []string { return []string{name, Ident(name)} }

func strict[T any](chosen []T, idle []Pattern) ([]T, error) {
	if len(idle) > 0 {
		return nil, fmt.Errorf("nothing is called, or matches, %q", string(idle[0]))
	}
	return chosen, nil
}

func match[T comparable](set Set, all []T, spellings func(T) []string) (chosen []T, idle []Pattern) {
	selected := map[T]bool{}
	for _, p := range set {
		hits := p.hits(len(all), func(i int) []string { return spellings(all[i]) })
		if len(hits) == 0 {
			idle = append(idle, p)
		}
		for _, i := range hits {
			selected[all[i]] = true
		}
	}
	for _, item := range all {
		if selected[item] {
			chosen = append(chosen, item)
		}
	}
	return chosen, idle
}

// hits returns the indexes of the names that the pattern selects: those that
// it spells exactly, or else those that it matches with wildcards.
func (p Pattern) hits(n int, spellings func(int) []string) []int {
	exact := matching(n, spellings, func(s string) bool { return s == string(p) })
	if len(exact) > 0 || !strings.ContainsAny(string(p), "*?") {
		return exact
	}
	return matching(n, func(i int) []string { return plainSpellings(spellings(i)) },
		func(s string) bool { return glob([]rune(p), []rune(s)) })
}

// plainSpellings leaves out the quoted forms, which * would match twice over.
func plainSpellings(all []string) []string {
	plain := all[:0:0]
	for _, s := range all {
		if !strings.HasPrefix(s, `"`) && !strings.HasSuffix(s, `"`) {
			plain = append(plain, s)
		}
	}
	if len(plain) == 0 {
		return all
	}
	return plain
}

func matching(n int, spellings func(int) []string, match func(string) bool) []int {
	var hits []int
	for i := range n {
		for _, s := range spellings(i) {
			if match(s) {
				hits = append(hits, i)
				break
			}
		}
	}
	return hits
}

// glob matches * and ? without backtracking over more than the last star.
func glob(pattern, s []rune) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
