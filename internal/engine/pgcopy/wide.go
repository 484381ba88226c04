package pgcopy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// The server builds a row's message in memory, in at most 1 GB. Where that was
// too much, rows that may be why are captured one by one: as a whole, or, when that
// is refused, column by column, each as a stream of one row. They are
// loaded by way of as many temporary tables. A value that is too
// large even for that, bytes that text form would double among them, is read
// slice by slice.
const (
	wideOver   = 256 << 20 // bytes from which a row is wide
	sliceBytes = 32 << 20
)

// errNotWide means that no row of the extent is wide: something else is wrong.
var errNotWide = errors.New("no row is wide")

// readWide reads an extent in two parts: the narrow rows in one stream, and
// each wide row by itself.
func (w *worker) readWide(ctx context.Context, t *table, e extent, open bool) (backupset.Chunk, []backupset.Object, error) {
	measure := t.WideExpression(w.stream.Quote)
	if measure == "" || t.Where != "" {
		return backupset.Chunk{}, nil, errNotWide
	}
	isWide := fmt.Sprintf("%s > %d", measure, w.limits.wideOver)
	var chunk backupset.Chunk
	var objects []backupset.Object
	err := w.stream.Released(ctx, func() error {
		ids, err := w.stream.Rows(ctx, "look for wide rows", "SELECT ctid"+w.from(t, e, open, isWide)+" ORDER BY ctid")
		if err != nil {
			return err
		}
		if len(ids) == 0 {
			return errNotWide
		}
		if chunk, objects, err = w.readNarrow(ctx, t, e, open, "NOT "+isWide); err != nil {
			return err
		}
		all, _ := backupset.ParseDigest(chunk.Digest) // written by FormatDigest
		for _, id := range ids {
			row, stored, err := w.readRow(ctx, t, id[0])
			if err != nil {
				return fmt.Errorf("row %s: %w", id[0], err)
			}
			for i := range row.Pieces {
				n, _ := backupset.ParseDigest(row.Pieces[i].Digest) // as above
				all += n
			}
			chunk.Wide = append(chunk.Wide, row)
			chunk.Rows++
			objects = append(objects, stored...)
		}
		chunk.Digest = backupset.FormatDigest(all)
		return nil
	})
	return chunk, objects, err
}

// tooLarge reports whether a read was refused for the size of a row.
func (w *worker) tooLarge(err error) bool {
	return pg.IsTooLarge(err) || err == nil && w.limits.refuse >= refuseChunks
}

// rowPiece is some columns of a wide row that are read together.
type rowPiece struct {
	columns []string
	format  string
	single  bool // one column that can be wide, by itself
}

// wholeRow is the piece that a row is when the server can send it. Its digest is that of
// any other row, so that it does not matter to it whether the row's chunk was refused.
func (t *table) wholeRow() rowPiece { return rowPiece{columns: t.Columns, format: t.format()} }

// rowPieces cuts a row: every column that can be wide is a piece of its own, and the others
// are one together.
func (t *table) rowPieces() []rowPiece {
	wide := t.WideColumns()
	var rest []string
	var pieces []rowPiece
	for _, name := range t.Columns {
		kind, ok := wide[name]
		switch {
		case !ok:
			rest = append(rest, name)
		case kind.Portable:
			pieces = append(pieces, rowPiece{[]string{name}, formatBinary, true})
		default:
			pieces = append(pieces, rowPiece{[]string{name}, formatText, true})
		}
	}
	if len(rest) > 0 {
		pieces = append([]rowPiece{{rest, t.format(), false}}, pieces...)
	}
	return pieces
}

// readRow reads one wide row, each piece into an object of its own.
func (w *worker) readRow(ctx context.Context, t *table, id string) (row backupset.WideRow, objects []backupset.Object, err error) {
	err = w.eachPiece(ctx, t, func(p rowPiece) error {
		piece, stored, err := w.readPiece(ctx, t, id, p)
		if err != nil {
			return err
		}
		objects = append(objects, stored)
		row.Pieces = append(row.Pieces, backupset.WidePiece{Piece: piece, Columns: p.columns, Format: p.format})
		return nil
	})
	return row, objects, err
}

// eachPiece calls fn with the row as a whole and, when that is too large for the
// server, with each of its pieces.
func (w *worker) eachPiece(ctx context.Context, t *table, fn func(p rowPiece) error) error {
	if w.limits.refuse < refuseRows {
		err := w.stream.Released(ctx, func() error { return fn(t.wholeRow()) })
		if !pg.IsTooLarge(err) || w.stream.Lost() {
			return err
		}
	}
	for _, p := range t.rowPieces() {
		if err := fn(p); err != nil {
			return fmt.Errorf("column %s: %w", pgname.Printable(p.columns[0]), err)
		}
	}
	return nil
}

