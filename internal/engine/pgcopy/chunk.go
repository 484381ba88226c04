package pgcopy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// part hashes what of an object belongs to one stream, and counts it as stored.
type part struct {
	out *object
	sum hash.Hash
}

func newPart(out *object) *part { return &part{out, sha256.New()} }

func (p *part) Write(b []byte) (int, error) {
	n, err := p.out.Write(b)
	if p.out.shared {
		p.sum.Write(b[:n])
	}
	p.out.count(n)
	return n, err
}

// digest is that of the stream's bytes; nothing when the object holds no other.
func (p *part) digest() string {
	if !p.out.shared {
		return ""
	}
	return hex.EncodeToString(p.sum.Sum(nil))
}

// chunk reads an extent of a table into an object of its own.
func (w *worker) chunk(ctx context.Context, t *table, e extent, open bool) error {
	chunk, objects, err := w.readChunk(ctx, t, e, open)
	if w.c.req.Salvage && w.canBeCut(t, err) {
		return w.salvage(ctx, t, e, open, err)
	}
	if err != nil {
		return err
	}
	return w.c.keep(ctx, []result{{t, chunk}}, objects)
}

// readChunk reads an extent; where a row is too wide for the server, in two parts.
func (w *worker) readChunk(ctx context.Context, t *table, e extent, open bool) (chunk backupset.Chunk, objects []backupset.Object, err error) {
	released := w.stream.Released(ctx, func() error {
		chunk, objects, err = w.readNarrow(ctx, t, e, open, "")
		return err
	})
	if err == nil {
		err = released
	}
	if w.tooLarge(err) && !w.stream.Lost() {
		wide, wideObjects, wideErr := w.readWide(ctx, t, e, open)
		if !errors.Is(wideErr, errNotWide) {
			return wide, wideObjects, wideErr
		}
	}
	if err == nil || w.stream.Lost() || w.c.req.Salvage && w.canBeCut(t, err) {
		return chunk, objects, err
	}
	return chunk, nil, w.locate(ctx, t, e, err)
}

// readNarrow reads the rows of an extent that meet a condition.
func (w *worker) readNarrow(ctx context.Context, t *table, e extent, open bool, condition string) (backupset.Chunk, []backupset.Object, error) {
	out, err := w.open(ctx)
	if err != nil {
		return backupset.Chunk{}, nil, err
	}
	defer out.Abort() //nolint:errcheck // after a commit this does nothing; else the store cleans up
	piece, err := w.copyOut(ctx, out, t.Printable(), "read table "+t.Printable(), w.copySQL(t, e, open, condition), t.format())
	if err != nil {
		return backupset.Chunk{}, nil, errors.Join(err, out.Abort())
	}
	chunk := backupset.Chunk{Piece: piece, FirstPage: e.first, EndPage: e.end}
	if piece.Rows == 0 && condition == "" { // else it will count rows that lie elsewhere, and has to have an object
		chunk.Piece = emptyChunk(piece.Codec).Piece
		return chunk, nil, out.Abort()
	}
	stored, err := out.Commit()
	if err != nil {
		return backupset.Chunk{}, nil, err
	}
	chunk.SHA256 = stored.SHA256
	return chunk, []backupset.Object{stored}, nil
}

func (t *table) format() string {
	if t.binary {
		return formatBinary
	}
	return formatText
}

// copySQL is the statement that reads an extent. What lies behind the pages
// that the table had when it was locked is younger than the snapshot, so the
// last extent need not have an end.
func (w *worker) copySQL(t *table, e extent, open bool, condition string) string {
	sql := "COPY (SELECT " + strings.Join(quoted(w.stream.Quote, t.Columns), ", ") + w.from(t, e, open, condition) + ") TO STDOUT"
	if t.binary {
		sql += " (FORMAT binary)"
	}
	return sql
}

// from is the FROM clause for an extent.
func (w *worker) from(t *table, e extent, open bool, condition string) string {
	sql := " FROM ONLY " + w.stream.Quote(t.Schema) + "." + w.stream.Quote(t.Name)
	if t.Where != "" {
		return sql + " " + t.Where // as the extension wrote it, WHERE included
	}
	var terms []string
	if t.ranges {
		terms = append(terms, fmt.Sprintf("ctid >= '(%d,0)'::tid", e.first))
		if !open {
			terms = append(terms, fmt.Sprintf("ctid < '(%d,0)'::tid", e.end))
		}
	}
	if condition != "" {
		terms = append(terms, condition)
	}
	if len(terms) > 0 {
		sql += " WHERE " + strings.Join(terms, " AND ")
	}
	return sql
}

func quoted(quote func(string) string, names []string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		all[i] = quote(name)
	}
	return all
}

// small is a table, or a part of one, that shares an object with others.
type small struct {
	t *table
	extent
}

