package backup

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
)

// plan is what will be done with one database, and why.
type plan struct {
	database  pg.Database
	inventory pg.Inventory // without its list of tables: of many databases they would add up
	tables    int
	readBytes int64      // what a dump reads: tables with what is out of line, and large objects; no indexes
	largest   []pg.Table // the largest tables, for the eye
	settings  Settings
	mode      backupset.Mode
	why       string
	selection *backupset.Selection
	without   []pgname.Table // tables whose data is not wanted
	expected  int64          // bytes that will be stored, estimated
	problem   error          // why it cannot be captured
}

// Plan is a plan as the probe command shows it.
type Plan struct {
	Database  pg.Database
	Inventory pg.Inventory // without its list of tables
	Tables    int
	Largest   []pg.Table // the largest first
	Mode      backupset.Mode
	Why       string
	Problem   error
}

// Survey says what Run would do with each database, without touching the
// store.
func Survey(ctx context.Context, o Options) (pg.Server, []Plan, []backupset.Omission, error) {
	r := &run{o: o, started: o.Now()}
	if err := r.survey(ctx); err != nil {
		return r.server, nil, nil, err
	}
	if err := r.plan(ctx); err != nil {
		return r.server, nil, nil, err
	}
	plans := make([]Plan, 0, len(r.plans))
	for _, p := range r.plans {
		plans = append(plans, Plan{p.database, p.inventory, p.tables, p.largest, p.mode, p.why, p.problem})
	}
	return r.server, plans, r.omissions(), nil
}

// plan lists the databases, decides how each is captured and finds what
// stands in the way. For a single database a problem ends the run; of a
// cluster the other databases are still captured (B4).
func (r *run) plan(ctx context.Context) error {
	conn, err := r.o.Source.Connect(ctx, r.o.Source.Database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	all, err := conn.Databases(ctx)
	if err != nil {
		return err
	}
	chosen, err := r.choose(all)
	if err != nil {
		return err
	}
	r.warnUnknownSections(all)
	for _, d := range chosen {
		p, err := r.planDatabase(ctx, d)
		if err != nil {
			p.problem = err
		}
		if p.problem != nil && r.o.Kind == backupset.Single {
			return p.problem
		}
		r.plans = append(r.plans, p)
	}
	// The largest first: the last one to end decides how long the run takes.
	slices.SortStableFunc(r.plans, func(a, b plan) int { return cmp.Compare(b.database.Bytes, a.database.Bytes) })
	return nil
}

// warnUnknownSections: settings for a database that the server does not have
// are a mistyped name, or of a database that is gone.
func (r *run) warnUnknownSections(all []pg.Database) {
	if r.o.Kind != backupset.Cluster {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.o.PerDatabase)) {
		if !slices.ContainsFunc(all, func(d pg.Database) bool { return d.Name == name }) {
			r.o.Report.Warn("the configuration has settings for a database that does not exist", report.F("database", name))
		}
	}
}

// choose returns the databases to capture. Those that cannot be connected to
// become omissions.
func (r *run) choose(all []pg.Database) ([]pg.Database, error) {
	if r.o.Kind == backupset.Single {
		return one(all, r.o.Database)
	}
	names := make([]string, 0, len(all))
	for _, d := range all {
		names = append(names, d.Name)
	}
	excluded, idle := pgname.Patterns(r.o.Exclude).MatchNames(names)
	for _, pattern := range idle {
		r.o.Report.Info("no database to exclude is called, or matches", report.F("pattern", string(pattern)))
	}
	var chosen []pg.Database
	for _, d := range all {
		switch {
		case d.Name == "template0": // the same in every cluster
		case slices.Contains(excluded, d.Name):
			r.leaveOut(d.Name, "the whole database", "excluded by the options of the run")
		case d.Invalid():
			r.omit(d.Name, "the whole database", "it is what an interrupted DROP DATABASE left; drop it")
		case d.Unfinished():
			r.omit(d.Name, "the whole database", "a restore is filling it, or did not finish: restore again, or drop or rename it")
		case !d.AllowConn:
			r.omit(d.Name, "the whole database", "it does not allow connections (ALLOW_CONNECTIONS false)")
		default:
			chosen = append(chosen, d)
		}
	}
	return chosen, nil
}

func one(all []pg.Database, name string) ([]pg.Database, error) {
	for _, d := range all {
		if d.Name != name {
			continue
		}
		if !d.AllowConn {
			return nil, fault.New(fault.Precondition, "ALTER DATABASE "+pgname.Ident(name)+" ALLOW_CONNECTIONS true",
				"database %s does not allow connections", pgname.Printable(name))
		}
		return []pg.Database{d}, nil
	}
	return nil, fault.New(fault.NotFound, "`dbbackup probe` lists the databases", "there is no database %s on %s",
		pgname.Printable(name), "the server")
}

