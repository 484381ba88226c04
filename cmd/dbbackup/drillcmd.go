package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/console"
	"dbbackup/internal/drill"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/store"
)

// refuseDrillFlags refuses flags of verify that do not go together. --drill-dir
// alone is none of them: the environment may say it once and for all.
func (s *settings) refuseDrillFlags() error {
	if err := s.refuseEmpty("drill-target", "drill-dir"); err != nil {
		return err
	}
	switch {
	case s.Bool("drill") && s.Bool("quick"):
		return fault.New(fault.Usage, helpHint(s.Context), "--quick reads no contents, --drill restores them: give one of them")
	case s.IsSet("drill-target") && !s.Bool("drill"):
		return fault.New(fault.Usage, helpHint(s.Context), "--drill-target says where to drill: give --drill, too")
	}
	return nil
}

// drillOptions finds what a drill needs, before anything is read.
func (a *application) drillOptions(ctx context.Context, s *settings, set *backupset.Set) (*drill.Options, error) {
	facts, limits := s.hostFacts(ctx)
	o := &drill.Options{
		Set: set, Dir: s.String("drill-dir"), Search: s.search(), Env: a.env, Report: a.log, Now: time.Now,
		Jobs: s.orLimit("jobs", a.config.Jobs, limits.Jobs),
	}
	if o.Jobs < 1 {
		return nil, fault.New(fault.Usage, helpHint(s.Context), "the number of jobs begins at 1")
	}
	if s.IsSet("drill-target") {
		params, err := pg.ParseParams(s.String("drill-target"))
		if err != nil {
			return nil, err
		}
		if o.Target, err = s.resolveEndpoint(ctx, params); err != nil {
			return nil, err
		}
	}
	if o.Target == nil || o.Target.Local() {
		o.MaintenanceMemory = facts.MaintenanceMemory(o.Jobs)
	}
	return o, o.Check(ctx)
}

// drill restores a set that reads well, records the result beside it and
// prints it. A drill that could not be done is not recorded: it says nothing
// about the set.
func (a *application) drill(ctx context.Context, s *settings, place store.Place, verified verifiedJSON, o drill.Options) error {
	if !s.Bool("json") {
		if err := a.printVerified(s, o.Set, verified); err != nil {
			return err
		}
	}
	result, err := drill.Run(ctx, o)
	a.log.Close()
	if err != nil {
		err = fmt.Errorf("drill backup set %s: %w", o.Set.ID(), err)
		verified.Result, verified.Error = "not drilled", err.Error()
		return a.keep(err, a.printDrill(s, verified, result))
	}
	record := result.Record(hostname(), backupset.Tool{Name: "dbbackup", Version: version})
	stored := record
	if o.Set.Sealed() {
		stored = record.Redact()
	}
	recordErr := backupset.WriteDrill(context.WithoutCancel(ctx), place, stored)
	verified.Drill = newDrillJSON(result, record)
	if err = result.Err(); err != nil {
		verified.Result, verified.Error = "not restorable", err.Error()
	}
	a.noteVerified(context.WithoutCancel(ctx), place, o.Set, verified)
	return a.keep(a.keep(err, a.printDrill(s, verified, result)), recordErr)
}

// drillJSON is the result of a drill.
type drillJSON struct {
	Result        string             `json:"result"` // ok or failed
	At            time.Time          `json:"at"`     // when it ended
	Seconds       float64            `json:"seconds"`
	ServerVersion string             `json:"server_version"`
	Throwaway     bool               `json:"throwaway"`
	Databases     []drilledDatabase  `json:"databases"`
	Problems      []drillProblemJSON `json:"problems"`
	Notes         []string           `json:"notes"`
}

type drilledDatabase struct {
	Name     string  `json:"name"`
	Mode     string  `json:"mode"`
	Result   string  `json:"result"` // ok, not restorable or different
	Compared bool    `json:"compared"`
	Tables   int64   `json:"tables"`
	Rows     int64   `json:"rows"`
	Indexes  int64   `json:"indexes"`
	Seconds  float64 `json:"seconds"`
}

type drillProblemJSON struct {
	Kind     string `json:"kind"`
	Database string `json:"database,omitempty"`
	Object   string `json:"object,omitempty"`
	Text     string `json:"text"`
}

