package pgdump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strconv"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/child"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/pgtool"
	"dbbackup/internal/report"
)

// Target is where a replay writes to.
type Target struct {
	Endpoint   *pg.Endpoint
	Tools      pgtool.Tools
	Superuser  bool
	VersionNum int
}

// Load is what to replay into a database that exists.
type Load struct {
	Database string
	Mode     backupset.Mode
	Path     string // archives: the file or folder
	// Stream reads the whole of a custom archive of which Path has only the
	// table of contents, from its start and with its digest checked. It is called
	// for each step that replays rows. nil: Path has everything.
	Stream func(ctx context.Context) (io.ReadCloser, error)
	TOC    *pgarchive.TOC // archives
	// Open reads a plain dump, still compressed. It is called once.
	Open func(ctx context.Context) (io.ReadCloser, error)

	Entries []int // archives: dump ids to replay, in the archive's order; nil: all
	Jobs    int
	// Whole replays everything in one transaction, by one session: all of it
	// or nothing. For databases that cannot be filled under another name.
	Whole bool

	SchemaOnly, DataOnly bool
	NoOwner, NoACL       bool
	MapRoles             map[string]string // source to target
	MapTablespaces       map[string]string // source to target, "" is the database's own
	// Phases keeps foreign keys apart from the rest of post-data, as several jobs do.
	Phases bool
	// MaintenanceMemory is what each session may take to build an index, in
	// bytes; 0 leaves that to the server's settings.
	MaintenanceMemory int64
}

// Replay fills a database. Statements that the target refused are returned by
// object; the others were done all the same, except with Whole. The error says
// that the replay itself broke off.
func Replay(ctx context.Context, t Target, l Load, r report.Reporter) ([]pgtool.ObjectError, error) {
	p := &replay{target: t, load: l, report: r}
	if l.Mode == backupset.Plain {
		return p.plain(ctx)
	}
	return p.archive(ctx)
}

type replay struct {
	target Target
	load   Load
	report report.Reporter
}

// step is one call of pg_restore.
type step struct {
	name string
	args []string
	ids  []int             // nil: no list
	rows bool              // replays data
	gucs map[string]string // settings of the sessions
}

func (p *replay) archive(ctx context.Context) ([]pgtool.ObjectError, error) {
	var problems []pgtool.ObjectError
	for _, s := range p.steps() {
		p.report.Info("restoring "+s.name, report.F("database", p.load.Database))
		refused, err := p.restore(ctx, s)
		problems = append(problems, refused...)
		if err != nil {
			return problems, fmt.Errorf("restore %s: %w", s.name, err)
		}
		if len(refused) > 0 && p.load.Whole {
			return problems, nil
		}
	}
	if len(p.load.MapRoles) > 0 && !p.load.DataOnly {
		refused, err := p.mapOwnership(ctx)
		return append(problems, refused...), err
	}
	return problems, nil
}

// steps cuts the work by section, and for mapped tablespaces further into runs
// of entries that live in the same one.
func (p *replay) steps() []step {
	l := p.load
	if l.Whole {
		args := []string{"--single-transaction"}
		if l.DataOnly {
			args = append(args, "--data-only", "--disable-triggers")
		}
		return []step{{name: "all, in one transaction", args: args, ids: p.ids(), rows: true}}
	}
	sections := []pgarchive.Section{pgarchive.PreData, pgarchive.Data, pgarchive.PostData}
	if l.SchemaOnly {
		sections = []pgarchive.Section{pgarchive.PreData, pgarchive.PostData}
	}
	var steps []step
	for _, section := range sections {
		steps = append(steps, p.sectionSteps(section)...)
	}
	return steps
}

