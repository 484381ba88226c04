package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/engine/pgdump"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
)

// captureDatabases captures every planned database, several at a time, and
// returns how each ended, in the order of the plan. One that fails does not
// end the others; an interrupted run ends them all.
func (r *run) captureDatabases(ctx context.Context) []Outcome {
	outcomes := make([]Outcome, len(r.plans))
	var expected int64
	for _, p := range r.plans {
		expected += p.expected
	}
	r.o.Report.Tasks(len(r.plans), expected)
	var group errgroup.Group
	group.SetLimit(r.parallel())
	for i, p := range r.plans {
		group.Go(func() error {
			outcomes[i] = r.captureOne(ctx, p)
			return nil
		})
	}
	_ = group.Wait() // the errors are in the outcomes
	return outcomes
}

func (r *run) captureOne(ctx context.Context, p plan) Outcome {
	name := p.database.Name
	if p.problem != nil {
		return Outcome{Name: name, Err: p.problem}
	}
	if ctx.Err() != nil {
		return Outcome{Name: name, Err: fmt.Errorf("database %s: not begun: %w", pgname.Printable(name), context.Cause(ctx))}
	}
	r.o.Report.Info("capture begins", report.F("database", name), report.F("mode", string(p.mode)), report.F("why", p.why))
	task := r.o.Report.Task(name, p.expected)
	captured, err := r.captureAndDescribe(ctx, p, task)
	task.End(err)
	if err != nil {
		return Outcome{Name: name, Err: err}
	}
	return Outcome{Name: name, Captured: captured}
}

// captureAndDescribe writes the dump and, when that is whole, the database's
// own properties. What was written of a database that fails is removed.
func (r *run) captureAndDescribe(ctx context.Context, p plan, task report.Task) (*backupset.Database, error) {
	began := r.o.Now()
	captured, attempts, err := r.attempts(ctx, p, task)
	if err != nil {
		return nil, err
	}
	task.Progress(captured.StoredBytes + captured.referredBytes)
	d := r.describe(p, captured)
	r.refer(captured.references)
	d.Started, d.Finished, d.Attempts = began.UTC(), r.o.Now().UTC(), attempts
	d.Resources = databaseResources(captured.Captured, d.Finished.Sub(d.Started))
	if err := r.writeProperties(ctx, p, d); err != nil {
		return nil, errors.Join(err, r.set.Drop(context.WithoutCancel(ctx), d.Dump, d.Properties, d.Create))
	}
	r.declareLost(p.database.Name, captured.lost)
	return d, nil
}

// attempts captures one database, again when the server was lost meanwhile.
func (r *run) attempts(ctx context.Context, p plan, task report.Task) (captured, int, error) {
	capture := r.captureOnce(ctx, p, task)
	begins := "from its beginning"
	if p.mode == backupset.Chunked {
		begins = "from the chunks that are there"
	}
	var c captured
	attempts, err := r.again(ctx, []report.Field{report.F("database", p.database.Name), report.F("begins", begins)}, func() (err error) {
		c, err = capture()
		return err
	})
	return c, attempts, err
}