func (w *worker) readPiece(ctx context.Context, t *table, id string, p rowPiece) (backupset.Piece, backupset.Object, error) {
	out, err := w.open(ctx)
	if err != nil {
		return backupset.Piece{}, backupset.Object{}, err
	}
	defer out.Abort() //nolint:errcheck // after a commit this does nothing; else the store cleans up
	var piece backupset.Piece
	if p.single {
		piece, err = w.readValue(ctx, out, t, id, p.columns[0], t.WideColumns()[p.columns[0]], p.format)
	} else {
		piece, err = w.copyOut(ctx, out, t.Printable(), "read narrow columns", w.rowSQL(t, id, p.columns, p.format), p.format)
	}
	if err != nil {
		return backupset.Piece{}, backupset.Object{}, errors.Join(err, out.Abort())
	}
	stored, err := out.Commit()
	piece.SHA256 = stored.SHA256
	return piece, stored, err
}

func (w *worker) rowSQL(t *table, id string, columns []string, format string) string {
	sql := "COPY (SELECT " + strings.Join(quoted(w.stream.Quote, columns), ", ") + " FROM ONLY " + w.stream.Quote(t.Schema) + "." +
		w.stream.Quote(t.Name) + " WHERE ctid = " + pgname.Literal(id) + "::tid) TO STDOUT"
	if format == formatBinary {
		sql += " (FORMAT binary)"
	}
	return sql
}

// readValue reads one value into an object.
func (w *worker) readValue(ctx context.Context, out *object, t *table, id, column string, kind pg.WideColumn, format string) (backupset.Piece, error) {
	s, _ := w.newSink(ctx, out, format)
	end := w.c.active.begin(t.Printable(), s)
	err := w.readValueTo(ctx, s, t, id, column, kind, format)
	end()
	if err == nil {
		err = s.close()
	}
	if err != nil {
		return backupset.Piece{}, err
	}
	return backupset.Piece{
		Object: out.name, Bytes: out.Bytes(), RawBytes: s.raw, Codec: w.c.req.Codec.String(),
		Rows: 1, Digest: backupset.FormatDigest(s.messages.sum),
	}, nil
}

// readValueTo reads one value: in one message, or a large one of bytes or
// characters in slices.
func (w *worker) readValueTo(ctx context.Context, to pg.CopyReceiver, t *table, id, column string, kind pg.WideColumn, format string) error {
	bytes := int64(-1)
	if kind.Bytes != "" && format == formatBinary {
		rows, err := w.stream.Rows(ctx, "measure column", "SELECT octet_length("+w.value(t, id, column)+")")
		if err != nil {
			return err
		}
		if len(rows) == 1 && rows[0][0] != "" { // not NULL
			if bytes, err = strconv.ParseInt(rows[0][0], 10, 64); err != nil {
				return err
			}
		}
	}
	if bytes > w.limits.wideOver {
		return w.readSlices(ctx, to, t, id, column, kind, bytes)
	}
	_, err := w.stream.CopyOut(ctx, "read column", w.rowSQL(t, id, []string{column}, format), to)
	return err
}

// value is SQL for one value of one row.
func (w *worker) value(t *table, id, column string) string {
	return fmt.Sprintf("(SELECT %s FROM ONLY %s.%s WHERE ctid = %s::tid)", w.stream.Quote(column),
		w.stream.Quote(t.Schema), w.stream.Quote(t.Name), pgname.Literal(id))
}

// readSlices hands on a value as the binary stream of one row with one field,
// from slices: so no message of the server has more than a slice.
func (w *worker) readSlices(ctx context.Context, to pg.CopyReceiver, t *table, id, column string, kind pg.WideColumn, bytes int64) error {
	head := append([]byte("PGCOPY\n\xff\r\n\x00"), 0, 0, 0, 0, 0, 0, 0, 0) // signature, flags, no extension
	head = append(head, 0, 1)
	head = binary.BigEndian.AppendUint32(head, uint32(bytes)) //nolint:gosec // below 1 GB
	if err := to.Message(head, false); err != nil {
		return err
	}
	for from := int64(0); from < bytes; from += w.limits.sliceBytes {
		n := min(w.limits.sliceBytes, bytes-from)
		slice := fmt.Sprintf("substring("+kind.Bytes+" from %d for %d)", w.stream.Quote(column), from+1, n)
		sql := fmt.Sprintf("COPY (SELECT %s FROM ONLY %s.%s WHERE ctid = %s::tid) TO STDOUT (FORMAT binary)", slice,
			w.stream.Quote(t.Schema), w.stream.Quote(t.Name), pgname.Literal(id))
		field := &fieldOf{to: to, skip: binaryHeader + 2 + 4, left: n, last: from+n == bytes}
		if _, err := w.stream.CopyOut(ctx, "read a slice of column", sql, field); err != nil {
			return err
		}
		if field.left != 0 {
			return fmt.Errorf("a slice lacks %d bytes", field.left)
		}
	}
	return to.Message(binaryTrailer, true)
}

