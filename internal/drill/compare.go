package drill

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgcopy"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
	"dbbackup/restore"
)

// compare reads a chunked database back and compares it with what the capture
// counted. In the other modes nothing did.
func (d *drill) compare(ctx context.Context, endpoint *pg.Endpoint, o restore.Outcome, one *Database) error {
	if o.Source.Mode != backupset.Chunked {
		d.result.Notes = append(d.result.Notes, fmt.Sprintf("rows of database %s were not compared: a capture in mode %s counts none",
			pgname.Printable(one.Name), one.Mode))
		return nil
	}
	contents, err := d.o.Set.Contents(ctx, &o.Source)
	if err != nil {
		return err
	}
	task := d.o.Report.Task("compare "+pgname.Printable(one.Name), o.Source.DumpBytes)
	var read atomic.Int64
	differences, err := pgcopy.Compare(ctx, endpoint, o.Name, contents, d.o.Jobs, func(n int64) { task.Progress(read.Add(n)) })
	task.End(err)
	if err != nil {
		return fmt.Errorf("compare database %s: %w", pgname.Printable(one.Name), err)
	}
	for _, one := range differences {
		d.result.Problems = append(d.result.Problems, Problem{Kind: Differs, Database: o.Source.Name, Object: one.Table, Text: one.Text})
	}
	one.Compared, one.Tables = true, int64(len(contents.Tables))
	for i := range contents.Tables {
		one.Rows += contents.Tables[i].Rows
	}
	return nil
}

// checkIndexes lets amcheck look at every B-tree index. A server without it, and
// a role that may not use it, are noted.
func (d *drill) checkIndexes(ctx context.Context, endpoint *pg.Endpoint, o restore.Outcome, one *Database) error {
	conn, err := endpoint.Connect(ctx, o.Name)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // every statement was acknowledged
	unchecked := func(why string) {
		d.result.Notes = append(d.result.Notes, fmt.Sprintf("indexes of database %s were not checked: %s", pgname.Printable(one.Name), why))
	}
	schema, err := conn.Amcheck(ctx)
	if err != nil && pg.IsRefused(err) {
		unchecked(err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if schema == "" {
		unchecked("the server does not have the extension amcheck")
		return nil
	}
	indexes, err := conn.BTreeIndexes(ctx)
	if err != nil {
		return err
	}
	one.Indexes = int64(len(indexes))
	return d.amcheck(ctx, endpoint, o, schema, indexes)
}

// amcheck checks indexes in several sessions.
func (d *drill) amcheck(ctx context.Context, endpoint *pg.Endpoint, o restore.Outcome, schema string, indexes []pg.Index) error {
	total := int64(0)
	for _, index := range indexes {
		total += index.Bytes
	}
	c := &indexCheck{
		schema: schema, database: o.Source.Name, queue: make(chan pg.Index, len(indexes)),
		task: d.o.Report.Task("indexes of "+pgname.Printable(o.Source.Name), total),
	}
	for _, index := range indexes {
		c.queue <- index
	}
	close(c.queue)
	group, ctx := errgroup.WithContext(ctx)
	for range min(max(d.o.Jobs, 1), max(len(indexes), 1)) {
		group.Go(func() error { return c.session(ctx, endpoint, o.Name) })
	}
	err := group.Wait()
	c.task.End(err)
	d.result.Problems = append(d.result.Problems, c.problems...)
	return err
}

// indexCheck is shared by the sessions that check the indexes of a database.
type indexCheck struct {
	schema   string
	database string // in the set
	queue    chan pg.Index
	task     report.Task
	checked  atomic.Int64 // bytes

	mu       sync.Mutex
	problems []Problem
}

func (c *indexCheck) session(ctx context.Context, endpoint *pg.Endpoint, database string) error {
	conn, err := endpoint.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // only read from
	for index := range c.queue {
		err := conn.CheckIndex(ctx, c.schema, index)
		if err != nil && !pg.IsRefused(err) {
			return err
		}
		if err != nil {
			c.mu.Lock()
			c.problems = append(c.problems, Problem{
				Kind: Corrupt, Database: c.database, Text: err.Error(),
				Object: fmt.Sprintf("index %s of table %s", index.Name.Printable(), index.Table.Printable()),
			})
			c.mu.Unlock()
		}
		c.task.Progress(c.checked.Add(index.Bytes))
	}
	return nil
}
