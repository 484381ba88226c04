package pgcopy

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// Difference is a table of a restored database whose rows are not those that
// were captured.
type Difference struct {
	Table string // "large objects" for those
	Text  string
}

// Compare reads the tables of a database back, the way they were captured, and
// compares rows and digests with what the capture counted. It must be restored
// whole, and nobody may write to it. moved is told of bytes, by several goroutines.
func Compare(ctx context.Context, endpoint *pg.Endpoint, database string, c *backupset.Contents, sessions int, moved func(bytes int64)) ([]Difference, error) {
	shapes, err := shapesOf(ctx, endpoint, database)
	if err != nil {
		return nil, err
	}
	k := &comparison{shapes: shapes, contents: c, moved: moved, limits: ordinary()}
	return k.run(ctx, endpoint, database, sessions)
}

func (k *comparison) run(ctx context.Context, endpoint *pg.Endpoint, database string, sessions int) ([]Difference, error) {
	jobs := make(chan func(ctx context.Context, s *pg.Stream) error)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(jobs)
		for _, job := range k.jobs() {
			select {
			case jobs <- job:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range max(sessions, 1) {
		group.Go(func() error {
			stream, err := endpoint.ConnectStream(ctx, database)
			if err != nil {
				return err
			}
			defer stream.Close(ctx) //nolint:errcheck // read-only
			if err := stream.BeginSnapshot(ctx); err != nil {
				return err
			}
			for job := range jobs {
				if err := job(ctx, stream); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(k.differences, func(a, b Difference) int { return compareText(a.Table, b.Table) })
	return k.differences, nil
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func shapesOf(ctx context.Context, endpoint *pg.Endpoint, database string) (map[pgname.Table]*pg.Shape, error) {
	conn, err := endpoint.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx) //nolint:errcheck // read-only
	all, err := conn.Shapes(ctx)
	if err != nil {
		return nil, err
	}
	shapes := make(map[pgname.Table]*pg.Shape, len(all))
	for i := range all {
		shapes[all[i].Table] = &all[i]
	}
	return shapes, nil
}

type comparison struct {
	shapes   map[pgname.Table]*pg.Shape
	contents *backupset.Contents
	moved    func(int64)
	limits   limits

	mu          sync.Mutex
	differences []Difference
}

func (k *comparison) differ(table, format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.differences = append(k.differences, Difference{table, fmt.Sprintf(format, args...)})
}

// compared is what is read in one go: a table, or all partitions that are loaded through
// one parent, in which a row may lie elsewhere now.
type compared struct {
	name   string
	tables []*backupset.ChunkedTable
}

func (k *comparison) jobs() []func(ctx context.Context, s *pg.Stream) error {
	var groups []*compared
	via := map[backupset.Via]*compared{}
	for i := range k.contents.Tables {
		t := &k.contents.Tables[i]
		if t.Via == nil {
			groups = append(groups, &compared{printable(t), []*backupset.ChunkedTable{t}})
			continue
		}
		g := via[*t.Via]
		if g == nil {
			g = &compared{name: pgname.Table{Schema: t.Via.Schema, Name: t.Via.Name}.Printable()}
			via[*t.Via] = g
			groups = append(groups, g)
		}
		g.tables = append(g.tables, t)
	}
	slices.SortStableFunc(groups, func(a, b *compared) int { return int(b.rows() - a.rows()) })
	var jobs []func(ctx context.Context, s *pg.Stream) error
	for _, g := range groups {
		jobs = append(jobs, func(ctx context.Context, s *pg.Stream) error { return k.compare(ctx, s, g) })
	}
	if lo := k.contents.LargeObjects; lo != nil {
		for i := range lo.Data {
			jobs = append(jobs, func(ctx context.Context, s *pg.Stream) error { return k.compareBlobs(ctx, s, &lo.Data[i]) })
		}
	}
	return jobs
}

func (g *compared) rows() int64 {
	n := int64(0)
	for _, t := range g.tables {
		n += t.Rows
	}
	return n
}

// compare reads a group and compares the sums.
func (k *comparison) compare(ctx context.Context, s *pg.Stream, g *compared) error {
	var want, got digest
	for _, t := range g.tables {
		sum, _ := backupset.ParseDigest(t.Digest) // validated
		want.addAll(digest{t.Rows, sum})
		shape, ok := k.shapes[pgname.Table{Schema: t.Schema, Name: t.Name}]
		if !ok {
			k.differ(printable(t), "the table is not there")
			return nil
		}
		one, err := k.digest(ctx, s, t, shape)
		if err != nil && pg.IsRefused(err) {
			k.differ(printable(t), "it cannot be read: %v", err)
			return nil
		}
		if err != nil {
			return err
		}
		got.addAll(one)
	}
	switch {
	case got.rows != want.rows:
		k.differ(g.name, "it has %d rows, and %d were captured", got.rows, want.rows)
	case got.sum != want.sum:
		k.differ(g.name, "its %d rows are not those that were captured: their digest is %016x, and not %016x", got.rows, got.sum, want.sum)
	}
	return nil
}

// digest reads a table the way it was captured.
func (k *comparison) digest(ctx context.Context, s *pg.Stream, t *backupset.ChunkedTable, shape *pg.Shape) (digest, error) {
	reading := *shape
	reading.Columns, reading.Where = t.Columns, t.Where
	w := &worker{stream: s, limits: k.limits}
	one := &table{Shape: &reading, binary: t.Format == formatBinary}
	condition := ""
	isWide := fmt.Sprintf("%s > %d", t.WideBytes, t.WideOver)
	if t.WideOver > 0 {
		condition = "NOT " + isWide
	}
	sum := &summing{messages: newMessages(t.Format), moved: k.moved}
	err := s.Released(ctx, func() error {
		_, err := s.CopyOut(ctx, "read table "+printable(t), w.copySQL(one, extent{}, true, condition), sum)
		return err
	})
	if err != nil || t.WideOver == 0 {
		return sum.digest, err
	}
	return k.wide(ctx, w, one, isWide, sum.digest)
}

// wide adds the rows that were captured column by column.
func (k *comparison) wide(ctx context.Context, w *worker, t *table, isWide string, sum digest) (digest, error) {
	err := w.stream.Released(ctx, func() error {
		ids, err := w.stream.Rows(ctx, "look for wide rows", "SELECT ctid"+w.from(t, extent{}, true, isWide))
		if err != nil {
			return err
		}
		for _, id := range ids {
			one, err := w.digestRow(ctx, t, id[0], k.moved)
			if err != nil {
				return err
			}
			sum.rows++
			sum.sum += one
		}
		return nil
	})
	return sum, err
}

// summing takes a stream for its digest alone.
type summing struct {
	*messages
	moved func(int64)
}

// Message implements pg.CopyReceiver.
func (s *summing) Message(piece []byte, last bool) error {
	s.add(piece, last)
	if s.moved != nil {
		s.moved(int64(len(piece)))
	}
	return nil
}

func (s *summing) add(piece []byte, last bool) { s.messages.add(piece, last) }

// compareBlobs compares the large objects of one chunk.
func (k *comparison) compareBlobs(ctx context.Context, s *pg.Stream, c *backupset.Chunk) error {
	sum := &summing{messages: newMessages(formatBinary), moved: k.moved}
	err := s.Released(ctx, func() error {
		_, err := s.CopyOut(ctx, "read large objects", blobsSQL(c.FirstOID, c.LastOID), sum)
		return err
	})
	if err != nil {
		return err
	}
	if sum.rows != c.Rows || backupset.FormatDigest(sum.sum) != c.Digest {
		k.differ("large objects", "those from %d to %d are not what was captured", c.FirstOID, c.LastOID)
	}
	return nil
}
