package pgdump

import (
	"context"
	"fmt"
	"slices"

	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// Archive replays an archive step by step, for an engine that has work of its
// own between them.
type Archive struct{ p *replay }

// NewArchive returns the replay of an archive; nothing is done yet.
func NewArchive(t Target, l Load, r report.Reporter) *Archive {
	return &Archive{&replay{target: t, load: l, report: r}}
}

// Step is one call of pg_restore.
type Step struct {
	Name        string
	ForeignKeys bool // it makes foreign keys and comments on them, and nothing else
	step        step
}

// Steps cuts a section into steps, to be run one after the other.
func (a *Archive) Steps(section pgarchive.Section) []Step {
	var steps []Step
	for _, s := range a.p.sectionSteps(section) {
		steps = append(steps, Step{s.name, a.makesForeignKeys(s), s})
	}
	return steps
}

func (a *Archive) makesForeignKeys(s step) bool {
	ids := make(map[int]bool, len(s.ids))
	for _, id := range s.ids {
		ids[id] = true
	}
	return s.ids != nil && !slices.ContainsFunc(a.p.load.TOC.Entries, func(e pgarchive.Entry) bool {
		return ids[e.ID] && e.Desc != "FK CONSTRAINT" && e.Section != pgarchive.None
	})
}

// Run runs a step. again says that it was begun before and interrupted: what
// that left is dropped first.
func (a *Archive) Run(ctx context.Context, s Step, again bool) ([]pgtool.ObjectError, error) {
	one := s.step
	if again {
		one.args = append([]string{"--clean", "--if-exists"}, one.args...)
	}
	return a.p.restore(ctx, one)
}

// RunWhole runs all of the archive in one transaction.
func (a *Archive) RunWhole(ctx context.Context) ([]pgtool.ObjectError, error) {
	problems, err := a.p.restore(ctx, step{name: "all", args: []string{"--single-transaction"}, ids: a.p.ids()})
	if err != nil {
		return problems, fmt.Errorf("restore definitions: %w", err)
	}
	return problems, nil
}

// MapOwnership gives owners and privileges to mapped roles, where some are.
func (a *Archive) MapOwnership(ctx context.Context) ([]pgtool.ObjectError, error) {
	if len(a.p.load.MapRoles) == 0 || a.p.load.DataOnly {
		return nil, nil
	}
	return a.p.mapOwnership(ctx)
}