// sectionSteps: definitions are made by one session, because with several a
// table's privileges can come before its schema's; post-data comes in phases
// that do not deadlock.
func (p *replay) sectionSteps(section pgarchive.Section) []step {
	switch jobs := max(p.load.Jobs, 1); {
	case section == pgarchive.PreData:
		return p.tablespaceSteps(step{name: section.String(), args: []string{"--section=" + section.String()}, ids: p.ids()})
	case section == pgarchive.Data:
		s := step{name: section.String(), args: []string{"--section=" + section.String()}, ids: p.ids(), rows: true}
		if p.load.Stream == nil { // a stream has no places to jump to
			s.args = append(s.args, jobsArg(jobs))
		}
		return []step{s}
	case jobs == 1 && !p.load.Phases:
		return p.tablespaceSteps(step{name: section.String(), args: []string{"--section=" + section.String()}, ids: p.ids()})
	default:
		return p.phaseSteps(section, jobs)
	}
}

func (p *replay) phaseSteps(section pgarchive.Section, jobs int) []step {
	var steps []step
	phases := p.load.TOC.PostData(p.ids())
	for i, phase := range phases {
		s := step{name: fmt.Sprintf("%s, phase %d of %d", section, i+1, len(phases)), ids: phase.IDs}
		if phase.Parallel {
			s.args = []string{jobsArg(jobs)}
		}
		s.gucs = map[string]string{}
		if p.load.MaintenanceMemory > 0 {
			s.gucs["maintenance_work_mem"] = fmt.Sprintf("%dkB", p.load.MaintenanceMemory>>10)
		}
		if jobs > defaultIndexWorkers { // one index, left over, is built by no fewer processes than several
			s.gucs["max_parallel_maintenance_workers"] = strconv.Itoa(jobs)
		}
		if p.target.Superuser {
			// An index waits for this long for an autovacuum of the new rows, before it is
			// sent away: a second each otherwise.
			s.gucs["deadlock_timeout"] = "100ms"
		}
		steps = append(steps, p.tablespaceSteps(s)...)
	}
	return steps
}

// defaultIndexWorkers is max_parallel_maintenance_workers as PostgreSQL comes.
const defaultIndexWorkers = 2

func jobsArg(jobs int) string { return "--jobs=" + strconv.Itoa(jobs) }

// tablespaceSteps cuts a step into one for each run of entries in one
// tablespace, where tablespaces are mapped. pg_restore cannot map them; without
// its own SET default_tablespace the session's setting decides.
func (p *replay) tablespaceSteps(s step) []step {
	if len(p.load.MapTablespaces) == 0 {
		return []step{s}
	}
	var steps []step
	for i, run := range p.load.TOC.RunsByTablespace(s.ids, p.load.MapTablespaces) {
		gucs := map[string]string{"default_tablespace": run.Tablespace}
		maps.Copy(gucs, s.gucs)
		steps = append(steps, step{
			name: fmt.Sprintf("%s, part %d", s.name, i+1),
			args: append([]string{"--no-tablespaces"}, s.args...),
			ids:  run.IDs,
			gucs: gucs,
		})
	}
	return steps
}

// ids are the entries that pg_restore replays: those chosen, or all, less the
// ones that mapOwnership makes.
func (p *replay) ids() []int {
	if len(p.load.MapRoles) == 0 && (p.load.Entries != nil || len(p.load.MapTablespaces) == 0) {
		return p.load.Entries
	}
	chosen := make(map[int]bool, len(p.load.Entries))
	for _, id := range p.load.Entries {
		chosen[id] = true
	}
	ids := []int{}
	for i := range p.load.TOC.Entries {
		e := &p.load.TOC.Entries[i]
		if len(p.load.MapRoles) > 0 && madeWithOwnership(e) {
			continue
		}
		if !e.Added && (p.load.Entries == nil || chosen[e.ID]) {
			ids = append(ids, e.ID)
		}
	}
	return ids
}

func (p *replay) restore(ctx context.Context, s step) ([]pgtool.ObjectError, error) {
	args := append([]string{
		"--dbname=" + p.target.Endpoint.ChildConninfo(p.load.Database, "dbbackup pg_restore"),
		"--no-password",
	}, s.args...)
	args = append(args, p.ownershipArgs()...)
	if s.ids != nil {
		list, remove, err := p.listFile(s.ids)
		if err != nil {
			return nil, err
		}
		defer remove()
		args = append(args, "--use-list="+list)
	}
	if s.rows && p.load.Stream != nil {
		return p.restoreStream(ctx, p.target.Tools.Command(pgtool.PgRestore, args, withSettings(p.env(), s.gucs)))
	}
	args = append(args, p.load.Path)
	return runRefusable(ctx, p.target.Tools.Command(pgtool.PgRestore, args, withSettings(p.env(), s.gucs)), pgRestoreError)
}

