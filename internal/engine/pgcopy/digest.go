package pgcopy

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

// COPY's two forms (PostgreSQL manual, COPY, "File Formats").
const (
	formatText   = "text"
	formatBinary = "binary"
)

// binaryHeader is the length of what precedes the first row of a binary stream:
// signature, flags, and the length of an extension that is always empty.
const binaryHeader = 19

// binaryTrailer ends a binary stream.
var binaryTrailer = []byte{0xff, 0xff}

// digest is an order-independent sum over rows: their number, and the sum of
// their 64-bit hashes. The server sends a row in one message, so a row's hash is
// that of its message; two streams of the same rows have the same digest.
type digest struct {
	rows int64
	sum  uint64
}

func (d *digest) add(hash uint64) {
	d.rows++
	d.sum += hash
}

func (d *digest) addAll(other digest) {
	d.rows += other.rows
	d.sum += other.sum
}

// messages computes the digest of a stream that comes message by message.
type messages struct {
	digest
	skip    int // bytes of the binary header that are still to come
	binary  bool
	partial bool // a message is under way in hash
	hash    xxhash.Digest
	length  int64 // of the message so far
	tail    [2]byte
}

func newMessages(format string) *messages {
	m := &messages{binary: format == formatBinary}
	m.hash.Reset()
	if m.binary {
		m.skip = binaryHeader
	}
	return m
}

// add takes a piece of a message; last says that the message ends with it.
func (m *messages) add(piece []byte, last bool) {
	if m.skip > 0 {
		n := min(m.skip, len(piece))
		m.skip -= n
		piece = piece[n:]
		if last && !m.partial && len(piece) == 0 {
			return // the header came alone
		}
	}
	if last && !m.partial {
		if !m.binary || !bytes.Equal(piece, binaryTrailer) {
			m.digest.add(xxhash.Sum64(piece))
		}
		return
	}
	m.partial = true
	if m.length < int64(len(m.tail)) { // also when these few bytes come one by one
		copy(m.tail[m.length:], piece)
	}
	_, _ = m.hash.Write(piece) // never fails
	m.length += int64(len(piece))
	if !last {
		return
	}
	if !m.binary || m.length != int64(len(binaryTrailer)) || !bytes.Equal(m.tail[:], binaryTrailer) {
		m.digest.add(m.hash.Sum64())
	}
	m.hash.Reset()
	m.partial, m.length = false, 0
}

// rowReader computes the digest of a stored stream, in which nothing but its
// form tells where a row ends. It is a Writer, so that a stream can be copied
// into it, in pieces of any size.
type rowReader struct {
	digest
	format string
	hash   xxhash.Digest
	within bool // a row is under way

	// binary: what is expected next.
	need    int64 // bytes of the current part that are still to come
	part    binaryPart
	number  [4]byte
	have    int // bytes of number
	fields  int // of the row that are still to come
	trailed bool
}

type binaryPart int

const (
	header binaryPart = iota
	fieldCount
	fieldLength
	fieldData
)

func newRowReader(format string) *rowReader {
	r := &rowReader{format: format, need: binaryHeader}
	r.hash.Reset()
	return r
}

func (r *rowReader) Write(p []byte) (int, error) {
	if r.format == formatText {
		r.text(p)
		return len(p), nil
	}
	return len(p), r.binary(p)
}

// text: a row ends with its line; within one, COPY writes line feeds as \n.
func (r *rowReader) text(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			_, _ = r.hash.Write(p) // never fails
			r.within = true
			return
		}
		if r.within {
			_, _ = r.hash.Write(p[:end+1])
			r.add(r.hash.Sum64())
			r.hash.Reset()
			r.within = false
		} else {
			r.add(xxhash.Sum64(p[:end+1]))
		}
		p = p[end+1:]
	}
}

func (r *rowReader) binary(p []byte) error {
	for len(p) > 0 {
		if r.trailed {
			return fmt.Errorf("%d bytes follow the end of a binary stream", len(p))
		}
		switch r.part {
		case header, fieldData:
			n := min(r.need, int64(len(p)))
			if r.part == fieldData {
				_, _ = r.hash.Write(p[:n])
			}
			r.need -= n
			p = p[n:]
			if r.need == 0 {
				r.next()
			}
		case fieldCount, fieldLength:
			n := copy(r.number[r.have:r.width()], p)
			r.have += n
			p = p[n:]
			if r.have < r.width() {
				continue
			}
			r.have = 0
			if err := r.counted(); err != nil {
				return err
			}
		}
	}
	return nil
}

// width is how many bytes the current number has.
func (r *rowReader) width() int {
	if r.part == fieldCount {
		return 2
	}
	return 4
}

// counted takes a number that is complete.
func (r *rowReader) counted() error {
	if r.part == fieldCount {
		n := int16(binary.BigEndian.Uint16(r.number[:])) //nolint:gosec // a signed number by its definition
		if n == -1 {
			r.trailed = true
			return nil
		}
		if n < 0 {
			return fmt.Errorf("a row of a binary stream has %d fields", n)
		}
		r.within, r.fields = true, int(n)
		_, _ = r.hash.Write(r.number[:2])
		r.next()
		return nil
	}
	n := int32(binary.BigEndian.Uint32(r.number[:])) //nolint:gosec // as above
	if n < -1 {
		return fmt.Errorf("a field of a binary stream has %d bytes", n)
	}
	_, _ = r.hash.Write(r.number[:])
	r.fields--
	if r.need = int64(max(n, 0)); r.need > 0 {
		r.part = fieldData
		return nil
	}
	r.next()
	return nil
}

// next goes on to the next field, or to the next row.
func (r *rowReader) next() {
	if r.within && r.fields > 0 {
		r.part = fieldLength
		return
	}
	if r.within {
		r.add(r.hash.Sum64())
		r.hash.Reset()
		r.within = false
	}
	r.part = fieldCount
}

// close reports whether the stream was whole.
func (r *rowReader) close() error {
	switch {
	case r.format == formatText && r.within:
		return fmt.Errorf("the last row has no end")
	case r.format == formatBinary && !r.trailed:
		return fmt.Errorf("the binary stream has no end")
	}
	return nil
}
