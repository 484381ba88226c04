package pgcopy

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
	"dbbackup/internal/report"
)

// What the server cannot read of a table fails the capture, which says where it is;
// or, when that was asked for, is left out and declared: chunks are cut until the
// damage is in one page, and of that the rows are read one by one.

// Lost is what of a table the server could not read.
type Lost struct {
	Table  pgname.Table
	Blocks []uint32 // of which nothing could be read, not even how many rows they have
	Rows   []string // ctids of rows that could not be read
	Reason string   // the first error
}

// String lists some of it.
func (l Lost) String() string {
	const shown = 10
	var parts []string
	if len(l.Blocks) > 0 {
		parts = append(parts, listed("block", l.Blocks, shown))
	}
	if len(l.Rows) > 0 {
		parts = append(parts, listed("row", l.Rows, shown))
	}
	return strings.Join(parts, " and ")
}

func listed[T any](what string, all []T, shown int) string {
	if len(all) > 1 {
		what += "s"
	}
	var some []string
	for _, one := range all[:min(len(all), shown)] {
		some = append(some, fmt.Sprint(one))
	}
	text := fmt.Sprintf("%d %s (%s", len(all), what, strings.Join(some, ", "))
	if len(all) > shown {
		text += ", and others"
	}
	return text + ")"
}

// isDamage reports whether the server could not read what it has: data that is
// corrupt, an internal error that comes of it, or a device that fails.
func isDamage(err error) bool {
	const ioError = "58030"
	state := pg.SQLState(err)
	return strings.HasPrefix(state, "XX") || state == ioError
}

// canBeCut reports whether damage that a read met can be found by reading parts.
func (w *worker) canBeCut(t *table, err error) bool {
	return isDamage(err) && t.ranges && !w.stream.Lost()
}

// locate says where in a table a read fails, as exactly as can be found out:
// damage in one block must not look like damage of the table.
func (w *worker) locate(ctx context.Context, t *table, e extent, err error) error {
	err = fmt.Errorf("table %s: %w", t.Printable(), err)
	if !w.canBeCut(t, err) {
		return err
	}
	for e.pages() > 1 && ctx.Err() == nil {
		half := extent{e.first, e.first + e.pages()/2}
		if w.readable(ctx, t, half) {
			half = extent{half.end, e.end}
			if w.readable(ctx, t, half) {
				break
			}
		}
		e = half
	}
	const hint = "repair the table or restore it from an older set; --salvage captures all that the server can read, and lists the rest"
	if e.pages() == 1 {
		return fault.New(fault.Failed, hint, "the damage is in block %d of it: %w", e.first, err)
	}
	return fault.New(fault.Failed, hint, "the damage is in its blocks %d to %d: %w", e.first, e.end-1, err)
}

// readable reports whether an extent can be read.
func (w *worker) readable(ctx context.Context, t *table, e extent) bool {
	return w.tryReading(ctx, w.copySQL(t, e, false, "")) == nil
}

// tryReading reads what nobody wants.
func (w *worker) tryReading(ctx context.Context, sql string) error {
	return w.stream.Released(ctx, func() error {
		_, err := w.stream.CopyOut(ctx, "look for damage", sql, nowhere{})
		return err
	})
}

type nowhere struct{}

// Message implements pg.CopyReceiver.
func (nowhere) Message([]byte, bool) error { return nil }

// salvage captures what can be read of a damaged extent: by further jobs for its
// halves, or, of one page, by leaving out what cannot be read.
func (w *worker) salvage(ctx context.Context, t *table, e extent, open bool, damage error) error {
	if e.pages() > 1 {
		half := e.first + e.pages()/2
		w.c.addChunk(t, region{extent: extent{e.first, half}})
		w.c.addChunk(t, region{extent: extent{half, e.end}, open: open})
		return nil
	}
	return w.salvagePage(ctx, t, e, damage)
}

// salvagePage notes down what is lost when all else is kept: until then the session
// may be lost, too, and the page is looked at again.
func (w *worker) salvagePage(ctx context.Context, t *table, e extent, damage error) error {
	var ids [][]string
	err := w.stream.Released(ctx, func() (err error) {
		ids, err = w.stream.Rows(ctx, "list the rows of a damaged block", "SELECT ctid"+w.from(t, e, false, "")+" ORDER BY ctid")
		return err
	})
	if err != nil {
		if !w.canBeCut(t, err) {
			return err
		}
		w.c.takeNothing(t, e, Lost{Table: t.Table, Blocks: []uint32{e.first}, Reason: err.Error()})
		return nil
	}
	lost := Lost{Table: t.Table}
	var without []string
	for _, id := range ids {
		err := w.tryReading(ctx, w.rowSQL(t, id[0], t.Columns, t.format()))
		switch {
		case err == nil || pg.IsTooLarge(err) && !w.stream.Lost():
		case w.canBeCut(t, err):
			lost.Rows = append(lost.Rows, id[0])
			lost.Reason = cmp.Or(lost.Reason, err.Error())
			without = append(without, pgname.Literal(id[0])+"::tid")
		default:
			return err
		}
	}
	switch len(lost.Rows) {
	case 0: // whatever it was, it cannot be left out
		return fmt.Errorf("table %s, block %d: %w", t.Printable(), e.first, damage)
	case len(ids):
		w.c.takeNothing(t, e, lost)
		return nil
	}
	var chunk backupset.Chunk
	var objects []backupset.Object
	err = w.stream.Released(ctx, func() (err error) {
		chunk, objects, err = w.readNarrow(ctx, t, e, false, "ctid <> ALL (ARRAY["+strings.Join(without, ", ")+"])")
		return err
	})
	if err != nil {
		return fmt.Errorf("table %s, block %d: %w", t.Printable(), e.first, err)
	}
	if err := w.c.keep(ctx, []result{{t, chunk}}, objects); err != nil {
		return err
	}
	w.c.lose(lost)
	return nil
}

// takeNothing adds the chunk of an extent of which no row can be read. It is not kept
// for a further attempt, which is to look again.
func (c *capture) takeNothing(t *table, e extent, lost Lost) {
	chunk := emptyChunk(c.req.Codec.String())
	chunk.FirstPage, chunk.EndPage = e.first, e.end
	c.take(t, chunk)
	c.lose(lost)
}

// lose notes down what cannot be read of a table, and says so.
func (c *capture) lose(l Lost) {
	c.report.Warn("the server cannot read a part of a table: it is left out", report.F("database", c.req.Database),
		report.F("table", l.Table.Printable()), report.F("what", l.String()), report.F("because", l.Reason))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.captured.Lost {
		if all := &c.captured.Lost[i]; all.Table == l.Table {
			all.Blocks, all.Rows = append(all.Blocks, l.Blocks...), append(all.Rows, l.Rows...)
			return
		}
	}
	c.captured.Lost = append(c.captured.Lost, l)
}