func newDrillJSON(r drill.Result, record backupset.Drill) *drillJSON {
	j := &drillJSON{
		Result: record.Result, At: record.Finished(), Seconds: record.Seconds, ServerVersion: r.Server, Throwaway: r.Throwaway,
		Databases: []drilledDatabase{}, Problems: []drillProblemJSON{}, Notes: record.Notes,
	}
	for _, d := range r.Databases {
		j.Databases = append(j.Databases, drilledDatabase{
			Name: d.Name, Mode: string(d.Mode), Result: resultOf(r, d), Compared: d.Compared, Tables: d.Tables, Rows: d.Rows,
			Indexes: d.Indexes, Seconds: d.Took.Seconds(),
		})
	}
	for _, p := range r.Problems {
		j.Problems = append(j.Problems, drillProblemJSON{string(p.Kind), p.Database, p.Object, p.Text})
	}
	return j
}

// resultOf sums up how a database came back.
func resultOf(r drill.Result, d drill.Database) string {
	if !d.Restored {
		return "not restorable"
	}
	for _, p := range r.Problems {
		if p.Database == d.Name {
			return "different"
		}
	}
	return "ok"
}

// printDrill prints a line for each database, and a last one for the set when
// all is well; what is not is the command's error.
func (a *application) printDrill(s *settings, verified verifiedJSON, r drill.Result) error {
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(verified)
	}
	if len(r.Databases) == 0 {
		return nil
	}
	t := console.NewTable(console.NameColumns, "DATABASE", "FORMAT", ">TABLES", ">ROWS", ">INDEXES", ">TIME", "RESULT")
	for _, d := range r.Databases {
		rows := "-" // nobody counted them
		if d.Compared {
			rows = strconv.FormatInt(d.Rows, 10)
		}
		t.Add(pgname.Printable(d.Name), string(d.Mode), strconv.FormatInt(d.Tables, 10), rows,
			strconv.FormatInt(d.Indexes, 10), console.ShortTime(d.Took.Seconds()), resultOf(r, d))
	}
	if err := t.Print(a.stdout); err != nil {
		return err
	}
	p := &printer{w: a.stdout}
	for _, note := range r.Notes {
		p.wrapped("note: ", note)
	}
	if verified.Result == "ok" {
		p.line("%s drilled: %s (%s)", r.Set, drillText(r), roughTime(r.Took))
	}
	return p.err
}

// drillText says what a drill without problems proved.
func drillText(r drill.Result) string {
	text := fmt.Sprintf("%s restored into PostgreSQL %s", plural(len(r.Databases), "database"), r.Server)
	if tables, rows := r.Compared(); tables > 0 {
		text += fmt.Sprintf("; %s with %s are what was captured", plural(int(tables), "table"), plural(int(rows), "row"))
	}
	return text
}

// drilled is the newest drill of a set, as list and show tell it.
type drilled struct {
	At      time.Time `json:"at"` // when it ended
	Result  string    `json:"result"`
	Seconds float64   `json:"seconds"`
}

// lastDrill is nil where a set was never drilled.
func lastDrill(drills backupset.Drills, set string) *drilled {
	last, ok := drills.Last(set)
	if !ok {
		return nil
	}
	return &drilled{At: last.Finished().UTC().Truncate(time.Second), Result: last.Result, Seconds: last.Seconds}
}

func (d *drilled) String() string {
	day := d.At.Format(time.DateOnly)
	if d.Result != backupset.DrillOK {
		return "DRILL FAILED " + day
	}
	return fmt.Sprintf("drilled %s, %s", day, roughTime(time.Duration(d.Seconds*float64(time.Second))))
}

// roughTime is a time as people say it: 41 s, 14 min, 3 h 5 min.
func roughTime(d time.Duration) string {
	switch minutes := int(d.Round(time.Minute) / time.Minute); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(1, int(d.Round(time.Second)/time.Second)))
	case minutes < 120:
		return fmt.Sprintf("%d min", minutes)
	default:
		return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
	}
}

// readDrills reads the records of a set, or of all, and passes on what the
// operator should know.
func (a *application) readDrills(ctx context.Context, st store.Store, set string) (backupset.Drills, error) {
	drills, notes, err := backupset.ReadDrills(ctx, st, set)
	for _, note := range notes {
		a.log.Warn(note)
	}
	return drills, err
}
