package pgcopy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// row is what COPY sends for one row; nil fields are NULL.
type row [][]byte

func (r row) message(format string) []byte {
	var out []byte
	if format == formatText {
		for i, field := range r {
			if i > 0 {
				out = append(out, '\t')
			}
			if field == nil {
				out = append(out, `\N`...)
				continue
			}
			out = append(out, escapeText(string(field))...)
		}
		return append(out, '\n')
	}
	out = binary.BigEndian.AppendUint16(out, uint16(len(r))) //nolint:gosec // a few
	for _, field := range r {
		if field == nil {
			out = append(out, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		out = binary.BigEndian.AppendUint32(out, uint32(len(field))) //nolint:gosec // a few
		out = append(out, field...)
	}
	return out
}

// escapeText does what COPY does to a value (PostgreSQL manual, COPY, "Text Format").
func escapeText(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\b", `\b`, "\f", `\f`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\v", `\v`).Replace(s)
}

// streamOf are the messages of a stream, as the server makes them: the header
// comes with the first row, and the trailer by itself.
func streamOf(format string, rows []row) [][]byte {
	var messages [][]byte
	for _, r := range rows {
		messages = append(messages, r.message(format))
	}
	if format == formatBinary {
		head := append([]byte("PGCOPY\n\xff\r\n\x00"), 0, 0, 0, 0, 0, 0, 0, 0)
		messages = append(messages, binaryTrailer)
		messages[0] = append(head, messages[0]...)
	}
	return messages
}

func drawRows(t *rapid.T) []row {
	field := rapid.SliceOfN(rapid.Byte(), 0, 40)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) row {
		var r row
		for range rapid.IntRange(0, 4).Draw(t, "fields") {
			if rapid.Bool().Draw(t, "null") {
				r = append(r, nil)
				continue
			}
			value := field.Draw(t, "value")
			if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
				value = []byte{0xff, 0xff}
			}
			r = append(r, append([]byte{}, value...))
		}
		return r
	}), 0, 12).Draw(t, "rows")
}

// The digest of the messages as they come, in any pieces, is that of the stored stream
// as it is read, in any pieces, and does not depend on the order of rows.
func TestDigestsAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		format := rapid.SampledFrom([]string{formatText, formatBinary}).Draw(t, "format")
		rows := drawRows(t)
		m, plain := newMessages(format), newMessages(format)
		stored := &bytes.Buffer{}
		for _, message := range streamOf(format, rows) {
			plain.add(message, true)
			stored.Write(message)
			cut := rapid.IntRange(0, len(message)).Draw(t, "cut")
			if cut > 0 {
				m.add(message[:cut], cut == len(message))
			}
			if cut < len(message) || cut == 0 {
				m.add(message[cut:], true)
			}
		}
		if m.digest != plain.digest {
			t.Fatalf("cut: %+v, whole: %+v", m.digest, plain.digest)
		}
		if m.rows != int64(len(rows)) {
			t.Fatalf("%d rows, want %d", m.rows, len(rows))
		}
		r := newRowReader(format)
		for rest := stored.Bytes(); len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "read")
			if _, err := r.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
		if r.digest != m.digest {
			t.Fatalf("stored: %+v, sent: %+v", r.digest, m.digest)
		}
		turned := newMessages(format)
		shuffled := rapid.Permutation(rows).Draw(t, "order")
		for _, message := range streamOf(format, shuffled) {
			turned.add(message, true)
		}
		if turned.digest != m.digest {
			t.Fatalf("in another order: %+v, want %+v", turned.digest, m.digest)
		}
	})
}

// The header may also come alone, which PostgreSQL's protocol leaves open.
func TestDigestOfHeaderAlone(t *testing.T) {
	whole, apart := newMessages(formatBinary), newMessages(formatBinary)
	for i, message := range streamOf(formatBinary, []row{{[]byte("x")}, {nil}}) {
		whole.add(message, true)
		if i == 0 {
			apart.add(message[:binaryHeader], true)
			message = message[binaryHeader:]
		}
		apart.add(message, true)
	}
	if whole.digest != apart.digest || whole.rows != 2 {
		t.Errorf("got %+v, want %+v", apart.digest, whole.digest)
	}
}

// A stored stream that was cut anywhere, or goes on behind its end, is not whole; or
// it has other rows.
func TestRowReaderKnowsTheEnd(t *testing.T) {
	for _, format := range []string{formatText, formatBinary} {
		stored := bytes.Join(streamOf(format, []row{{[]byte("one"), nil}, {[]byte("two\n")}, {}}), nil)
		want := newRowReader(format)
		if _, err := want.Write(stored); err != nil || want.close() != nil {
			t.Fatal(err, want.close())
		}
		for end := range stored {
			r := newRowReader(format)
			if _, err := r.Write(stored[:end]); err == nil && r.close() == nil && r.rows == want.rows {
				t.Errorf("%s cut at %d is taken for whole", format, end)
			}
		}
		r := newRowReader(format)
		if _, err := r.Write(append(stored, 'x')); err == nil && r.close() == nil {
			t.Errorf("%s with a byte more is taken for whole", format)
		}
		for i := range stored {
			if format == formatBinary && i < binaryHeader {
				continue // nobody reads the header
			}
			changed := bytes.Clone(stored)
			changed[i] ^= 0x10
			r := newRowReader(format)
			if _, err := r.Write(changed); err == nil && r.close() == nil && r.digest == want.digest {
				t.Errorf("%s with byte %d changed has the same digest", format, i)
			}
		}
	}
}

// FuzzRowReader: any bytes end in an error or in a count, and the pieces do not matter.
func FuzzRowReader(f *testing.F) {
	f.Add(bytes.Join(streamOf(formatBinary, []row{{[]byte("x"), nil}, {}}), nil), true, uint8(3))
	f.Add([]byte("a\tb\nc"), false, uint8(1))
	f.Fuzz(func(t *testing.T, stored []byte, isBinary bool, step uint8) {
		format := formatText
		if isBinary {
			format = formatBinary
		}
		run := func(step int) string {
			r := newRowReader(format)
			for rest := stored; len(rest) > 0; {
				n := min(step, len(rest))
				if _, err := r.Write(rest[:n]); err != nil {
					return "error"
				}
				rest = rest[n:]
			}
			if r.close() != nil {
				return "error"
			}
			return fmt.Sprint(r.digest)
		}
		if whole, pieces := run(len(stored)+1), run(int(step)+1); whole != pieces {
			t.Fatalf("whole: %s, in pieces of %d: %s", whole, step, pieces)
		}
	})
}
