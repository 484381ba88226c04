package backup

import (
	"slices"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// selectTables applies the user's choice of tables. The archive keeps every
// definition, so that what was chosen can always be restored; only the data
// of the others is left out, and restore applies the choice again.
func (r *run) selectTables(p *plan) error {
	s := &backupset.Selection{
		Tables: r.o.Tables, Schemas: r.o.Schemas, ExcludeSchemas: r.o.ExcludeSchemas,
		ExcludeTables: slices.Concat(r.o.ExcludeTables, present(p.settings.ExcludeTables, p.inventory.Tables)),
	}
	if len(s.Tables)+len(s.Schemas)+len(s.ExcludeTables)+len(s.ExcludeSchemas) == 0 {
		return nil
	}
	chosen, err := chosenTables(p.inventory.Tables, s)
	if err != nil {
		return fault.New(fault.Usage, "names are taken as they are, case included; * and ? are wildcards",
			"database %s: select tables: %w", pgname.Printable(p.database.Name), err)
	}
	s.Selected = []string{}
	for _, t := range p.inventory.Tables {
		if chosen[t.Table] {
			s.Selected = append(s.Selected, t.String())
		} else {
			p.without = append(p.without, t.Table)
		}
	}
	if len(s.Tables)+len(s.Schemas) > 0 {
		// A choice of tables leaves out what belongs to none.
		p.settings.SkipLargeObjects = true
	}
	p.selection = s
	return nil
}

// present returns those of a configuration's patterns that select a table of
// this database. They are written for many databases, and not each has all.
func present(patterns []string, all []pg.Table) []string {
	names, _ := namesOf(all)
	_, idle := pgname.Patterns(patterns).MatchTables(names)
	return slices.DeleteFunc(slices.Clone(patterns), func(text string) bool {
		return slices.Contains(idle, pgname.Pattern(text))
	})
}

func chosenTables(all []pg.Table, s *backupset.Selection) (map[pgname.Table]bool, error) {
	names, schemas := namesOf(all)
	chosen := map[pgname.Table]bool{}
	if len(s.Tables)+len(s.Schemas) == 0 {
		for _, t := range names {
			chosen[t] = true
		}
	}
	included, err := tablesOf(all, names, schemas, s.Tables, s.Schemas)
	if err != nil {
		return nil, err
	}
	for _, t := range included {
		chosen[t] = true
	}
	excluded, err := tablesOf(all, names, schemas, s.ExcludeTables, s.ExcludeSchemas)
	if err != nil {
		return nil, err
	}
	for _, t := range excluded {
		delete(chosen, t)
	}
	return chosen, nil
}

func namesOf(all []pg.Table) (names []pgname.Table, schemas []string) {
	for _, t := range all {
		names = append(names, t.Table)
		if !slices.Contains(schemas, t.Schema) {
			schemas = append(schemas, t.Schema)
		}
	}
	return names, schemas
}

// tablesOf returns the tables that patterns of tables and schemas select, with
// all partitions of those that are partitioned.
func tablesOf(all []pg.Table, names []pgname.Table, schemas, tablePatterns, schemaPatterns []string) ([]pgname.Table, error) {
	picked, err := pgname.Patterns(tablePatterns).ChooseTables(names)
	if err != nil {
		return nil, err
	}
	inSchemas, err := pgname.Patterns(schemaPatterns).ChooseNames(schemas)
	if err != nil {
		return nil, err
	}
	isPicked := map[pgname.Table]bool{}
	for _, t := range picked {
		isPicked[t] = true
	}
	wanted := map[uint32]bool{}
	byOID := map[uint32]pg.Table{}
	for _, t := range all {
		byOID[t.OID] = t
		if isPicked[t.Table] || slices.Contains(inSchemas, t.Schema) {
			wanted[t.OID] = true
		}
	}
	var result []pgname.Table
	for _, t := range all {
		if withAncestor(t, byOID, wanted) {
			result = append(result, t.Table)
		}
	}
	return result, nil
}

// withAncestor reports whether the table or one that it is a partition of is
// wanted.
func withAncestor(t pg.Table, byOID map[uint32]pg.Table, wanted map[uint32]bool) bool {
	for ok := true; ok; t, ok = byOID[t.ParentOID] {
		if wanted[t.OID] {
			return true
		}
	}
	return false
}
