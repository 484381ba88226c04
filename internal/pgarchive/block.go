package pgarchive

import (
	"bufio"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
)

// Types of data blocks, BLK_* in pg_backup_archiver.h.
const (
	blockData         = 1
	blockLargeObjects = 3
)

// block reads one data block of a custom archive: its type, the entry's dump
// ID, then pieces with their length before them until a length of zero. A
// block of large objects is a list of OIDs, each followed by such pieces, that
// ends with OID zero.
type block struct {
	r    *bufio.Reader
	left int64 // of the current piece
	done bool  // the length of zero was read
}

func newBlock(r io.Reader) *block { return &block{r: bufio.NewReaderSize(r, 64<<10)} }

// open reads the head of the block and compares it with the entry.
func (b *block) open(e *Entry) error {
	kind, err := b.r.ReadByte()
	if err != nil {
		return b.cut(err)
	}
	id, err := b.int()
	if err != nil {
		return err
	}
	want := byte(blockData)
	if e.Desc == "BLOBS" {
		want = blockLargeObjects
	}
	if kind != want || id != int64(e.ID) {
		return fmt.Errorf("block type %d of dump ID %d stands in its place", kind, id)
	}
	return nil
}

func (b *block) int() (int64, error) {
	var raw [5]byte
	if _, err := io.ReadFull(b.r, raw[:]); err != nil {
		return 0, b.cut(err)
	}
	v := int64(raw[1]) | int64(raw[2])<<8 | int64(raw[3])<<16 | int64(raw[4])<<24
	if raw[0] > 1 {
		return 0, fmt.Errorf("sign byte %d in its structure", raw[0])
	}
	if raw[0] == 1 {
		v = -v
	}
	return v, nil
}

func (b *block) cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends too early, or a length in it is wrong")
	}
	return err
}

// Read gives the pieces' bytes, and io.EOF after the length of zero.
func (b *block) Read(p []byte) (int, error) {
	for b.left == 0 {
		if b.done {
			return 0, io.EOF
		}
		if err := b.piece(); err != nil {
			return 0, err
		}
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil {
		return n, b.cut(err)
	}
	return n, nil
}

func (b *block) piece() error {
	length, err := b.int()
	if err != nil {
		return err
	}
	if length < 0 {
		return fmt.Errorf("a piece of %d bytes", length)
	}
	b.left, b.done = length, length == 0
	return nil
}

// largeObjects reads to the end of the list. Unless known is nil, each OID
// must be known, and there must be as many.
func (b *block) largeObjects(inflate *inflater, known map[uint32]bool) error {
	count := 0
	for {
		oid, err := b.int()
		if err != nil {
			return err
		}
		if oid == 0 && known != nil && count != len(known) {
			return fmt.Errorf("%d large objects, and %d in the table of contents", count, len(known))
		}
		if oid == 0 {
			return nil
		}
		if known != nil && !known[uint32(oid)] {
			return fmt.Errorf("large object %d is not in the table of contents", uint32(oid))
		}
		count++
		b.done = false
		if err := inflate.check(b, false); err != nil {
			return fmt.Errorf("large object %d: %w", uint32(oid), err)
		}
	}
}

// inflater checks the contents of blocks by their compression, and keeps its
// state from one to the next.
type inflater struct {
	compression string
	z           io.ReadCloser // also a zlib.Resetter
}

func newInflater(compression string) *inflater { return &inflater{compression: compression} }

// unread is ErrNotChecked where check only walks over the contents.
func (i *inflater) unread() error {
	if i.compression == "lz4" || i.compression == "zstd" {
		return fmt.Errorf("%s data: %w", i.compression, ErrNotChecked)
	}
	return nil
}

// check reads b to its end.
func (i *inflater) check(b *block, copies bool) error {
	switch i.compression {
	case "none":
		return drain(b, copies)
	case "gzip":
		return i.gunzip(b, copies)
	}
	return drain(b, false)
}

// gunzip checks the one zlib stream that the pieces are. Large objects of no
// bytes have none since PostgreSQL 16.
func (i *inflater) gunzip(b *block, copies bool) error {
	r := bufio.NewReader(b)
	if _, err := r.Peek(1); errors.Is(err, io.EOF) && !copies {
		return nil
	}
	if err := i.reset(r); err != nil {
		return fmt.Errorf("compressed data: %w", err)
	}
	if err := drain(i.z, copies); err != nil {
		return fmt.Errorf("compressed data: %w", err)
	}
	if extra, err := io.Copy(io.Discard, r); err != nil || extra > 0 {
		return errors.Join(err, fmt.Errorf("%d bytes follow the compressed data", extra))
	}
	return nil
}

func (i *inflater) reset(r io.Reader) (err error) {
	if i.z == nil {
		i.z, err = zlib.NewReader(r)
		return err
	}
	return i.z.(zlib.Resetter).Reset(r, nil)
}