// restoreStream feeds the archive to pg_restore, which ends when it has what it
// wants: the rest is read for its digest.
func (p *replay) restoreStream(ctx context.Context, command child.Command) ([]pgtool.ObjectError, error) {
	in, err := p.load.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // only read
	command.Stdin = in
	refused, err := runRefusable(ctx, command, pgRestoreError)
	if err == nil {
		_, err = io.Copy(io.Discard, in)
	}
	return refused, err
}

// env is the environment for the replay's children.
func (p *replay) env() []string { return pgtool.Environ(p.target.Endpoint.ChildEnv(), nil) }

func (p *replay) ownershipArgs() []string {
	var args []string
	if p.load.NoOwner || len(p.load.MapRoles) > 0 {
		args = append(args, "--no-owner")
	}
	if p.load.NoACL || len(p.load.MapRoles) > 0 {
		args = append(args, "--no-acl")
	}
	return args
}

// listFile writes pg_restore's list of entries to a private temporary file.
func (p *replay) listFile(ids []int) (path string, remove func(), err error) {
	file, err := os.CreateTemp("", "dbbackup-list-")
	if err != nil {
		return "", nil, fmt.Errorf("list of entries: %w", err)
	}
	remove = func() { os.Remove(file.Name()) } //nolint:errcheck // temporary, and holds names only
	if err := errors.Join(p.load.TOC.WriteList(file, ids), file.Close()); err != nil {
		remove()
		return "", nil, fmt.Errorf("list of entries: %w", err)
	}
	return file.Name(), remove, nil
}

// Exit statuses for statements that the target refused: pg_restore's, which it
// has for everything else too, and psql's with ON_ERROR_STOP (PostgreSQL
// manual, psql, "Exit Status").
const (
	pgRestoreError = 1
	psqlError      = 3
)

// maxComplaints bounds what is kept of a child's complaints, in bytes.
const maxComplaints = 1 << 20

// runRefusable runs a child and tells statements that the target refused,
// which it returns by object, from a replay that broke off.
func runRefusable(ctx context.Context, c child.Command, refused int) ([]pgtool.ObjectError, error) {
	var complaints strings.Builder
	c.OnStderrLine = func(line string) {
		if complaints.Len()+len(line) < maxComplaints {
			complaints.WriteString(line + "\n")
		}
	}
	_, err := child.Run(ctx, c)
	var exit *child.ExitError
	if err == nil || !errors.As(err, &exit) || exit.Cause != nil || exit.Code != refused {
		return nil, err
	}
	problems := pgtool.ParseRestoreErrors(complaints.String())
	if len(problems) == 0 {
		return nil, err
	}
	return problems, nil
}

// withSettings adds settings of the sessions to a child's environment, after
// those that are there.
func withSettings(env []string, settings map[string]string) []string {
	if len(settings) == 0 {
		return env
	}
	options, kept := "", make([]string, 0, len(env)+1)
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PGOPTIONS="); ok {
			options = value
			continue
		}
		kept = append(kept, kv)
	}
	for name, value := range settings {
		options += " -c " + name + "=" + optionEscape.Replace(value)
	}
	return append(kept, "PGOPTIONS="+strings.TrimLeft(options, " "))
}

// optionEscape quotes a value within PGOPTIONS, where a backslash makes the
// next character literal (PostgreSQL manual, libpq, "options"), any white
// space included (pg_split_opts in the server's postinit.c).
var optionEscape = strings.NewReplacer(`\`, `\\`, " ", `\ `, "\t", "\\\t", "\n", "\\\n", "\r", "\\\r", "\v", "\\\v", "\f", "\\\f")
