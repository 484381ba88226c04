package drill

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/restore"
)

// Run drills a set. Without an error the Result is complete, whether it is OK
// or not; with one, the drill says nothing about the set. Whatever Run made is
// gone when it returns, or the error says what is left.
func Run(ctx context.Context, o Options) (Result, error) {
	d := &drill{o: o, result: Result{Set: o.Set.ID(), Started: o.Now(), Throwaway: o.Target == nil}}
	var err error
	if o.Target != nil {
		err = d.each(ctx, o.Target)
	} else {
		err = d.onThrowaway(ctx)
	}
	d.result.Took = o.Now().Sub(d.result.Started)
	return d.result, err
}

type drill struct {
	o      Options
	result Result
}

// whole restores a cluster's set as a cluster, and looks at each database.
func (d *drill) whole(ctx context.Context, endpoint *pg.Endpoint) error {
	plan, err := restore.Prepare(ctx, d.o.restoring(endpoint, backupset.Cluster))
	if err != nil {
		return err
	}
	defer plan.Close() //nolint:errcheck // what stays is in the temporary folder
	d.note(plan)
	outcomes, err := plan.Execute(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(outcomes) == 0 && err != nil { // the globals come first
		return d.broken(restore.Outcome{Err: err})
	}
	for _, o := range outcomes {
		if err := d.judge(ctx, endpoint, o); err != nil {
			return err
		}
	}
	return nil
}

// planned is one database that will be restored under a name of its own.
type planned struct {
	as   string
	plan *restore.Plan
}

// each restores every database under a name of its own, looks at it, and drops
// it again. What stands in the way of any is found before the first is written.
func (d *drill) each(ctx context.Context, endpoint *pg.Endpoint) error {
	var all []planned
	for _, one := range d.o.Set.Manifest().Databases {
		as, err := freshName()
		if err != nil {
			return err
		}
		o := d.o.restoring(endpoint, backupset.Single)
		o.Database, o.As = one.Name, as
		plan, err := restore.Prepare(ctx, o)
		if err != nil {
			return err
		}
		defer plan.Close() //nolint:errcheck // what stays is in the temporary folder
		d.note(plan)
		all = append(all, planned{as, plan})
	}
	for _, p := range all {
		if err := d.one(ctx, endpoint, p); err != nil {
			return err
		}
	}
	return nil
}

// freshName is a database's name that nobody else has.
func freshName() (string, error) {
	b := make([]byte, 4)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("name a database: %w", err)
	}
	return "dbbackup_drill_" + hex.EncodeToString(b), nil
}

func (d *drill) one(ctx context.Context, endpoint *pg.Endpoint, p planned) (err error) {
	if d.o.Target != nil {
		defer func() { err = errors.Join(err, drop(ctx, endpoint, p)) }()
	}
	outcomes, err := p.plan.Execute(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(outcomes) != 1 {
		return err
	}
	return d.judge(ctx, endpoint, outcomes[0])
}

// note keeps what a plan says will be missing.
func (d *drill) note(plan *restore.Plan) {
	d.result.Server = plan.Server.Version
	for _, omitted := range plan.Omitted {
		d.result.Notes = append(d.result.Notes, "not drilled: "+omitted)
	}
}

// judge looks at one database that was restored, or was not.
func (d *drill) judge(ctx context.Context, endpoint *pg.Endpoint, o restore.Outcome) error {
	began := d.o.Now()
	one := Database{Name: o.Source.Name, Mode: o.Source.Mode, Tables: o.Source.Tables, Restored: o.Err == nil}
	err := d.look(ctx, endpoint, o, &one)
	one.Took = o.Took + d.o.Now().Sub(began)
	d.result.Databases = append(d.result.Databases, one)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (d *drill) look(ctx context.Context, endpoint *pg.Endpoint, o restore.Outcome, one *Database) error {
	if o.Err != nil {
		return d.broken(o)
	}
	if err := d.compare(ctx, endpoint, o, one); err != nil {
		return err
	}
	return d.checkIndexes(ctx, endpoint, o, one)
}

// broken tells what the set is to blame for from what is no fault of it.
func (d *drill) broken(o restore.Outcome) error {
	problem := func(p Problem) {
		p.Database = o.Source.Name
		d.result.Problems = append(d.result.Problems, p)
	}
	var refused *restore.RefusedError
	switch kind := fault.KindOf(o.Err); {
	case errors.As(o.Err, &refused):
		for _, p := range refused.Problems {
			problem(Problem{Kind: Refused, Object: p.Object, Text: p.Message})
		}
	case kind == fault.Precondition, kind == fault.Unavailable, kind == fault.Locked:
		return o.Err
	case o.Source.Name == "" && pg.IsRefused(o.Err):
		problem(Problem{Kind: Refused, Text: o.Err.Error()})
	default:
		problem(Problem{Kind: BrokeOff, Text: o.Err.Error(), Err: o.Err})
	}
	return nil
}