// leaveOut declares what the user wanted left out.
func (r *run) leaveOut(database, object, reason string) {
	r.omit(database, object, reason)
	r.manifest.Omissions[len(r.manifest.Omissions)-1].Asked = true
}

// omit declares what will not be in the set although nobody asked for that.
func (r *run) omit(database, object, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifest.Omissions = append(r.manifest.Omissions, backupset.Omission{Database: database, Object: object, Reason: reason})
}

// omissions returns those found so far; never nil, so that the manifest says
// that there are none.
func (r *run) omissions() []backupset.Omission {
	if r.manifest.Omissions == nil {
		return []backupset.Omission{}
	}
	return r.manifest.Omissions
}

func (r *run) planDatabase(ctx context.Context, d pg.Database) (plan, error) {
	p := plan{database: d, settings: r.o.settings(d.Name)}
	conn, err := r.o.Source.Connect(ctx, d.Name)
	if err != nil {
		return p, err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	if p.inventory, err = conn.Inventory(ctx); err != nil {
		return p, err
	}
	if err := r.selectTables(&p); err != nil {
		return p, err
	}
	p.summarize()
	p.mode, p.why = r.chooseMode(p)
	if p.problem = r.obstacle(ctx, conn, p); p.problem == nil {
		r.declare(p)
	}
	return p, nil
}

// shownTables is how many of a database's tables a Plan names.
const shownTables = 3

// summarize keeps of the tables what is needed later.
func (p *plan) summarize() {
	tables := p.inventory.Tables
	p.tables, p.readBytes = len(tables), p.inventory.LargeObjectBytes
	for _, t := range tables {
		p.readBytes += t.Bytes()
	}
	slices.SortFunc(tables, func(a, b pg.Table) int { return cmp.Compare(b.Bytes(), a.Bytes()) })
	p.largest = slices.Clone(tables[:min(shownTables, len(tables))])
	p.inventory.Tables = nil
}

// chooseMode resolves auto (DESIGN: how a format is chosen).
func (r *run) chooseMode(p plan) (backupset.Mode, string) {
	if p.settings.Mode != backupset.Auto {
		return p.settings.Mode, "asked for"
	}
	if r.o.Incremental {
		return backupset.Chunked, "an incremental backup was asked for"
	}
	if r.o.Salvage {
		return backupset.Chunked, "--salvage was given"
	}
	if r.piped() {
		return backupset.Chunked, "pg_dump's archives restore by one session when they are encrypted, or from a store that is no folder"
	}
	size, limit := bytesize.Format(p.database.Bytes), bytesize.Format(p.settings.ChunkedOver)
	if p.database.Bytes > p.settings.ChunkedOver {
		return backupset.Chunked, fmt.Sprintf("%s is above %s", size, limit)
	}
	return backupset.Custom, fmt.Sprintf("%s is not above %s", size, limit)
}

// piped reports whether pg_dump cannot write into the store itself.
func (r *run) piped() bool {
	if r.o.Sealing != nil || r.o.Piped {
		return true
	}
	_, local := r.o.Store.(store.Local)
	return !local && r.o.Store != nil // a survey has none
}

// obstacle says what would make the capture fail, or read less than all.
func (r *run) obstacle(ctx context.Context, conn *pg.Conn, p plan) error {
	name, gaps := pgname.Printable(p.database.Name), p.inventory.Gaps
	if p.selection.Chosen() && p.mode == backupset.Plain {
		return fault.New(fault.Usage, "use --mode custom or --mode directory",
			"database %s: tables cannot be selected in plain mode, because a plain dump cannot be restored in part", name)
	}
	if p.mode == backupset.Directory && r.piped() {
		return fault.New(fault.Usage, "use --mode chunked, which is parallel too",
			"database %s: pg_dump writes directory archives itself, which needs a store that is a folder, and no encryption", name)
	}
	if r.o.Salvage && (p.mode != backupset.Chunked || r.server.VersionNum < 140000) {
		return fault.New(fault.Usage, "use --mode chunked, of a server of version 14 or newer; else leave the table out with --exclude-table",
			"database %s: mode %s of version %s cannot leave out what the server cannot read", name, p.mode, r.server.Version)
	}
	if len(gaps.RowSecurity) > 0 {
		return fault.New(fault.Precondition, fmt.Sprintf("ALTER ROLE %s BYPASSRLS", pgname.Ident(r.o.Source.User)),
			"database %s: row security would hide rows of %s from role %s, which needs BYPASSRLS",
			name, tableList(gaps.RowSecurity), r.o.Source.User)
	}
	if len(gaps.Unreadable) > 0 {
		return fault.New(fault.Precondition, fmt.Sprintf("GRANT pg_read_all_data TO %s (version 14 and later)", pgname.Ident(r.o.Source.User)),
			"database %s: role %s may not read %s", name, r.o.Source.User, tableList(gaps.Unreadable))
	}
	if gaps.LargeObjects > 0 && !p.settings.SkipLargeObjects {
		some, err := conn.UnreadableLargeObjects(ctx, 5)
		if err != nil {
			return err
		}
		return fault.New(fault.Precondition, "back up as a superuser, grant SELECT on them, or give --skip-large-objects to leave all large objects out",
			"database %s: role %s may not read %d large objects (%s)", name, r.o.Source.User, gaps.LargeObjects, abridged(some, gaps.LargeObjects))
	}
	return r.lockObstacle(p)
}

// lockObstacle compares the locks that the capture will hold with what the server
// has room for (FACTS: 16 000 tables with max_locks_per_transaction = 64 end
// in "out of shared memory"). The table has some slack beyond the formula of
// the manual, so only what is well above it is refused.
func (r *run) lockObstacle(p plan) error {
	budget, locks := r.server.LockBudget, p.inventory.Lockable
	holders := ""
	if p.mode == backupset.Chunked {
		locks = nativeLocks(locks)
		holders = fmt.Sprintf(" in three sessions, which take the room of %d locks", locks)
	}
	if locks <= budget {
		return nil
	}
	slots := max(budget/int64(max(r.server.MaxLocksPerTx, 1)), 1)
	need := (locks + slots - 1) / slots
	if locks <= budget+budget/5 {
		r.o.Report.Warn(fmt.Sprintf("database %s has %d relations to lock%s, more than the %d that are guaranteed; set max_locks_per_transaction = %d",
			pgname.Printable(p.database.Name), p.inventory.Lockable, holders, budget, need))
		return nil
	}
	return fault.New(fault.Precondition, fmt.Sprintf("set max_locks_per_transaction = %d and restart the server", need),
		"database %s has %d relations to lock%s, and the server has room for %d locks (max_locks_per_transaction = %d)",
		pgname.Printable(p.database.Name), p.inventory.Lockable, holders, budget, r.server.MaxLocksPerTx)
}

// nativeLocks is the room that the locks of the native engine take: its two
// keepers and pg_dump hold each relation. The server keeps one entry for a
// relation, however many hold it, and has room for two holders of each (lock.c,
// InitLocks).
func nativeLocks(relations int64) int64 {
	const holders, guaranteed = 3, 2
	return (relations*holders + guaranteed - 1) / guaranteed
}

// declare lists what exists and will not be in the set (B7).
func (r *run) declare(p plan) {
	name, gaps := p.database.Name, p.inventory.Gaps
	for _, t := range gaps.Foreign {
		r.omit(name, "data of foreign table "+t.String(), "foreign data lives elsewhere; the definition is captured")
	}
	for _, t := range gaps.Unlogged {
		r.omit(name, "data of unlogged table "+t.String(), "a standby does not have it")
	}
	if gaps.Subscriptions > 0 {
		r.omit(name, fmt.Sprintf("%d subscriptions", gaps.Subscriptions), "only a superuser may read them")
	}
	if gaps.UserMappings > 0 {
		r.omit(name, fmt.Sprintf("options of %d user mappings", gaps.UserMappings), "they are hidden from this role")
	}
	if n := len(p.without); n > 0 {
		r.leaveOut(name, fmt.Sprintf("data of %d tables", n), "excluded by the options of the run; the definitions are captured")
	}
	if p.settings.SkipLargeObjects && p.inventory.LargeObjects > 0 {
		r.leaveOut(name, fmt.Sprintf("%d large objects", p.inventory.LargeObjects), "--skip-large-objects was given, or only tables were selected")
	}
}

func tableList(tables []pgname.Table) string {
	var names []string
	for _, t := range tables[:min(len(tables), 10)] {
		names = append(names, t.Printable())
	}
	return abridged(names, int64(len(tables)))
}

// abridged joins some names of a total.
func abridged(some []string, total int64) string {
	text := strings.Join(some, ", ")
	if rest := total - int64(len(some)); rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	return text
}
