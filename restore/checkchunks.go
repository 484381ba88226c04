package restore

import (
	"context"
	"slices"
	"strings"

	"dbbackup/internal/backupset"
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

// checkChunks is checkObjects for the chunks of chosen tables, once they are known.
func (p *preparation) checkChunks(ctx context.Context) error {
	if p.o.Checked || p.o.SchemaOnly {
		return nil
	}
	var objects []backupset.Object
	var references []backupset.Reference
	for i := range p.Steps {
		s := &p.Steps[i]
		if !p.partly(s.Source) {
			continue
		}
		needed := s.neededObjects()
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
	if len(objects)+len(references) == 0 {
		return nil
	}
	return p.read(ctx, objects, references)
}

// neededObjects are those in which rows of the chosen tables lie, by set/name.
func (s *Step) neededObjects() map[string]bool {
	chosen := map[pgname.Table]bool{}
	for i := range s.toc.Entries {
		e := &s.toc.Entries[i]
		if e.Added && e.Desc == "TABLE DATA" && slices.Contains(s.entries, e.ID) {
			chosen[pgname.Table{Schema: e.Schema, Name: e.Tag}] = true
		}
	}
	needed := map[string]bool{}
	s.contents.Pieces(func(t *backupset.ChunkedTable, piece *backupset.Piece) {
		if t != nil && chosen[pgname.Table{Schema: t.Schema, Name: t.Name}] {
			needed[piece.Set+"/"+piece.Object] = true
		}
	})
	return needed
}
