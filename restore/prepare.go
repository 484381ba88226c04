package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgname"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/sqltext"
)

// Action is how a database comes to its place.
type Action string

// The actions.
const (
	Create  Action = "create"         // a new database, renamed last
	Replace Action = "replace"        // a new database takes the place of an existing one, which is dropped
	Fill    Action = "fill in place"  // an empty database that initdb made
	Append  Action = "load data into" // data only, into an existing database
)

// Step is what will be done for one database.
type Step struct {
	Name    string // on the target
	Action  Action
	Source  backupset.Database
	Notices []string // what will not be restored, and why

	properties pg.Database
	empty      bool // nothing is lost when it is replaced
	toc        *pgarchive.TOC
	path       string              // of the archive, or of the beginning of it that has toc
	partial    bool                // path has no rows: they are read from the set
	contents   *backupset.Contents // chunked sets
	entries    []int               // nil: all
	lost       []pgcopy.Loss       // with Salvage
}

// Plan is a restore that could begin.
type Plan struct {
	Steps  []Step
	Server pg.Server // the target
	// Globals are the statements that will be run for roles and tablespaces,
	// without secrets; Notices what differs and is kept.
	Globals []string
	Notices []string
	// Omitted is what the set does not have, or the target cannot take, and
	// will be missing.
	Omitted []string
	// Gone are the databases of which a salvage can restore nothing.
	Gone []Gone

	o       Options
	damaged bool // a salvage found something of the set damaged or missing
	tools   pgtool.Tools
	globals []sqltext.GlobalStatement
	fetched []func() error // remove what was fetched from the store
}

// Close removes what the plan keeps on this machine of a set that is elsewhere.
// It may be called again.
func (p *Plan) Close() error {
	var errs []error
	for _, remove := range p.fetched {
		errs = append(errs, remove())
	}
	p.fetched = nil
	return errors.Join(errs...)
}

// preparation is a Plan on its way.
type preparation struct {
	Plan
	conn        *pg.Conn
	roles       map[string]pg.Role
	tablespaces []string
	databases   map[string]pg.Database
	problems    Problems
}

