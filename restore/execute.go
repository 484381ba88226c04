package restore

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// Outcome is how one database ended.
type Outcome struct {
	Name     string
	Action   Action
	Source   backupset.Database
	Took     time.Duration
	Problems []pgtool.ObjectError // objects that the target refused
	Lost     []pgcopy.Loss        // what a salvage could not restore
	Gone     *Gone                // with a salvage: nothing of it could be restored
	KeptAs   string               // where an incomplete database was left to be looked at
	Err      error
}

// Execute carries the plan out. Databases that fail are named and the others
// are still restored; the error then joins all failures.
func (p *Plan) Execute(ctx context.Context) ([]Outcome, error) {
	if err := p.restoreGlobals(ctx); err != nil {
		return nil, err
	}
	var outcomes []Outcome
	var failures []error
	p.announce()
	for _, s := range p.Steps {
		if ctx.Err() != nil {
			return outcomes, errors.Join(append(failures, context.Cause(ctx))...)
		}
		began := p.o.Now()
		o := Outcome{Name: s.Name, Action: s.Action, Source: s.Source, Lost: s.lost}
		o.Err = p.restore(ctx, s, &o)
		o.Took = p.o.Now().Sub(began)
		outcomes = append(outcomes, o)
		if o.Err != nil {
			failures = append(failures, o.Err)
		}
	}
	for i := range p.Gone {
		g := &p.Gone[i]
		outcomes = append(outcomes, Outcome{Name: g.Source.Name, Source: g.Source, Gone: g})
	}
	return outcomes, errors.Join(failures...)
}

// announce tells how much there is to do.
func (p *Plan) announce() {
	var expected int64
	for _, s := range p.Steps {
		expected += s.Source.DatabaseBytes
	}
	p.o.Report.Tasks(len(p.Steps), expected)
}

func (p *Plan) restore(ctx context.Context, s Step, o *Outcome) error {
	p.o.Report.Info("restore begins", report.F("database", s.Name), report.F("action", string(s.Action)),
		report.F("mode", string(s.Source.Mode)))
	task := p.o.Report.Task(s.Name, s.Source.DatabaseBytes)
	err := p.restoreLocked(ctx, s, o, task)
	task.End(err)
	if err != nil {
		return fmt.Errorf("restore database %s: %w", pgname.Printable(s.Name), err)
	}
	return nil
}

// restoreLocked keeps other restores out of the database meanwhile.
func (p *Plan) restoreLocked(ctx context.Context, s Step, o *Outcome, task report.Task) error {
	conn, err := p.adminConn(ctx, s.Name)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	free, err := takeLock(ctx, conn, s.Name)
	if err != nil {
		return err
	}
	if !free {
		return fault.New(fault.Locked, "wait for that restore to end", "another restore into database %s is at work", pgname.Printable(s.Name))
	}
	switch s.Action {
	case Fill:
		return p.fill(ctx, conn, s, o, task)
	case Append:
		return p.loadInto(ctx, s, o, task)
	default:
		return p.build(ctx, conn, s, o, task)
	}
}

// A restore that was killed holds its lock until the server has noticed, which takes
// it a moment.
const (
	lockPatience = time.Second
	lockEvery    = 100 * time.Millisecond
)

// takeLock locks a database's name, and reports whether nobody else holds it.
func takeLock(ctx context.Context, conn *pg.Conn, name string) (bool, error) {
	for end := time.Now().Add(lockPatience); ; {
		free, err := conn.TryLock(ctx, name)
		if free || err != nil || time.Now().After(end) {
			return free, err
		}
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-time.After(lockEvery):
		}
	}
}

// loadInto loads data into existing tables, all or nothing. Whether they are
// empty is asked again, now that no other restore can fill them.
func (p *Plan) loadInto(ctx context.Context, s Step, o *Outcome, task report.Task) error {
	problems, err := p.appendProblems(ctx, &s)
	if err != nil {
		return err
	}
	if len(problems) > 0 {
		return &fault.Error{Kind: fault.Precondition, Err: problems.sorted()}
	}
	return p.load(ctx, s, s.Name, true, o, task)
}

// fill loads an empty database of initdb's in one transaction, and then gives
// it its properties.
func (p *Plan) fill(ctx context.Context, conn *pg.Conn, s Step, o *Outcome, task report.Task) error {
	if err := p.load(ctx, s, s.Name, true, o, task); err != nil {
		return err
	}
	p.analyze(ctx, s.Name)
	return conn.Transact(ctx, "set properties", s.properties.PropertiesSQL(s.Name, p.propertyOptions()))
}

