package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/restore"
)

func (a *application) restoreCluster(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 0, 0); err != nil {
		return err
	}
	return a.restore(ctx, s, restore.Options{Kind: backupset.Cluster})
}

func (a *application) restoreSingle(ctx context.Context, s *settings) error {
	if err := wantArgs(s.Context, 1, 1); err != nil {
		return err
	}
	roles, err := restore.ParseMap("--map-role", s.StringSlice("map-role"))
	if err != nil {
		return err
	}
	return a.restore(ctx, s, restore.Options{
		Kind: backupset.Single, Database: s.Args().First(), As: s.String("target-db"),
		Tables: s.StringSlice("table"), Schemas: s.StringSlice("schema"),
		SchemaOnly: s.Bool("schema-only"), DataOnly: s.Bool("data-only"),
		NoOwner: s.Bool("no-owner"), NoACL: s.Bool("no-acl"), MapRoles: roles,
	})
}

// restore plans, asks where something would be destroyed, and executes.
func (a *application) restore(ctx context.Context, s *settings, o restore.Options) (err error) {
	if o.MapTablespaces, err = restore.ParseMap("--map-tablespace", s.StringSlice("map-tablespace")); err != nil {
		return err
	}
	facts, limits := s.hostFacts(ctx)
	o.Jobs = s.orLimit("jobs", a.config.Jobs, limits.Jobs)
	o.Replace, o.Analyze, o.Search, o.Report, o.Now = s.Bool("clean"), !s.Bool("no-analyze"), s.search(), a.log, time.Now
	o.DryRun, o.Salvage = s.Bool("dry-run"), s.Bool("salvage")
	if err := o.Validate(); err != nil {
		return err
	}
	found, err := a.findSet(ctx, s, s.String("set"), backupset.Want{Kind: kindWanted(o), Database: o.Database})
	if err != nil {
		return err
	}
	defer found.Close() //nolint:errcheck // only read
	o.Set = found.set
	if o.Target, err = s.endpoint(ctx); err != nil {
		return err
	}
	if o.Target.Local() {
		o.MaintenanceMemory = facts.MaintenanceMemory(o.Jobs)
	}
	plan, err := restore.Prepare(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = a.keep(err, plan.Close()) }()
	return a.carryOut(ctx, s, o, plan)
}

// kindWanted: a database can be restored from any set, a cluster from a
// cluster's only.
func kindWanted(o restore.Options) backupset.Kind {
	if o.Kind == backupset.Cluster {
		return backupset.Cluster
	}
	return ""
}

func (a *application) carryOut(ctx context.Context, s *settings, o restore.Options, plan *restore.Plan) error {
	a.log.Close()
	if s.Bool("dry-run") {
		return a.printPlan(s, o, plan)
	}
	if err := a.confirm(ctx, s, o.Target, plan); err != nil {
		return err
	}
	for _, notice := range plan.Notices {
		a.log.Warn(notice)
	}
	for _, omitted := range plan.Omitted {
		a.log.Warn("will be missing: " + omitted)
	}
	outcomes, err := plan.Execute(ctx)
	a.log.Close() // the bars end before the table begins
	if plan.Lost() {
		a.warnOfLosses(o, outcomes)
	}
	if err == nil && len(plan.Omitted) > 0 {
		err = errOmissions
	}
	return a.keep(err, a.printRestored(s, o.Set.ID(), outcomes, err))
}

// warnOfLosses says once more what a salvage could not restore.
func (a *application) warnOfLosses(o restore.Options, outcomes []restore.Outcome) {
	for _, outcome := range outcomes {
		of := ""
		if o.Kind == backupset.Cluster {
			of = "database " + pgname.Printable(outcome.Name) + ": "
		}
		if outcome.Gone != nil {
			a.log.Warn("lost: " + outcome.Gone.String())
		}
		for _, l := range outcome.Lost {
			a.log.Warn("lost: " + of + l.String())
		}
		for _, refused := range outcome.Problems {
			a.log.Warn("refused: " + of + refused.String())
		}
	}
}

// confirm asks before databases are replaced: on a terminal, or by --confirm.
func (a *application) confirm(ctx context.Context, s *settings, target *pg.Endpoint, plan *restore.Plan) error {
	destroys := plan.Destroys()
	if len(destroys) == 0 || s.Bool("confirm") {
		return nil
	}
	var names []string
	for _, name := range destroys {
		names = append(names, pgname.Printable(name))
	}
	where := fmt.Sprintf("on %s (system identifier %s)", target, plan.Server.SystemIdentifier)
	if !a.terminal().CanAsk() {
		return fault.New(fault.Usage, "give --confirm if that is what you want", "%s this drops: %s", where, strings.Join(names, ", "))
	}
	ask := &printer{w: a.stderr}
	ask.line("")
	ask.wrapped("", "These databases "+where+" will be replaced, and what they hold now will be lost:")
	for _, name := range names {
		ask.line("  %s", name)
	}
	if ask.err != nil {
		return ask.err
	}
	answer, err := a.terminal().Ask(ctx, "Type yes to go on: ")
	if err != nil {
		return err
	}
	if answer != "yes" {
		return fault.New(fault.Usage, "", "not confirmed, nothing was written")
	}
	return nil
}

// planJSON is a dry run's result.
type planJSON struct {
	Set       string         `json:"set"`
	Target    string         `json:"target"`
	Globals   []string       `json:"globals"`
	Databases []planDatabase `json:"databases"`
	Notices   []string       `json:"notices"`
	Omitted   []string       `json:"omitted"`
}

