package pgcopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pgname"
)

// pieceReader decompresses one piece of a set and checks it on the way: digest,
// size, and that nothing follows. Instead of io.EOF it returns fault.Integrity.
type pieceReader struct {
	stored io.ReadCloser
	raw    io.ReadCloser
	left   int64
	label  string
	fail   error
}

// openPiece reads a piece. The caller closes it.
func openPiece(ctx context.Context, set *backupset.Set, p *backupset.Piece) (*pieceReader, error) {
	label := fmt.Sprintf("object %s at byte %d", p.Object, p.Offset)
	codec, err := compress.ParseCodec(p.Codec)
	if err != nil {
		return nil, fault.New(fault.Integrity, "", "%s: %w", label, err)
	}
	stored, err := set.OpenPiece(ctx, p)
	if err != nil {
		return nil, err
	}
	raw, err := codec.Open(stored, p.RawBytes)
	if err != nil {
		return nil, errors.Join(damagedPiece(label, err), stored.Close())
	}
	return &pieceReader{stored: stored, raw: raw, left: p.RawBytes, label: label}, nil
}

func (r *pieceReader) Read(p []byte) (int, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	n, err := r.raw.Read(p)
	r.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = r.finish()
	} else if err != nil {
		err = damagedPiece(r.label, err)
	}
	r.fail = err
	return n, err
}

// finish reads what is left of the stored bytes, at whose end their digest is
// checked.
func (r *pieceReader) finish() error {
	n, err := io.Copy(io.Discard, r.stored)
	switch {
	case err != nil:
		return err
	case n > 0:
		return damagedPiece(r.label, fmt.Errorf("%d bytes follow the end of the stream", n))
	case r.left != 0:
		return damagedPiece(r.label, fmt.Errorf("the stream lacks %d bytes", r.left))
	}
	return io.EOF
}

func (r *pieceReader) Close() error { return errors.Join(r.raw.Close(), r.stored.Close()) }

// damagedPiece keeps the kind that the store gave an error; anything else that
// goes wrong while decompressing is damage too.
func damagedPiece(label string, err error) error {
	if fault.KindOf(err) != fault.Failed || errors.Is(err, context.Canceled) {
		return err
	}
	return fault.New(fault.Integrity, "restore from another set", "%s: %w", label, err)
}

// Damage is a piece that does not hold what was captured.
type Damage struct {
	Table  string // "large objects" for those
	Chunk  *backupset.Chunk
	Object string
	Err    error
}

// Check reads every chunk of a database to its end and counts: the rows, and
// their digest. moved is told of raw bytes, by several goroutines.
func Check(ctx context.Context, set *backupset.Set, c *backupset.Contents, moved func(bytes int64)) ([]Damage, error) {
	var (
		mu     sync.Mutex
		damage []Damage
	)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	each := func(table, format string, chunk *backupset.Chunk, p *backupset.Piece, rows int64, want string) {
		if p.Object == "" {
			return
		}
		group.Go(func() error {
			err := set.Reread(func() error { return checkPiece(ctx, set, p, format, rows, want, moved) })
			if err == nil || ctx.Err() != nil {
				return ctx.Err()
			}
			if !fault.Is(err, fault.Integrity) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			damage = append(damage, Damage{table, chunk, p.Object, err})
			return nil
		})
	}
	for i := range c.Tables {
		t := &c.Tables[i]
		name := pgname.Table{Schema: t.Schema, Name: t.Name}.Printable()
		for j := range t.Chunks {
			chunk := &t.Chunks[j]
			rows, want := narrowPart(chunk)
			each(name, t.Format, chunk, &chunk.Piece, rows, want)
			for k := range chunk.Wide {
				for l := range chunk.Wide[k].Pieces {
					p := &chunk.Wide[k].Pieces[l]
					each(name, p.Format, chunk, &p.Piece, p.Rows, p.Digest)
				}
			}
		}
	}
	if lo := c.LargeObjects; lo != nil {
		each("large objects", formatText, &lo.Metadata, &lo.Metadata.Piece, lo.Metadata.Rows, lo.Metadata.Digest)
		for i := range lo.Data {
			each("large objects", formatBinary, &lo.Data[i], &lo.Data[i].Piece, lo.Data[i].Rows, lo.Data[i].Digest)
		}
	}
	err := group.Wait()
	return damage, err
}

// narrowPart is what of a chunk's rows and digest its own stream holds: wide
// rows are counted by the chunk and stored elsewhere.
func narrowPart(c *backupset.Chunk) (rows int64, digest string) {
	sum, _ := backupset.ParseDigest(c.Digest) // validated
	for i := range c.Wide {
		for j := range c.Wide[i].Pieces {
			n, _ := backupset.ParseDigest(c.Wide[i].Pieces[j].Digest) // validated
			sum -= n
		}
	}
	return c.Rows - int64(len(c.Wide)), backupset.FormatDigest(sum)
}

func checkPiece(ctx context.Context, set *backupset.Set, p *backupset.Piece, format string, rows int64, want string, moved func(int64)) error {
	in, err := openPiece(ctx, set, p)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	counted := newRowReader(format)
	buffer := make([]byte, bufferBytes)
	for ctx.Err() == nil {
		n, err := in.Read(buffer)
		if moved != nil {
			moved(int64(n))
		}
		if _, bad := counted.Write(buffer[:n]); bad != nil {
			return damagedPiece(in.label, bad)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if err := errors.Join(ctx.Err(), counted.close()); err != nil {
		return damagedPiece(in.label, err)
	}
	if got := backupset.FormatDigest(counted.sum); counted.rows != rows || got != want {
		return damagedPiece(in.label, fmt.Errorf("it holds %d rows with digest %s, and %d with %s were captured", counted.rows, got, rows, want))
	}
	return nil
}
