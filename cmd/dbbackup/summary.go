package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"time"

	"dbbackup/backup"
	"dbbackup/internal/backupset"
	"dbbackup/internal/bytesize"
	"dbbackup/internal/console"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
)

// summary is the result of a backup run, as it is printed, handed to hooks
// and turned into metrics.
type summary struct {
	Set       string               `json:"set,omitempty"` // empty: none was made
	Store     string               `json:"store"`
	Result    string               `json:"result"` // ok, omissions or failed
	ExitCode  int                  `json:"exit_code"`
	Error     string               `json:"error,omitempty"`
	Hints     []string             `json:"hints,omitempty"`
	Started   time.Time            `json:"started"`
	Seconds   float64              `json:"seconds"`
	Stored    int64                `json:"stored_bytes"`
	Behind    []behindSummary      `json:"behind"` // stores that lack the set
	Databases []databaseSummary    `json:"databases"`
	Omissions []backupset.Omission `json:"omissions"`
	Resources backupset.Resources  `json:"resources"`
}

type databaseSummary struct {
	Name        string            `json:"name"`
	Bytes       int64             `json:"database_bytes,omitempty"`
	Mode        string            `json:"mode,omitempty"`
	StoredBytes int64             `json:"stored_bytes,omitempty"`
	Ratio       float64           `json:"compression_ratio,omitempty"`
	Seconds     float64           `json:"seconds,omitempty"`
	Chunks      *backupset.Chunks `json:"chunks,omitempty"` // chunked mode
	PeakRSS     int64             `json:"child_peak_rss_bytes,omitempty"`
	Result      string            `json:"result"` // ok or failed
	Error       string            `json:"error,omitempty"`
}

func summarize(s *settings, r backup.Result, behind []behindSummary, err error, began time.Time) summary {
	sum := summary{
		Set: r.ID, Store: s.storeNames(), Result: "ok", ExitCode: exitCode(err), Started: began.UTC(), Behind: behind,
		Seconds: time.Since(began).Seconds(), Databases: []databaseSummary{}, Omissions: append([]backupset.Omission{}, r.Manifest.Omissions...),
		Resources: r.Manifest.Resources,
	}
	switch {
	case err == nil:
	case errors.Is(err, errBehind):
		sum.Result = "behind"
	case errors.Is(err, errOmissions):
		sum.Result = "omissions"
	default:
		sum.Result, sum.Error, sum.Hints = "failed", err.Error(), fault.Hints(err)
	}
	for _, o := range r.Outcomes {
		d := summarizeDatabase(o)
		sum.Databases, sum.Stored = append(sum.Databases, d), sum.Stored+d.StoredBytes
	}
	return sum
}

func summarizeDatabase(o backup.Outcome) databaseSummary {
	if o.Err != nil {
		return databaseSummary{Name: o.Name, Result: "failed", Error: o.Err.Error()}
	}
	d := o.Captured
	return databaseSummary{
		Name: d.Name, Bytes: d.DatabaseBytes, Mode: string(d.Mode), StoredBytes: d.StoredBytes, Ratio: d.CompressionRatio,
		Seconds: d.Resources.Seconds, PeakRSS: d.Resources.ChildPeakRSSBytes, Chunks: d.Chunks, Result: "ok",
	}
}

// printSummary prints the result to standard output. A run that did not come
// to its databases has only its error, on standard error.
func (a *application) printSummary(s *settings, sum summary) error {
	if s.Bool("json") {
		return json.NewEncoder(a.stdout).Encode(sum)
	}
	if len(sum.Databases) == 0 {
		return nil
	}
	t := console.NewTable(console.NameColumns, "DATABASE", ">SIZE", "FORMAT", ">STORED", ">RATIO", ">MB/s", ">TIME", "RESULT")
	for _, d := range sum.Databases {
		t.Add(d.cells()...)
	}
	if err := t.Print(a.stdout); err != nil {
		return err
	}
	return sum.printEnd(a.stdout)
}

func (d databaseSummary) cells() []string {
	if d.Result != "ok" {
		return []string{pgname.Printable(d.Name), "", "", "", "", "", "", d.Result}
	}
	perSecond := 0.0
	if d.Seconds > 0 {
		perSecond = float64(d.Bytes) / d.Seconds / (1 << 20)
	}
	return []string{pgname.Printable(d.Name), bytesize.Format(d.Bytes), d.Mode, bytesize.Format(d.StoredBytes),
		fmt.Sprintf("%.2f", d.Ratio), fmt.Sprintf("%.4g", math.Round(perSecond*10)/10), console.ShortTime(d.Seconds), d.Result}
}

func (sum summary) printEnd(w io.Writer) error {
	if sum.Set == "" {
		_, err := fmt.Fprintf(w, "\nNo backup set was made.\n")
		return err
	}
	if _, err := fmt.Fprintf(w, "\nBackup set %s: %s in %s\n", sum.Set, bytesize.Format(sum.Stored), console.ShortTime(sum.Seconds)); err != nil {
		return err
	}
	for _, b := range sum.Behind {
		p := &printer{w: w}
		p.wrapped("", fmt.Sprintf("Not in store %s: %s", b.Store, b.Reason))
		p.line("  dbbackup copy %s --from %s --to %s", shellWord(sum.Set), shellWord(b.from), shellWord(b.Store))
		if p.err != nil {
			return p.err
		}
	}
	for _, d := range sum.Databases {
		if c := d.Chunks; c != nil && c.Reused > 0 {
			if _, err := fmt.Fprintf(w, "%s: %d of %s proven unchanged (%s)\n", pgname.Printable(d.Name), c.Reused,
				plural(int(c.Count), "chunk"), bytesize.Format(c.ReusedBytes)); err != nil {
				return err
			}
		}
	}
	return printOmissions(w, sum.Omissions)
}

// unquoted are the words that mean the same to every shell without quotes.
var unquoted = regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]+$`)

// shellWord is text as a word of a command that a person copies into a shell. The
// URL of a bucket has & and ? in it.
func shellWord(text string) string {
	if unquoted.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func printOmissions(w io.Writer, omissions []backupset.Omission) error {
	if len(omissions) == 0 {
		return nil
	}
	if _, err := fmt.Fprintf(w, "Not in it (%d):\n", len(omissions)); err != nil {
		return err
	}
	p := &printer{w: w}
	for _, o := range omissions {
		where := "cluster"
		if o.Database != "" {
			where = "database " + pgname.Printable(o.Database)
		}
		p.wrapped("  - ", where+": "+o.Object+": "+o.Reason)
	}
	return p.err
}
