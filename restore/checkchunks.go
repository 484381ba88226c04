package restore

import (
	"context"
	"maps"
	"slices"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
)

// partly reports whether only some of the rows of a chunked database are asked
// for. Then the others' damage is not in the way.
func (p *preparation) partly(d backupset.Database) bool {
	return d.Mode == backupset.Chunked && (len(p.o.Tables)+len(p.o.Schemas) > 0 || p.o.SchemaOnly)
}

// withoutRows are the objects of a chunked database that say what its chunks are.
func withoutRows(set *backupset.Set, d backupset.Database) []backupset.Object {
	return slices.DeleteFunc(set.ObjectsOf(d.Name), func(o backupset.Object) bool {
		name, inside := strings.CutPrefix(o.Name, d.Dump+"/")
		return inside && name != backupset.ContentsName && name != backupset.SchemaName
	})
}

// streams reports whether the chunks of a database are checked while they are
// loaded, which spares reading the set twice: nothing of a chunk is committed
// before its digest is known good, and the database is not visible before all
// are (R1). What goes into a database that is there is checked before.
func (p *preparation) streams(d backupset.Database) bool {
	return d.Mode == backupset.Chunked && !p.o.DataOnly && !p.o.DryRun
}

// checkChunks is checkObjects for the chunks of chosen tables, once they are
// known: for those that streams leaves to the loading it looks whether they are
// there, in their sizes.
func (p *preparation) checkChunks(ctx context.Context) error {
	if p.o.Checked || p.o.SchemaOnly {
		return nil
	}
	present := map[string]bool{}
	var objects []backupset.Object
	var references []backupset.Reference
	for i := range p.Steps {
		s := &p.Steps[i]
		if s.contents == nil {
			continue
		}
		needed := s.neededObjects()
		if p.streams(s.Source) {
			maps.Copy(present, needed)
			needed = s.ownersOfLargeObjects()
		} else if !p.partly(s.Source) {
			continue
		}
		for _, o := range p.o.Set.Below(s.Source.Dump) {
			if needed["/"+o.Name] {
				objects = append(objects, o)
			}
		}
		for _, r := range p.o.Set.ReferencesOf(s.Source.Name) {
			if needed[r.Set+"/"+r.Name] {
				references = append(references, r)
			}
		}
	}
	if err := p.checkPresent(ctx, present); err != nil {
		return err
	}
	if len(objects)+len(references) == 0 {
		return nil
	}
	return p.read(ctx, objects, references)
}

// checkPresent looks for objects, by set/name, in the store.
func (p *preparation) checkPresent(ctx context.Context, needed map[string]bool) error {
	if len(needed) == 0 {
		return nil
	}
	var lost []backupset.Problem
	for _, problem := range p.o.Set.CheckQuick(ctx) {
		name, elsewhere := strings.CutPrefix(problem.Object, "../")
		if !elsewhere {
			name = "/" + name
		}
		if problem.Object == "" || needed[name] { // without an object: the check did not finish
			lost = append(lost, problem)
		}
	}
	if err := problemsError(lost); err != nil {
		return notWritten(fault.New(fault.Integrity, salvageHint, "%w", err))
	}
	return ctx.Err()
}

// ownersOfLargeObjects is the object whose rows become statements of their own,
// which are not those of one transaction; by set/name.
func (s *Step) ownersOfLargeObjects() map[string]bool {
	lo := s.contents.LargeObjects
	if lo == nil || lo.Metadata.Object == "" {
		return nil
	}
	return map[string]bool{lo.Metadata.Set + "/" + lo.Metadata.Object: true}
}

// neededObjects are those in which rows of the chosen tables lie, by set/name;
// where nothing was chosen, all.
func (s *Step) neededObjects() map[string]bool {
	chosen := s.chosenTables()
	needed := map[string]bool{}
	s.contents.Pieces(func(t *backupset.ChunkedTable, piece *backupset.Piece) {
		if piece.Object == "" {
			return
		}
		if t == nil && s.entries == nil || t != nil && chosen(pgname.Table{Schema: t.Schema, Name: t.Name}) {
			needed[piece.Set+"/"+piece.Object] = true
		}
	})
	return needed
}

// chosenTables tells the tables whose rows are restored.
func (s *Step) chosenTables() func(pgname.Table) bool {
	chosen := map[pgname.Table]bool{}
	for i := range s.toc.Entries {
		e := &s.toc.Entries[i]
		if e.Added && e.Desc == "TABLE DATA" && slices.Contains(s.entries, e.ID) {
			chosen[pgname.Table{Schema: e.Schema, Name: e.Tag}] = true
		}
	}
	return func(t pgname.Table) bool { return s.entries == nil || chosen[t] }
}