// pack reads several small extents into one object.
func (w *worker) pack(ctx context.Context, parts []small) error {
	var results []result
	var objects []backupset.Object
	err := w.stream.Released(ctx, func() (err error) {
		results, objects, err = w.readPack(ctx, parts)
		return err
	})
	if err != nil && !w.stream.Lost() && ctx.Err() == nil && pg.IsRefused(err) && !pg.IsLockTimeout(err) {
		w.c.unpack(parts) // one of them is a case of its own
		return nil
	}
	if err != nil {
		return err
	}
	return w.c.keep(ctx, results, objects)
}

// unpack lets each extent be read into an object of its own, by jobs that can be
// done again one by one.
func (c *capture) unpack(parts []small) {
	for _, s := range parts {
		c.addChunk(s.t, region{extent: s.extent, open: true})
	}
}

func (w *worker) readPack(ctx context.Context, parts []small) ([]result, []backupset.Object, error) {
	out, err := w.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer out.Abort() //nolint:errcheck // after a commit this does nothing; else the store cleans up
	out.shared = true
	var results []result
	stored := false
	for _, s := range parts {
		step := "read table " + s.t.Printable()
		piece, err := w.copyOut(ctx, out, s.t.Printable(), step, w.copySQL(s.t, s.extent, true, ""), s.t.format())
		if err != nil {
			return nil, nil, err
		}
		if piece.Rows == 0 {
			// Its empty frame stays where it is; nobody reads it.
			piece = emptyChunk(piece.Codec).Piece
		} else {
			stored = true
		}
		results = append(results, result{s.t, backupset.Chunk{Piece: piece, FirstPage: s.first, EndPage: s.end}})
	}
	if !stored {
		return results, nil, out.Abort()
	}
	object, err := out.Commit()
	if err != nil {
		return nil, nil, err
	}
	return results, []backupset.Object{object}, nil
}

// result is a chunk that is durable.
type result struct {
	t     *table
	chunk backupset.Chunk
}

// keep records finished chunks: in the journal, so that an interrupted run can
// be gone on with, in the base for further attempts, and as the table's own.
func (c *capture) keep(ctx context.Context, results []result, objects []backupset.Object) error {
	entry := journalEntry{Objects: objects}
	for _, r := range results {
		entry.Finished = append(entry.Finished, c.asFinished(r))
	}
	if err := c.journal(ctx, entry); err != nil {
		return err
	}
	for i, r := range results {
		c.req.Base.add(entry.Finished[i], objects...)
		c.take(r.t, r.chunk)
	}
	return nil
}

func (c *capture) asFinished(r result) Finished {
	return Finished{
		Identity: c.identity, OID: r.t.OID, Filenode: r.t.Filenode, Fingerprint: r.t.fingerprint(), Format: r.t.format(),
		Horizon: c.snapshot.XMin, LSN: c.snapshot.LSN, Chunk: r.chunk,
	}
}

// It waits until a proof may start from them.
func (c *capture) journal(ctx context.Context, entry journalEntry) error {
	select {
	case <-c.durable:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if len(entry.Objects) == 0 {
		return nil // nothing to save: reading no rows again costs nothing
	}
	text, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	name := objectName(c.req.Folder+"/"+journalFolder, numberOf(entry.Objects[0].Name), ".json")
	return c.set.WriteScratch(ctx, name, text)
}

// take adds a chunk to its table's result.
func (c *capture) take(t *table, chunk backupset.Chunk) {
	c.use(chunk)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.chunks = append(t.chunks, chunk)
	if len(chunk.Wide) > 0 {
		t.wideOver = c.limits.wideOver
	}
}

// use remembers which objects the result lies in.
func (c *capture) use(chunk backupset.Chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	eachPiece(&chunk, func(p *backupset.Piece) {
		if p.Set == "" && p.Object != "" {
			c.usesObject[p.Object] = true
		}
	})
}

// eachPiece calls fn for the pieces of a chunk that hold something.
func eachPiece(chunk *backupset.Chunk, fn func(p *backupset.Piece)) {
	fn(&chunk.Piece)
	for i := range chunk.Wide {
		for j := range chunk.Wide[i].Pieces {
			fn(&chunk.Wide[i].Pieces[j].Piece)
		}
	}
}

// loadSQL is the statement that takes a table's chunks.
func loadSQL(quote func(string) string, into pgname.Table, columns []string, format string) string {
	sql := "COPY " + quote(into.Schema) + "." + quote(into.Name)
	if len(columns) > 0 {
		sql += " (" + strings.Join(quoted(quote, columns), ", ") + ")"
	}
	sql += " FROM STDIN"
	if format == formatBinary {
		sql += " (FORMAT binary)"
	}
	return sql
}
