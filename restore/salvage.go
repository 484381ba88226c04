package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
)

const salvageHint = "restore another set; where there is none, --salvage restores what is sound"

// refuseSalvage: what is lost of a database can be told by chunks only.
func (p *preparation) refuseSalvage(d backupset.Database) error {
	if !p.o.Salvage || d.Mode == backupset.Chunked {
		return nil
	}
	return fault.New(fault.Usage, "restore another set, or its sound tables one by one with pg_restore: docs/runbook-lost-table.md, \"The set is damaged\"",
		"database %s was captured in %s mode by pg_dump: --salvage is for sets in chunks", pgname.Printable(d.Name), d.Mode)
}

// salvage is checkChunks for a set that may be damaged: it reads all that the
// restore needs before anything is written, and what is not sound becomes a
// declared omission.
func (p *preparation) salvage(ctx context.Context) error {
	for i := range p.Steps {
		s := &p.Steps[i]
		total := int64(0)
		s.contents.Pieces(func(_ *backupset.ChunkedTable, piece *backupset.Piece) { total += piece.RawBytes })
		task := p.o.Report.Task("check "+p.o.Set.ID(), total)
		var read atomic.Int64
		losses, err := pgcopy.Salvage(ctx, p.o.Set, s.contents, s.chosenTables(), s.entries == nil,
			func(n int64) { task.Progress(read.Add(n)) })
		task.End(err)
		if err != nil {
			return notWritten(err)
		}
		s.lost = losses
		for _, l := range losses {
			p.Omitted = append(p.Omitted, l.String())
		}
	}
	return nil
}

// Lost reports whether a salvage found chunks that are damaged or missing.
func (p *Plan) Lost() bool {
	return slices.ContainsFunc(p.Steps, func(s Step) bool { return len(s.lost) > 0 })
}

// failing are the refusals that make a restore fail: all but those of foreign keys
// where rows are lost, to which others may refer.
func (s *Step) failing(problems []pgtool.ObjectError) []pgtool.ObjectError {
	if len(s.lost) == 0 {
		return problems
	}
	return slices.DeleteFunc(slices.Clone(problems), func(e pgtool.ObjectError) bool {
		return e.ForeignKey
	})
}

// lostKey identifies what is lost, because a restore that was interrupted goes on
// only where the same is missing.
func (s *Step) lostKey() string {
	var key strings.Builder
	for _, l := range s.lost {
		fmt.Fprintf(&key, "%q %d %d;", l.Table, l.FirstPage, l.FirstOID)
	}
	return key.String()
}