type planDatabase struct {
	Name    string   `json:"name"`
	Action  string   `json:"action"`
	From    string   `json:"from"`
	Mode    string   `json:"mode"`
	Bytes   int64    `json:"database_bytes"`
	Notices []string `json:"notices"`
}

func (a *application) printPlan(s *settings, o restore.Options, plan *restore.Plan) error {
	p := planJSON{Set: o.Set.ID(), Target: o.Target.String(), Globals: plan.Globals, Notices: plan.Notices, Omitted: plan.Omitted}
	for _, step := range plan.Steps {
		p.Databases = append(p.Databases, planDatabase{step.Name, string(step.Action), step.Source.Name,
			string(step.Source.Mode), step.Source.DatabaseBytes, step.Notices})
	}
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(p)
	}
	out := &printer{w: a.stdout}
	state := "sound"
	if plan.Lost() {
		state = "damaged"
	}
	out.line("Set %s is %s. On %s this restore would:", p.Set, state, p.Target)
	for _, g := range p.Globals {
		out.line("  %s", g)
	}
	for _, d := range p.Databases {
		out.line("  %s database %s from %s (%s, %s)", d.Action, pgname.Printable(d.Name), pgname.Printable(d.From), d.Mode, bytesize.Format(d.Bytes))
		for _, n := range d.Notices {
			out.line("      %s", n)
		}
	}
	for _, n := range p.Notices {
		out.line("Note: %s", n)
	}
	for _, omitted := range p.Omitted {
		out.line("Will be missing: %s", omitted)
	}
	out.line("Dry run: nothing was written.")
	return out.err
}

// restoredJSON is a restore's result.
type restoredJSON struct {
	Set       string             `json:"set"`
	Result    string             `json:"result"`
	Error     string             `json:"error,omitempty"`
	Databases []restoredDatabase `json:"databases"`
}

type restoredDatabase struct {
	Name    string   `json:"name"`
	Action  string   `json:"action"`
	Bytes   int64    `json:"database_bytes"`
	Seconds float64  `json:"seconds"`
	Result  string   `json:"result"`
	Error   string   `json:"error,omitempty"`
	Refused []string `json:"refused,omitempty"`
	KeptAs  string   `json:"kept_as,omitempty"`
	Lost    []lost   `json:"lost,omitempty"`
	gone    string
}

// lost is a chunk that a salvage could not restore: rows of a table's pages, or of
// large objects.
type lost struct {
	Table     string `json:"table,omitempty"`
	FirstPage uint32 `json:"first_page"`
	EndPage   uint32 `json:"end_page"` // the first page behind it
	FirstOID  uint32 `json:"first_oid,omitempty"`
	LastOID   uint32 `json:"last_oid,omitempty"`
	Rows      int64  `json:"rows"`
	Object    string `json:"object"`
	Error     string `json:"error"`
	text      string
}

func (a *application) printRestored(s *settings, set string, outcomes []restore.Outcome, err error) error {
	result := restoredJSON{Set: set, Result: "ok", Databases: []restoredDatabase{}}
	switch {
	case errors.Is(err, errOmissions):
		result.Result = "omissions"
	case err != nil:
		result.Result, result.Error = "failed", err.Error()
	}
	for _, o := range outcomes {
		result.Databases = append(result.Databases, restored(o))
	}
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(result)
	}
	t := console.NewTable(console.NameColumns+10, "DATABASE", "ACTION", ">SIZE", ">TIME", "RESULT")
	for _, d := range result.Databases {
		t.Add(pgname.Printable(d.Name), d.Action, bytesize.Format(d.Bytes), console.ShortTime(d.Seconds), d.Result)
	}
	if err := t.Print(a.stdout); err != nil {
		return err
	}
	out := &printer{w: a.stdout}
	for _, d := range result.Databases {
		d.printLost(out)
	}
	return out.err
}

// printLost says what a salvage left out, once more at the end.
func (d restoredDatabase) printLost(out *printer) {
	if d.gone != "" {
		out.wrapped("", "Lost: "+d.gone)
	}
	if len(d.Lost) == 0 {
		return
	}
	out.line("Lost of %s (%d):", pgname.Printable(d.Name), len(d.Lost))
	for _, l := range d.Lost {
		out.wrapped("  - ", l.text)
	}
	for _, r := range d.Refused {
		out.wrapped("  - ", "refused: "+r)
	}
}

func restored(o restore.Outcome) restoredDatabase {
	d := restoredDatabase{Name: o.Name, Action: string(o.Action), Bytes: o.Source.DatabaseBytes, Seconds: o.Took.Seconds(), Result: "ok", KeptAs: o.KeptAs}
	for _, p := range o.Problems {
		d.Refused = append(d.Refused, p.String())
	}
	for _, l := range o.Lost {
		d.Result = "incomplete"
		d.Lost = append(d.Lost, lost{l.Table, l.FirstPage, l.EndPage, l.FirstOID, l.LastOID, l.Rows, l.Object, l.Err.Error(), l.String()})
	}
	switch {
	case o.Gone != nil:
		d.Action, d.Result, d.Error, d.gone = "none", "lost", o.Gone.Err.Error(), o.Gone.String()
	case o.Err != nil:
		d.Result, d.Error = "failed", o.Err.Error()
	}
	return d
}