// again captures something, once more when the server was lost meanwhile, and
// returns how often. The fields say what it is.
func (r *run) again(ctx context.Context, fields []report.Field, capture func() error) (attempts int, err error) {
	for attempt := 1; ; attempt++ {
		err := capture()
		if err == nil || attempt >= r.attemptsFor(err) || !fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return attempt, err
		}
		wait := retryPause(attempt)
		r.o.Report.Warn("the capture is tried again", append(slices.Clone(fields),
			report.F("attempt", attempt+1), report.F("in", wait.Round(100*time.Millisecond)), report.F("because", err))...)
		select {
		case <-ctx.Done():
			return attempt, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// captured is a finished capture of either engine.
type captured struct {
	pgdump.Captured
	chunks        *backupset.Chunks
	timeline      int64
	references    []backupset.Reference
	referredBytes int64 // that older sets store
	lost          []pgcopy.Lost
}

// captureOnce returns the function for one attempt at a database.
func (r *run) captureOnce(ctx context.Context, p plan, task report.Task) func() (captured, error) {
	if p.mode == backupset.Chunked {
		return r.captureChunks(ctx, p, task)
	}
	src := pgdump.Source{Endpoint: r.o.Source, Tools: r.tools, Standby: r.server.Standby}
	return func() (captured, error) {
		c, err := pgdump.Capture(ctx, src, r.request(p), r.set, r.o.Report, task)
		return captured{Captured: c}, err
	}
}

// retryPause is 2 s, 4 s, 8 s and so on, less up to a half, so that several
// databases do not come back all at once.
func retryPause(attempt int) time.Duration {
	wait := 2 * time.Second << min(attempt-1, 5)
	return wait/2 + rand.N(wait/2)
}

func (r *run) request(p plan) pgdump.Request {
	return pgdump.Request{
		Database: p.database.Name, Mode: p.mode, Name: objectBase(p.database.Name),
		Level: p.settings.Level, Jobs: r.o.Jobs, Procs: r.o.Procs,
		Expected: p.expected, Free: r.free(),
		WithoutData: p.without, SkipLargeObjects: p.settings.SkipLargeObjects,
		LockTimeout: p.settings.LockTimeout, Limit: p.settings.Limit, Stall: p.settings.Stall,
	}
}

func objectBase(database string) string { return "databases/" + pgname.File(database) }

func (r *run) describe(p plan, c captured) *backupset.Database {
	d, inv := p.database, p.inventory
	base := objectBase(d.Name)
	return &backupset.Database{
		Name: d.Name, Mode: p.mode, Why: p.why, Dump: c.Dump,
		Properties: base + ".properties.json", Create: base + ".create.sql", Selection: p.selection,
		Owner: d.Owner, Encoding: d.Encoding, LocaleProvider: d.Provider, Collate: d.Collate, CType: d.CType,
		Locale: d.Locale, Tablespace: d.Tablespace, Template: d.Template,
		Roles: notNil(inv.Roles), Tablespaces: notNil(inv.Tablespaces), Extensions: notNil(inv.Extensions),
		Snapshot: backupset.Snapshot{
			XMin: c.Snapshot.XMin, XMax: c.Snapshot.XMax, XIP: notNil(c.Snapshot.XIP),
			LSN: c.Snapshot.LSN, Time: c.Snapshot.Time.UTC(), Timeline: c.timeline,
		},
		Chunks: c.chunks, UnreadableTables: int64(len(c.lost)),
		DatabaseBytes: d.Bytes, Tables: int64(p.tables), LargeObjects: inv.LargeObjects,
		LargeObjectBytes: inv.LargeObjectBytes, EstimatedRows: inv.EstimatedRows,
		DumpBytes: c.DumpBytes, StoredBytes: c.StoredBytes,
		Compression: p.compression(), CompressionRatio: ratio(c.StoredBytes+c.referredBytes, d.Bytes),
		DumpTool: backupset.Tool{Name: "pg_dump", Version: r.tools.Version.String()},
	}
}

func (p plan) compression() string {
	switch {
	case p.mode == backupset.Chunked:
		return p.settings.Codec.String()
	case p.settings.Level == 0:
		return "none"
	}
	return fmt.Sprintf("gzip:%d", p.settings.Level)
}

func ratio(stored, size int64) float64 {
	if size <= 0 {
		return 0
	}
	return float64(stored) / float64(size)
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// writeProperties stores what belongs to the database and not to its content:
// as JSON for this tool, and as SQL for a restore without it.
func (r *run) writeProperties(ctx context.Context, p plan, d *backupset.Database) error {
	text, err := json.MarshalIndent(p.database, "", "  ")
	if err != nil {
		return fmt.Errorf("properties of database %s: %w", pgname.Printable(d.Name), err)
	}
	if err := r.set.WriteFile(ctx, d.Properties, append(text, '\n')); err != nil {
		return err
	}
	return r.set.WriteFile(ctx, d.Create, createScript(p.database))
}

// createScript is SQL for psql that makes the database, empty, with all its
// properties.
func createScript(d pg.Database) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "-- Database %s and its properties. Run with psql -X -v ON_ERROR_STOP=1, in another database.\n",
		strings.ReplaceAll(pgname.Printable(d.Name), "\n", " "))
	fmt.Fprintf(&b, "%s;\n", d.CreateSQL(d.Name))
	b.WriteString("BEGIN;\n")
	for _, sql := range d.PropertiesSQL(d.Name, pg.PropertyOptions{Owner: true, Grants: true}) {
		fmt.Fprintf(&b, "%s;\n", sql)
	}
	b.WriteString("COMMIT;\n")
	return b.Bytes()
}

// setPrefix is what a single database's set names begin with.
func setPrefix(database string) string { return pgname.File(database) }