// build makes a new database under another name and renames it last (R2).
func (p *Plan) build(ctx context.Context, conn *pg.Conn, s Step, o *Outcome, task report.Task) error {
	temporary := p.temporaryName(s)
	goesOn, err := p.goesOn(ctx, conn, s, temporary)
	if err != nil {
		return err
	}
	if !goesOn {
		if err := p.create(ctx, conn, s, temporary); err != nil {
			return err
		}
	}
	if err := p.load(ctx, s, temporary, false, o, task); err != nil {
		return p.leave(ctx, conn, s, temporary, o, err)
	}
	p.analyze(ctx, temporary)
	if err := p.publish(ctx, conn, s, temporary); err != nil {
		return p.leave(ctx, conn, s, temporary, o, err)
	}
	if s.Action == Replace {
		return p.dropReplaced(ctx, conn, s)
	}
	return nil
}

// adminConn connects to a database that is not the one to be made: a database
// in use can be neither renamed nor dropped. It is the same one for every
// restore into a name, whatever database the user gave: a lock holds within one
// database only.
func (p *Plan) adminConn(ctx context.Context, name string) (*pg.Conn, error) {
	var errs []error
	for _, db := range []string{"postgres", "template1", p.o.Target.Database} {
		if db == name {
			continue
		}
		conn, err := p.o.Target.Connect(ctx, db)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// temporaryName is the same for every attempt to restore the same database of
// the same set to the same place, so that a later attempt finds what an
// earlier one left.
func (p *Plan) temporaryName(s Step) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s\x00%s\x00%s", p.o.Set.ID(), s.Source.Name, s.Name)
	return fmt.Sprintf("%s%08x", pg.UnfinishedPrefix, h.Sum32())
}

// Temporary are the names that the plan's databases bear while they are filled.
// What Execute does not bring to its place is left under one of them, or dropped.
func (p *Plan) Temporary() []string {
	var names []string
	for _, s := range p.Steps {
		if s.Action == Create || s.Action == Replace {
			names = append(names, p.temporaryName(s))
		}
	}
	return names
}

// create makes the empty database under its temporary name. Until it is
// renamed only superusers can connect to it, where one restores.
func (p *Plan) create(ctx context.Context, conn *pg.Conn, s Step, temporary string) error {
	if err := p.removeFormer(ctx, conn, temporary); err != nil {
		return err
	}
	properties := s.properties
	if mapped, ok := p.o.MapTablespaces[properties.Tablespace]; ok {
		properties.Tablespace = mapped
	}
	if err := conn.Exec(ctx, "create database "+temporary, properties.CreateSQL(temporary)); err != nil {
		return err
	}
	mark := []string{fmt.Sprintf("COMMENT ON DATABASE %s IS %s", pgname.Ident(temporary), pgname.Literal(
		fmt.Sprintf("%s of database %s from set %s, to become %s", pg.UnfinishedComment,
			pgname.Printable(s.Source.Name), p.o.Set.ID(), pgname.Printable(s.Name))))}
	if p.Server.Superuser {
		mark = append(mark, fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT 0", pgname.Ident(temporary)))
	}
	if err := conn.Transact(ctx, "mark database "+temporary+" unfinished", mark); err != nil {
		return errors.Join(err, p.drop(context.WithoutCancel(ctx), conn, temporary))
	}
	return nil
}

// removeFormer drops what an interrupted attempt left: a database that carries
// our mark, or an empty one of the temporary name, left by an attempt that was
// killed before it could make the mark. The caller holds the lock of its name.
func (p *Plan) removeFormer(ctx context.Context, conn *pg.Conn, temporary string) error {
	left, err := conn.Commented(ctx, pg.UnfinishedComment)
	if err != nil {
		return err
	}
	if _, ok := left[temporary]; !ok {
		empty, err := p.leftEmpty(ctx, conn, temporary)
		if err != nil || !empty {
			return err
		}
	}
	p.o.Report.Info("dropping what an earlier attempt left", report.F("database", temporary))
	return p.dropUnfinished(ctx, conn, temporary)
}

// leftEmpty reports whether the database exists and nothing was made in it.
func (p *Plan) leftEmpty(ctx context.Context, conn *pg.Conn, name string) (bool, error) {
	if _, exists, err := conn.DatabaseNamed(ctx, name); err != nil || !exists {
		return false, err
	}
	inside, err := p.o.Target.Connect(ctx, name)
	if err != nil {
		return false, err
	}
	defer inside.Close(ctx) //nolint:errcheck // only read from
	n, err := inside.UserObjects(ctx)
	return n == 0, err
}

// dropUnfinished drops a database that a restore began to fill. Its
// subscriptions never reached their publishers.
func (p *Plan) dropUnfinished(ctx context.Context, conn *pg.Conn, temporary string) error {
	inside, err := p.o.Target.Connect(ctx, temporary)
	if err == nil {
		err = errors.Join(inside.DropSubscriptions(ctx), inside.Close(ctx))
	}
	return errors.Join(err, p.drop(ctx, conn, temporary))
}

func (p *Plan) drop(ctx context.Context, conn *pg.Conn, name string) error {
	if err := conn.EndSessions(ctx, name); err != nil {
		return err
	}
	return conn.Exec(ctx, "drop database "+pgname.Printable(name), "DROP DATABASE "+pgname.Ident(name))
}

// load replays the dump. Objects that the target refused make it an error.
func (p *Plan) load(ctx context.Context, s Step, database string, whole bool, o *Outcome, task report.Task) error {
	l := pgdump.Load{
		Database: database, Mode: s.Source.Mode, TOC: s.toc, Entries: s.entries, Jobs: p.o.Jobs, Whole: whole,
		SchemaOnly: p.o.SchemaOnly, DataOnly: p.o.DataOnly, NoOwner: p.o.NoOwner, NoACL: p.o.NoACL,
		MapRoles: p.o.MapRoles, MapTablespaces: p.o.MapTablespaces, Open: p.open(s.Source.Dump),
		MaintenanceMemory: p.o.MaintenanceMemory, Phases: p.o.Salvage,
	}
	l.Path = s.path
	if s.partial {
		l.Stream = l.Open
	}
	stop := p.watchSize(ctx, database, task)
	defer stop()
	target := pgdump.Target{Endpoint: p.o.Target, Tools: p.tools, Superuser: p.Server.Superuser, VersionNum: p.Server.VersionNum}
	problems, err := p.replay(ctx, target, l, s)
	o.Problems = problems
	failing := s.failing(problems)
	if err != nil || len(failing) == 0 {
		return err
	}
	return &RefusedError{Problems: problems}
}

// replay fills the database by the engine that captured it.
func (p *Plan) replay(ctx context.Context, target pgdump.Target, l pgdump.Load, s Step) ([]pgtool.ObjectError, error) {
	if s.contents == nil {
		return pgdump.Replay(ctx, target, l, p.o.Report)
	}
	return pgcopy.Replay(ctx, target, pgcopy.Load{
		Schema: l, Set: p.o.Set, Contents: s.contents, Entries: s.entries, Options: p.optionsOf(s),
	}, p.o.Report)
}

// optionsOf identifies what decides how a database is filled: an interrupted
// restore is only gone on with when it is the same.
func (p *Plan) optionsOf(s Step) string {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %q %q %v %t %t %t %v %v %s", p.o.Set.ID(), s.Source.Name, s.Name, s.entries,
		p.o.SchemaOnly, p.o.NoOwner, p.o.NoACL, p.o.MapRoles, p.o.MapTablespaces, s.lostKey()) // maps are printed in order
	return fmt.Sprintf("%016x", h.Sum64())
}

// goesOn reports whether an earlier attempt was interrupted while it filled the
// database from chunks, so that this one can go on.
func (p *Plan) goesOn(ctx context.Context, conn *pg.Conn, s Step, temporary string) (bool, error) {
	if s.contents == nil {
		return false, nil
	}
	left, err := conn.Commented(ctx, pg.UnfinishedComment)
	if err != nil {
		return false, err
	}
	if _, ok := left[temporary]; !ok {
		return false, nil
	}
	if err := conn.EndOwnSessions(ctx, temporary); err != nil { // those of the attempt that was killed
		return false, err
	}
	// What an attempt that met the damage has loaded is not loaded again.
	sound := s
	sound.lost = nil
	return pgcopy.Continues(ctx, p.o.Target, temporary, p.optionsOf(s), p.optionsOf(sound))
}

func (p *Plan) propertyOptions() pg.PropertyOptions {
	return pg.PropertyOptions{Owner: !p.o.NoOwner, Grants: !p.o.NoACL, MapRoles: p.o.MapRoles}
}