// Prepare makes a plan. Everything that stands in the way comes in one error,
// of kind fault.Precondition, or fault.Integrity when the set is damaged.
// Nothing has been written. The caller closes the plan.
func Prepare(ctx context.Context, o Options) (*Plan, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	p := &preparation{Plan: Plan{o: o}}
	if err := p.prepare(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return &p.Plan, nil
}

func (p *preparation) prepare(ctx context.Context) error {
	if err := p.survey(ctx); err != nil {
		return err
	}
	defer p.conn.Close(ctx) //nolint:errcheck // only read from
	chosen, err := p.choose()
	if err != nil {
		return err
	}
	plan := p.planSound
	if p.o.Salvage {
		plan = p.salvage
	}
	if err := plan(ctx, chosen); err != nil {
		return err
	}
	if err := p.checkTarget(ctx); err != nil {
		return err
	}
	if len(p.problems) > 0 {
		return fault.New(fault.Precondition, "nothing was written; mend these and run it again", "restore: %w", p.problems.sorted())
	}
	return nil
}

// planSound plans the restore of databases whose objects must be sound.
func (p *preparation) planSound(ctx context.Context, chosen []backupset.Database) error {
	if err := p.checkObjects(ctx, chosen); err != nil {
		return err
	}
	if err := p.planGlobals(ctx); err != nil {
		return err
	}
	for _, d := range chosen {
		if err := p.planDatabase(ctx, d); err != nil {
			return err
		}
	}
	return p.checkChunks(ctx)
}

// survey asks the target what it is and what it has.
func (p *preparation) survey(ctx context.Context) (err error) {
	if err := p.o.Target.RefusePooler(ctx); err != nil {
		return err
	}
	if p.conn, err = p.o.Target.Connect(ctx, p.o.Target.Database); err != nil {
		return err
	}
	if p.Server, err = p.conn.Server(ctx); err != nil {
		return err
	}
	if p.tools, err = p.o.Search.ForArchive(ctx, p.Server.VersionNum, p.dumpMajor()); err != nil {
		return err
	}
	roles, err := p.conn.Roles(ctx)
	if err != nil {
		return err
	}
	p.roles = map[string]pg.Role{}
	for _, r := range roles {
		p.roles[r.Name] = r
	}
	tablespaces, err := p.conn.Tablespaces(ctx)
	if err != nil {
		return err
	}
	p.tablespaces = []string{"pg_default", "pg_global"}
	for _, t := range tablespaces {
		p.tablespaces = append(p.tablespaces, t.Name)
	}
	databases, err := p.conn.Databases(ctx)
	if err != nil {
		return err
	}
	p.databases = map[string]pg.Database{}
	for _, d := range databases {
		p.databases[d.Name] = d
	}
	return nil
}

// dumpMajor is the newest pg_dump that wrote something of the set: an older
// pg_restore cannot be trusted to read it.
func (p *preparation) dumpMajor() int {
	major := 0
	for _, d := range p.o.Set.Manifest().Databases {
		var v int
		if _, err := fmt.Sscanf(d.DumpTool.Version, "%d", &v); err == nil {
			major = max(major, v)
		}
	}
	return major
}

// choose returns the databases of the set to restore.
func (p *preparation) choose() ([]backupset.Database, error) {
	m := p.o.Set.Manifest()
	if p.o.Kind == backupset.Cluster {
		if m.Kind != backupset.Cluster {
			return nil, fault.New(fault.Usage, "dbbackup restore single NAME --set "+m.ID,
				"backup set %s holds a single database, not a cluster", m.ID)
		}
		for _, f := range m.Failures {
			p.Omitted = append(p.Omitted, fmt.Sprintf("not in this set, because its capture failed: %s", f.Error))
		}
		return m.Databases, nil
	}
	for _, d := range m.Databases {
		if d.Name == p.o.Database {
			return []backupset.Database{d}, errors.Join(p.refusePlainSelection(d), p.refuseSalvage(d))
		}
	}
	return nil, fault.New(fault.NotFound, "`dbbackup show "+m.ID+"` lists what it holds",
		"backup set %s does not hold database %s", m.ID, pgname.Printable(p.o.Database))
}

func (p *preparation) refusePlainSelection(d backupset.Database) error {
	if d.Mode != backupset.Plain || p.o.whole() {
		return nil
	}
	return fault.New(fault.Usage,
		fmt.Sprintf("restore all of it beside the original (restore single %s --target-db NEW) and copy what you need; back up with --mode custom to restore parts",
			pgname.Printable(d.Name)),
		"database %s was captured in plain mode: an SQL script can only be run as a whole, as it is", pgname.Printable(d.Name))
}

// planDatabase decides how one database comes to its place.
func (p *preparation) planDatabase(ctx context.Context, d backupset.Database) error {
	s := Step{Name: d.Name, Source: d}
	if p.o.Kind == backupset.Single {
		s.Name = p.o.as()
	}
	read := p.readProperties
	if p.o.Salvage {
		read = p.salvageProperties
	}
	if err := read(ctx, &s); err != nil {
		return err
	}
	if err := p.dropUnknownSettings(ctx, &s); err != nil {
		return err
	}
	if d.Mode == backupset.Chunked {
		contents, err := p.o.Set.Contents(ctx, &d)
		if err != nil {
			return withHint(noContentsHint, err)
		}
		s.contents = contents
	}
	if err := p.readArchive(ctx, &s); err != nil {
		return err
	}
	if err := p.decide(ctx, &s); err != nil {
		return err
	}
	p.Steps = append(p.Steps, s)
	return nil
}

// readProperties reads the database's own properties, checking their digest.
func (p *preparation) readProperties(ctx context.Context, s *Step) error {
	in, err := p.o.Set.OpenObject(ctx, s.Source.Properties)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &s.properties); err != nil {
		return fault.New(fault.Integrity, "", "object %s: %w", s.Source.Properties, err)
	}
	return nil
}

