package restore

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
)

// analyze collects statistics, by as many sessions as loaded. What goes wrong is
// only said: the data is there without them, and autovacuum comes by.
func (p *Plan) analyze(ctx context.Context, database string) {
	if !p.o.Analyze || p.o.SchemaOnly {
		return
	}
	p.o.Report.Info("collecting statistics", report.F("database", database))
	if err := p.analyzeAll(ctx, database); err != nil {
		p.o.Report.Warn("collecting statistics broke off", report.F("database", database), report.F("because", err))
	}
}

func (p *Plan) analyzeAll(ctx context.Context, database string) error {
	conn, err := p.o.Target.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	tables, err := conn.TablesToAnalyze(ctx)
	if err != nil {
		return err
	}
	var taken atomic.Int64
	next := func() (t pgname.Table, ok bool) {
		i := taken.Add(1) - 1
		if i >= int64(len(tables)) {
			return t, false
		}
		return tables[i], true
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.analyzeBy(groupCtx, conn, database, next) })
	for range min(p.o.Jobs, len(tables)) - 1 {
		group.Go(func() error {
			conn, err := p.o.Target.Connect(groupCtx, database)
			if err != nil {
				return nil //nolint:nilerr // the others do its share
			}
			defer conn.Close(ctx) //nolint:errcheck // as above
			return p.analyzeBy(groupCtx, conn, database, next)
		})
	}
	return group.Wait()
}

// analyzeBy analyzes tables in one session until there are no more.
func (p *Plan) analyzeBy(ctx context.Context, conn *pg.Conn, database string, next func() (pgname.Table, bool)) error {
	for {
		t, ok := next()
		if !ok {
			return nil
		}
		err := conn.Analyze(ctx, t)
		if pg.Lost(err) || ctx.Err() != nil {
			return err
		}
		if err != nil { // an expression of an index may need a search path
			p.o.Report.Warn("no statistics on a table", report.F("table", t.Printable()), report.F("database", database), report.F("because", err))
		}
	}
}
