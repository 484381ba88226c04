package pgcopy

import (
	"context"
	"fmt"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
)

// The proof that a chunk is unchanged. S1 is the snapshot it was captured under,
// H its xmin: every transaction below H had ended by then, and everything that S1
// did not see was done by transactions at or above H. S2 is the snapshot of now.
//
//   - A row version that S2 sees and S1 did not was made by a transaction at or
//     above H. None in the chunk's pages means that S2 sees nothing there that S1
//     did not see.
//   - Row versions can vanish. If S2 sees as many as S1 did, none has.
//
// So S2 sees in these pages exactly what S1 saw. Row versions never change, and
// stay where they are while the table has the same file; what they read as also
// depends on the columns and types, which the fingerprint covers. That S1 and S2 are
// moments of one history is for the identity to say, and that S1 is the earlier one
// for the WAL position.
//
// xmin has 32 bits, and age() compares it with the next transaction id; within
// 2^31 transactions of H that is exact for every row that can be seen, except that
// very old frozen rows may look young, which costs reading and nothing else.

// maxDistance is how many transactions may lie between H and now. The margin is
// for those that begin while the capture runs.
const maxDistance = 1<<31 - 50_000_000

// provable reports whether the proof can be tried on a chunk. Its snapshot must be the
// earlier one: a standby may lag behind the server that the chunk was read from, and
// what that saw beyond it is no younger than the horizon need be.
func (c *capture) provable(f *Finished) bool {
	at := pg.ParseLSN(f.LSN)
	return at > 0 && at <= c.reached && tellable(c.snapshot.Snapshot, f.Horizon)
}

// tellable reports whether age() can tell rows younger than a horizon.
func tellable(now pg.Snapshot, horizon uint64) bool {
	return horizon > 0 && horizon <= now.XMax && now.XMax-horizon < maxDistance
}

// doubt is a region of which a chunk of the base may still hold the rows.
type doubt struct {
	t *table
	region
}

// Doubts are looked at some at a time: the question costs little.
const (
	doubtBytes = 256 << 20
	doubtCount = 100
)

// addDoubts adds the jobs of proving.
func (c *capture) addDoubts(doubts []doubt) {
	for len(doubts) > 0 {
		bytes, n := int64(0), 0
		for n < len(doubts) && n < doubtCount && (n == 0 || bytes < doubtBytes) {
			bytes += int64(doubts[n].pages()) * c.planner.pageBytes // TOAST is not looked at
			n++
		}
		some := doubts[:n:n]
		doubts = doubts[n:]
		c.queue.add(&job{
			bytes: bytes, what: "look for changes in table " + some[0].t.Printable(),
			run: func(ctx context.Context, w *worker) error { return w.settle(ctx, some) },
		})
	}
}

// settle looks at some regions: those that are unchanged are taken over, and
// what has to be read becomes further jobs.
func (w *worker) settle(ctx context.Context, doubts []doubt) error {
	unchanged := make([]bool, len(doubts))
	err := w.stream.Released(ctx, func() error {
		for i, d := range doubts {
			var err error
			if unchanged[i], err = w.unchanged(ctx, d); err != nil {
				return fmt.Errorf("table %s: %w", d.t.Printable(), err)
			}
			w.c.signs.Add(1)
		}
		return nil
	})
	if w.c.req.Salvage && isDamage(err) && !w.stream.Lost() {
		clear(unchanged) // all of them are read, and the damage is found
	} else if err != nil {
		return err
	}
	var parts []small
	for i, d := range doubts {
		parts = append(parts, w.c.resolve(d, unchanged[i])...)
	}
	w.c.addPacks(parts)
	return nil
}

// unchanged asks the server.
func (w *worker) unchanged(ctx context.Context, d doubt) (bool, error) {
	captured := d.candidate.Chunk
	horizon := uint32(d.candidate.Horizon) //nolint:gosec // the low half is what an xid is
	sql := fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE age(xmin) BETWEEN 0 AND age('%d'::xid)), age('%d'::xid)%s",
		horizon, horizon, w.from(d.t, extent{captured.FirstPage, captured.EndPage}, false, ""))
	counts, err := w.stream.Int64s(ctx, "look for changes", sql)
	if err != nil {
		return false, err
	}
	if counts[2] < 0 { // so many transactions since the snapshot that the horizon is ahead now
		return false, nil
	}
	return w.c.proven(captured, counts[0], counts[1]), nil
}

// proven says whether a chunk's pages still hold what was captured, if rows are
// visible in them, and born of these are not older than its horizon.
func proven(captured backupset.Chunk, rows, born int64) bool {
	return rows == captured.Rows && born == 0
}

// resolve acts on what was found, and returns the small parts that have to be read.
func (c *capture) resolve(d doubt, unchanged bool) []small {
	captured := d.candidate.Chunk
	rest := d.region
	if unchanged {
		c.reuse(d.t, captured)
		if rest.end <= captured.EndPage || !d.t.ranges {
			return nil
		}
		rest.first = captured.EndPage
	}
	if !d.t.ranges {
		rest.candidate = nil
		c.addChunk(d.t, rest)
		return nil
	}
	var parts []small
	for _, r := range c.planner.fresh(rest.extent, d.t.bytesPerPage, rest.open) {
		if c.isSmall(d.t, r.extent) && r.open {
			parts = append(parts, small{d.t, r.extent})
			continue
		}
		c.addChunk(d.t, r)
	}
	return parts
}

// reuse takes a chunk over.
func (c *capture) reuse(t *table, chunk backupset.Chunk) {
	c.stored.Add(chunk.Bytes)
	c.take(t, chunk)
}