// decide finds the action, and what is in its way.
func (p *preparation) decide(ctx context.Context, s *Step) error {
	existing, exists := p.databases[s.Name]
	name := pgname.Printable(s.Name)
	switch {
	case p.o.DataOnly && !exists:
		p.problems = append(p.problems, fmt.Sprintf("database %s does not exist: --data-only loads into tables that are there", name))
	case p.o.DataOnly:
		s.Action = Append
		problems, err := p.appendProblems(ctx, s)
		p.problems = append(p.problems, problems...)
		return err
	case !exists:
		s.Action = Create
	case existing.Invalid():
		p.problems = append(p.problems, fmt.Sprintf("database %s is what an interrupted DROP DATABASE left: drop it", name))
	default:
		return p.decideExisting(ctx, s, existing)
	}
	return nil
}

// decideExisting: a database is only touched when it is empty and initdb's, or
// when replacing was asked for.
func (p *preparation) decideExisting(ctx context.Context, s *Step, existing pg.Database) error {
	empty, err := p.empty(ctx, existing)
	if err != nil {
		return err
	}
	initdbs := p.o.Kind == backupset.Cluster && (s.Name == "postgres" || s.Name == "template1")
	switch {
	case initdbs && empty && alike(existing, s.properties) && s.entries == nil && !s.holdsRows():
		s.Action = Fill
	case initdbs && empty:
		s.Action, s.empty = Replace, true
	case p.o.Replace:
		s.Action = Replace
	default:
		p.problems = append(p.problems, fmt.Sprintf(
			"database %s exists already on this server: restore it under another name with --target-db, or replace it with --clean --confirm",
			pgname.Printable(s.Name)))
	}
	if s.Action != Replace {
		return nil
	}
	return p.refuseSubscriptions(ctx, s.Name)
}

// holdsRows reports whether a chunked set has more than definitions: that is
// loaded by several sessions, which cannot share the one transaction of Fill.
func (s *Step) holdsRows() bool {
	c := s.contents
	if c == nil {
		return false
	}
	return len(c.Sequences)+len(c.MaterializedViews) > 0 || c.LargeObjects != nil ||
		slices.ContainsFunc(c.Tables, func(t backupset.ChunkedTable) bool { return t.Rows > 0 })
}

// refuseSubscriptions: a database with subscriptions cannot be dropped, and
// whether their slots on the publishers may go is not for us to say.
func (p *preparation) refuseSubscriptions(ctx context.Context, database string) error {
	subscriptions, err := p.conn.Subscriptions(ctx, database)
	for _, name := range subscriptions {
		p.problem("database %s cannot be replaced while it holds subscription %s: drop that first",
			pgname.Printable(database), pgname.Printable(name))
	}
	return err
}

// empty reports whether nothing was made in the database since initdb.
func (p *preparation) empty(ctx context.Context, d pg.Database) (bool, error) {
	if !d.AllowConn {
		return false, nil
	}
	conn, err := p.o.Target.Connect(ctx, d.Name)
	if err != nil {
		return false, err
	}
	defer conn.Close(ctx) //nolint:errcheck // only read from
	n, err := conn.UserObjects(ctx)
	return n == 0, err
}

// alike reports whether two databases agree in what cannot be changed later.
func alike(a, b pg.Database) bool {
	return a.Encoding == b.Encoding && a.Collate == b.Collate && a.CType == b.CType &&
		a.Provider == b.Provider && a.Locale == b.Locale && a.ICURules == b.ICURules
}

// Destroys lists the existing databases that the plan would replace, less
// initdb's empty ones.
func (p *Plan) Destroys() []string {
	var names []string
	for _, s := range p.Steps {
		if s.Action == Replace && !s.empty {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}
