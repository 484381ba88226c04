package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgname"
)

// archiveOf is the object or folder that pg_restore reads.
func archiveOf(d backupset.Database) string {
	if d.Mode == backupset.Chunked {
		return d.Dump + "/" + backupset.SchemaName
	}
	return d.Dump
}

// hasRows tells the tables of which a chunked set has rows, or that were empty.
func (s *Step) hasRows() func(schema, table string) bool {
	has := make(map[pgname.Table]bool, len(s.contents.Tables))
	for i := range s.contents.Tables {
		has[pgname.Table{Schema: s.contents.Tables[i].Schema, Name: s.contents.Tables[i].Name}] = true
	}
	return func(schema, table string) bool { return has[pgname.Table{Schema: schema, Name: table}] }
}

// readArchive reads the table of contents of an archive and chooses the
// entries: those that the user asked for now, of those that were captured.
func (p *preparation) readArchive(ctx context.Context, s *Step) error {
	if s.Source.Mode == backupset.Plain {
		return nil
	}
	open := p.openArchive
	if p.o.Salvage && s.contents != nil { // what pg_dump wrote is known to be sound
		open = p.openDamaged
	}
	if err := open(ctx, s); err != nil {
		return fmt.Errorf("archive of database %s: %w", pgname.Printable(s.Source.Name), err)
	}
	if s.contents != nil {
		s.toc.AddRows(s.hasRows())
	}
	if !s.Source.Selection.Chosen() && len(p.o.Tables)+len(p.o.Schemas) == 0 {
		return nil
	}
	return p.selectEntries(s)
}

// openArchive finds the archive. Of a custom one that is not on this machine only
// the table of contents is fetched; the definitions of a chunked database, and the
// folder of a directory archive, which pg_restore cannot read from a pipe, are
// fetched in whole.
func (p *preparation) openArchive(ctx context.Context, s *Step) error {
	set, name := p.o.Set, archiveOf(s.Source)
	if !set.Local() && s.Source.Mode == backupset.Custom {
		return p.fetchHead(ctx, s, name)
	}
	path, done, err := set.Fetch(ctx, name)
	if err != nil {
		return err
	}
	p.fetched, s.path = append(p.fetched, done), path
	s.toc, err = pgarchive.Open(path, pgarchive.WithoutSQL())
	return err
}

// fetchHead copies an archive's beginning, up to where its rows begin or a
// little further, to a temporary file.
func (p *preparation) fetchHead(ctx context.Context, s *Step, name string) (err error) {
	in, err := p.o.Set.OpenObject(ctx, name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	file, err := os.CreateTemp("", "dbbackup-fetched-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	p.fetched = append(p.fetched, func() error { return os.RemoveAll(file.Name()) })
	s.path, s.partial = file.Name(), true
	s.toc, err = pgarchive.Read(io.TeeReader(in, file), pgarchive.WithoutSQL())
	return err
}

func (p *preparation) selectEntries(s *Step) error {
	available := captured(s.toc, s.Source.Selection)
	wanted := map[pgname.Table]bool{}
	if len(p.o.Tables)+len(p.o.Schemas) == 0 {
		for _, t := range available {
			wanted[t] = true
		}
	}
	if err := p.choosePatterns(s, available, wanted); err != nil {
		return err
	}
	selection := s.toc.Select(func(schema, table string) bool { return wanted[pgname.Table{Schema: schema, Name: table}] })
	s.entries = selection.Entries
	for _, left := range selection.Left {
		s.Notices = append(s.Notices, "not restored: "+left.String())
	}
	return nil
}

// captured lists the relations that can be chosen: all of the archive, or
// those whose data was selected when it was made.
func captured(toc *pgarchive.TOC, selection *backupset.Selection) []pgname.Table {
	inSelection := map[string]bool{}
	if selection != nil {
		for _, name := range selection.Selected {
			inSelection[name] = true
		}
	}
	var tables []pgname.Table
	for i := range toc.Entries {
		e := &toc.Entries[i]
		t := pgname.Table{Schema: e.Schema, Name: e.Tag}
		switch e.Desc {
		case "TABLE", "MATERIALIZED VIEW":
			if selection == nil || inSelection[t.String()] {
				tables = append(tables, t)
			}
		case "VIEW", "SEQUENCE", "FOREIGN TABLE":
			if selection == nil {
				tables = append(tables, t)
			}
		}
	}
	return tables
}

func (p *preparation) choosePatterns(s *Step, available []pgname.Table, wanted map[pgname.Table]bool) error {
	const hint = "names are taken as they are, case included; * and ? are wildcards"
	tables, err := pgname.Patterns(p.o.Tables).ChooseTables(available)
	if err != nil {
		return fault.New(fault.Usage, hint, "tables of database %s: %w", pgname.Printable(s.Source.Name), err)
	}
	for _, t := range tables {
		wanted[t] = true
	}
	var schemas []string
	for _, t := range available {
		schemas = append(schemas, t.Schema)
	}
	slices.Sort(schemas)
	chosen, err := pgname.Patterns(p.o.Schemas).ChooseNames(slices.Compact(schemas))
	if err != nil {
		return fault.New(fault.Usage, hint, "schemas of database %s: %w", pgname.Printable(s.Source.Name), err)
	}
	for _, t := range available {
		if slices.Contains(chosen, t.Schema) {
			wanted[t] = true
		}
	}
	return nil
}

// appendProblems says why data cannot be loaded into the existing tables
// without doubling a row: they must all be there, and empty (FACTS: a second
// data-only restore doubles the rows with exit 0).
func (p *Plan) appendProblems(ctx context.Context, s *Step) (Problems, error) {
	conn, err := p.o.Target.Connect(ctx, s.Name)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // only read from
	var tables []pgname.Table
	for i := range s.toc.Entries {
		e := &s.toc.Entries[i]
		if e.Desc == "TABLE DATA" && (s.entries == nil || slices.Contains(s.entries, e.ID)) {
			tables = append(tables, pgname.Table{Schema: e.Schema, Name: e.Tag})
		}
	}
	filled, missing, err := conn.FilledTables(ctx, tables)
	if err != nil {
		return nil, err
	}
	var problems Problems
	for _, t := range missing {
		problems = append(problems, fmt.Sprintf("table %s does not exist in database %s", t.Printable(), pgname.Printable(s.Name)))
	}
	for _, t := range filled {
		problems = append(problems, fmt.Sprintf("table %s in database %s is not empty: its rows would be doubled", t.Printable(), pgname.Printable(s.Name)))
	}
	return problems, nil
}
