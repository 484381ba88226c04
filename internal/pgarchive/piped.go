package pgarchive

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"dbbackup/internal/fault"
)

// CheckPiped reads a custom archive from its first byte to its last, as
// pg_dump writes it into a pipe, and says whether pg_dump finished it: each
// entry with data has its block, once, and nothing follows. A piped archive's
// table of contents does not know the places of the blocks, so that Complete
// cannot tell. The data is walked over, not decompressed; memory depends on
// the number of entries only. Errors are fault.Integrity, but for those of r.
func CheckPiped(r io.Reader, opts ...Option) error {
	d := newDecoder(r, resolve(opts))
	waiting := map[int64]Entry{}
	toc, err := scan(d, func(e *Entry) error {
		if e.HasData {
			waiting[int64(e.ID)] = Entry{ID: e.ID, Desc: e.Desc, Schema: e.Schema, Tag: e.Tag}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if toc.Format != Custom {
		return fault.New(fault.Integrity, "", "a %s format archive came through the pipe", toc.Format)
	}
	b := &block{r: d.r}
	for {
		e, err := b.next(waiting)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			delete(waiting, int64(e.ID))
			err = b.walk(e.Desc == "BLOBS")
		}
		if err != nil {
			return fault.New(fault.Integrity, notFinished, "data after byte %d of the table of contents: %w", toc.size, err)
		}
	}
	for _, e := range waiting {
		return fault.New(fault.Integrity, notFinished, "the archive has no data of %s, and of %d more entries", &e, len(waiting)-1)
	}
	return nil
}

// next reads the head of the next block, or io.EOF where there is none.
func (b *block) next(waiting map[int64]Entry) (Entry, error) {
	kind, err := b.r.ReadByte()
	if err != nil {
		return Entry{}, err
	}
	id, err := b.int()
	if err != nil {
		return Entry{}, err
	}
	e, ok := waiting[id]
	want := byte(blockData)
	if e.Desc == "BLOBS" {
		want = blockLargeObjects
	}
	if !ok || kind != want {
		return Entry{}, fmt.Errorf("block type %d of dump ID %d does not belong there", kind, id)
	}
	return e, nil
}

// walk passes over the rest of a block.
func (b *block) walk(largeObjects bool) error {
	for largeObjects {
		oid, err := b.int()
		if err != nil || oid == 0 {
			return err
		}
		if err := b.pass(); err != nil {
			return err
		}
	}
	return b.pass()
}

// pass passes over pieces, up to and with the length of zero.
func (b *block) pass() error {
	for {
		if err := b.piece(); err != nil || b.left == 0 {
			return err
		}
		if err := discard(b.r, b.left); err != nil {
			return b.cut(err)
		}
	}
}

func discard(r *bufio.Reader, n int64) error {
	const most = 1 << 30 // an int on any machine
	for n > 0 {
		skipped, err := r.Discard(int(min(n, most)))
		n -= int64(skipped)
		if err != nil {
			return err
		}
	}
	return nil
}