// fieldOf hands on the only field of a binary stream of one row.
type fieldOf struct {
	to   pg.CopyReceiver
	skip int
	left int64
	last bool // the row ends with this field
}

// Message implements pg.CopyReceiver.
func (f *fieldOf) Message(piece []byte, _ bool) error {
	n := min(f.skip, len(piece))
	f.skip -= n
	piece = piece[n:]
	piece = piece[:min(int64(len(piece)), f.left)] // the trailer stays behind
	if len(piece) == 0 {
		return nil
	}
	f.left -= int64(len(piece))
	return f.to.Message(piece, f.last && f.left == 0)
}

// digestRow reads a wide row piece by piece, as readRow does, and returns the sum
// of the pieces' digests.
func (w *worker) digestRow(ctx context.Context, t *table, id string, moved func(int64)) (uint64, error) {
	wide := t.WideColumns()
	sum := uint64(0)
	err := w.eachPiece(ctx, t, func(p rowPiece) error {
		s := &summing{messages: newMessages(p.format), moved: moved}
		var err error
		if p.single {
			err = w.readValueTo(ctx, s, t, id, p.columns[0], wide[p.columns[0]], p.format)
		} else {
			_, err = w.stream.CopyOut(ctx, "read narrow columns", w.rowSQL(t, id, p.columns, p.format), s)
		}
		if err == nil {
			sum += s.sum
		}
		return err
	})
	return sum, err
}

// loadRow loads a wide row: each piece into a temporary table, and from these the
// row, whose values then need not fit into one message.
func (l *loader) loadRow(ctx context.Context, t *backupset.ChunkedTable, into pgname.Table, row *backupset.WideRow) error {
	quote := l.stream.Quote
	target := quote(into.Schema) + "." + quote(into.Name)
	var columns, sources, tables []string
	for i := range row.Pieces {
		p := &row.Pieces[i]
		name := fmt.Sprintf("pg_temp.dbbackup_piece_%d", i)
		list := strings.Join(quoted(quote, p.Columns), ", ")
		if err := l.stream.Exec(ctx, "make a temporary table", fmt.Sprintf("CREATE TEMP TABLE dbbackup_piece_%d ON COMMIT DROP AS SELECT %s FROM %s WITH NO DATA", i, list, target)); err != nil {
			return err
		}
		sql := "COPY " + name + " (" + list + ") FROM STDIN"
		if p.Format == formatBinary {
			sql += " (FORMAT binary)"
		}
		rows, err := l.copyIn(ctx, &p.Piece, "load a part of a wide row", sql)
		if err != nil {
			return err
		}
		if rows != 1 {
			return fmt.Errorf("a part of a wide row has %d rows", rows)
		}
		tables = append(tables, name)
		for _, c := range p.Columns {
			columns = append(columns, quote(c))
			sources = append(sources, fmt.Sprintf("dbbackup_piece_%d.%s", i, quote(c)))
		}
	}
	sql := fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s; DROP TABLE %s", target,
		strings.Join(columns, ", "), strings.Join(sources, ", "), strings.Join(tables, ", "), strings.Join(tables, ", "))
	return l.stream.Exec(ctx, "assemble a wide row of table "+printable(t), sql)
}

func printable(t *backupset.ChunkedTable) string {
	return pgname.Table{Schema: t.Schema, Name: t.Name}.Printable()
}

// copyIn loads a piece, decompressed. Its digest is known good when it returns
// nil. Of a damaged piece that is what the error says, also when the server saw
// the damage first, in what the piece read as.
func (l *loader) copyIn(ctx context.Context, p *backupset.Piece, step, sql string) (int64, error) {
	in, err := l.r.openPiece(ctx, p)
	if err != nil {
		return 0, err
	}
	defer in.Close() //nolint:errcheck // only read
	rows, err := l.stream.CopyIn(ctx, step, sql, in)
	if err != nil && !l.stream.Lost() {
		if _, damage := io.CopyBuffer(struct{ io.Writer }{io.Discard}, in, make([]byte, bufferBytes)); damage != nil {
			return 0, fmt.Errorf("%s: %w", step, damage)
		}
	}
	return rows, err
}
