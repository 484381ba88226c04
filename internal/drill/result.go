package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
)

// Result is what a drill found.
type Result struct {
	Set       string
	Started   time.Time
	Took      time.Duration
	Server    string // the version of the server that it was restored into
	Throwaway bool
	Databases []Database
	Problems  []Problem
	Notes     []string // what was not looked at, and why
}

// Database is how one database came back.
type Database struct {
	Name     string
	Mode     backupset.Mode
	Restored bool
	Compared bool  // rows and digests, with what the capture counted
	Tables   int64 // compared, or else captured
	Rows     int64 // compared
	Indexes  int64 // checked with amcheck
	Took     time.Duration
}

// Kind says what is wrong.
type Kind string

// The kinds of problems.
const (
	Refused  Kind = "refused"   // the server took the data, and not this object
	Differs  Kind = "differs"   // rows are not those that were captured
	Corrupt  Kind = "corrupt"   // amcheck found an index that does not fit its table
	BrokeOff Kind = "broke off" // the restore of the database ended with an error
)

// Problem is something that did not come back as it was.
type Problem struct {
	Kind     Kind
	Database string // empty: roles and tablespaces
	Object   string
	Text     string // what the server said; values of rows may stand in it
	Err      error  // BrokeOff
}

func (p Problem) String() string {
	parts := []string{}
	if p.Database != "" {
		parts = append(parts, "database "+pgname.Printable(p.Database))
	}
	if p.Object != "" {
		parts = append(parts, p.Object)
	}
	return strings.Join(append(parts, p.Text), ": ")
}

// OK reports whether all came back as it was.
func (r Result) OK() bool { return len(r.Problems) == 0 }

// Compared is how many tables and rows were compared, of all databases.
func (r Result) Compared() (tables, rows int64) {
	for _, d := range r.Databases {
		if d.Compared {
			tables, rows = tables+d.Tables, rows+d.Rows
		}
	}
	return tables, rows
}

// Err is what is wrong with the set: fault.Integrity, unless a restore broke off
// for a reason that has a kind of its own.
func (r Result) Err() error {
	if r.OK() {
		return nil
	}
	kind, verdict, hint := r.verdict()
	const shown = 20
	var b strings.Builder
	fmt.Fprintf(&b, "backup set %s %s", r.Set, verdict)
	for _, p := range r.Problems[:min(len(r.Problems), shown)] {
		fmt.Fprintf(&b, "\n  - %s", strings.ReplaceAll(p.String(), "\n", "\n    "))
	}
	if rest := len(r.Problems) - shown; rest > 0 {
		fmt.Fprintf(&b, "\n  - and %d more", rest)
	}
	return fault.New(kind, hint, "%s", b.String())
}

func (r Result) verdict() (kind fault.Kind, verdict, hint string) {
	has := func(kind Kind) bool {
		return slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Kind == kind })
	}
	switch {
	case has(Differs):
		return fault.Integrity, "was restored, and is not what was captured:", "restore from another set until this is explained"
	case has(Corrupt):
		return fault.Integrity, "was restored, and its indexes do not fit their tables:",
			"look on the source for a function that is not as immutable as it says, or an operator class at odds with itself: such an index hides rows there, too"
	case has(Refused):
		hint = "mend the named objects on the source and back up again; a restore of this set brings back all the rest"
		if r.Throwaway {
			hint += "; if it is the throwaway server that lacks something, such as a preloaded library, name one that has it with --drill-target"
		}
		return fault.Integrity, "is readable but not restorable:", hint
	}
	for _, p := range r.Problems {
		if kind == fault.Failed {
			kind = fault.KindOf(p.Err)
		}
	}
	return kind, "could not be restored:", ""
}

// Record is the result as it is kept beside the set: without the details of what
// a server said.
func (r Result) Record(host string, tool backupset.Tool) backupset.Drill {
	d := backupset.Drill{
		Set: r.Set, Result: backupset.DrillOK, Started: r.Started.UTC(), Seconds: r.Took.Seconds(), ServerVersion: r.Server,
		Throwaway: r.Throwaway, Host: host, Tool: tool, Databases: []backupset.DrilledDatabase{}, Problems: []backupset.DrillProblem{},
		Notes: append([]string{}, r.Notes...),
	}
	if !r.OK() {
		d.Result = backupset.DrillFailed
	}
	for _, one := range r.Databases {
		d.Databases = append(d.Databases, backupset.DrilledDatabase{
			Name: one.Name, Mode: one.Mode, Compared: one.Compared, Tables: one.Tables, Rows: one.Rows,
			Indexes: one.Indexes, Seconds: one.Took.Seconds(),
		})
	}
	const kept = 1000
	for _, p := range r.Problems[:min(len(r.Problems), kept)] {
		d.Problems = append(d.Problems, backupset.DrillProblem{Database: p.Database, Object: p.Object, Text: p.recorded()})
	}
	return d
}

// recorded is the problem without keys and rows, which stand in the details of
// a server's message. It is not what decides about anything.
func (p Problem) recorded() string {
	if p.Kind == Differs {
		return p.Text
	}
	text, _, _ := strings.Cut(p.Text, " (") // pgtool and pg put the details, or SQLSTATE and details, behind it
	return text
}
