package pg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// collector keeps messages.
type collector struct {
	messages [][]byte
	partial  []byte
	pieces   int
	refuse   int // the message that is refused; 0 none
}

var errRefused = errors.New("refused by the receiver")

func (c *collector) Message(piece []byte, last bool) error {
	c.pieces++
	c.partial = append(c.partial, piece...)
	if last {
		c.messages = append(c.messages, c.partial)
		c.partial = nil
	}
	if c.refuse > 0 && len(c.messages) >= c.refuse {
		return errRefused
	}
	return nil
}

// answer is what a server says to a COPY of rows; failure comes after them.
func answer(rows [][]byte, failure bool) []byte {
	var out []byte
	encode := func(m pgproto3.BackendMessage) {
		var err error
		if out, err = m.Encode(out); err != nil {
			panic(err)
		}
	}
	encode(&pgproto3.CopyOutResponse{ColumnFormatCodes: []uint16{0}})
	for _, row := range rows {
		encode(&pgproto3.CopyData{Data: row})
	}
	if failure {
		encode(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "XX001", Message: "invalid page"})
		encode(&pgproto3.ReadyForQuery{TxStatus: 'E'})
		return out
	}
	encode(&pgproto3.CopyDone{})
	encode(&pgproto3.NoticeResponse{Message: "by the way"})
	encode(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "COPY %d", len(rows))})
	encode(&pgproto3.ReadyForQuery{TxStatus: 'T'})
	return out
}

// scripted is a connection whose server says what is written down, in pieces.
type scripted struct {
	net.Conn
	say   [][]byte
	asked []byte
}

func (s *scripted) Write(p []byte) (int, error) {
	s.asked = append(s.asked, p...)
	return len(p), nil
}

func (s *scripted) Read(p []byte) (int, error) {
	for len(s.say) > 0 && len(s.say[0]) == 0 {
		s.say = s.say[1:]
	}
	if len(s.say) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.say[0])
	s.say[0] = s.say[0][n:]
	return n, nil
}

func reading(conn net.Conn, buffer int, to *collector) *copyReader {
	return &copyReader{in: conn, buffer: make([]byte, buffer), receiver: to}
}

// Wherever the network cuts the stream, and however small the buffer, the
// messages are the same.
func TestCopyReaderAnyCut(t *testing.T) {
	rows := [][]byte{[]byte("one\n"), {}, bytes.Repeat([]byte("long"), 50), []byte("\n"), []byte("Z\x00\x00\x00\x05I")}
	whole := answer(rows, false)
	for _, buffer := range []int{5, 6, 7, 64, 4096} {
		for cut := range whole {
			got := &collector{}
			r := reading(&scripted{say: [][]byte{whole[:cut], whole[cut:]}}, buffer, got)
			n, err := r.run("COPY")
			if err != nil || n != int64(len(rows)) || !r.idle || r.txStatus != 'T' {
				t.Fatalf("buffer %d, cut at %d: %d rows, idle %t, status %q, %v", buffer, cut, n, r.idle, r.txStatus, err)
			}
			if !slices.EqualFunc(got.messages, rows, bytes.Equal) {
				t.Fatalf("buffer %d, cut at %d: got %q", buffer, cut, got.messages)
			}
		}
	}
}

// The same through a connection, byte by byte.
func TestCopyReaderByteByByte(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	rows := [][]byte{[]byte("one\n"), bytes.Repeat([]byte("x"), 300)}
	go func() {
		defer server.Close()
		_, _ = server.Read(make([]byte, 100))
		for _, b := range answer(rows, false) {
			if _, err := server.Write([]byte{b}); err != nil {
				return
			}
		}
	}()
	got := &collector{}
	r := reading(client, 16, got)
	if n, err := r.run("COPY t TO STDOUT"); err != nil || n != 2 || !slices.EqualFunc(got.messages, rows, bytes.Equal) {
		t.Fatalf("%d rows, %q, %v", n, got.messages, err)
	}
}

// A stream that ends early is never one that is whole, and leaves no session.
func TestCopyReaderCutShort(t *testing.T) {
	whole := answer([][]byte{[]byte("one\n"), []byte("two\n")}, false)
	for end := range whole {
		r := reading(&scripted{say: [][]byte{whole[:end]}}, 64, &collector{})
		if _, err := r.run("COPY"); !errors.Is(err, io.ErrUnexpectedEOF) || r.idle {
			t.Fatalf("cut at %d of %d: idle %t, %v", end, len(whole), r.idle, err)
		}
	}
}

// An error in the middle is the server's, and the session goes on.
func TestCopyReaderServerError(t *testing.T) {
	r := reading(&scripted{say: [][]byte{answer([][]byte{[]byte("one\n")}, true)}}, 64, &collector{})
	_, err := r.run("COPY")
	var server *pgconn.PgError
	if !errors.As(err, &server) || server.Code != "XX001" || !r.idle || r.txStatus != 'E' {
		t.Errorf("idle %t, status %q, %v", r.idle, r.txStatus, err)
	}
	// The connection breaks before the server is ready again: both are told.
	cut := answer([][]byte{[]byte("one\n")}, true)
	r = reading(&scripted{say: [][]byte{cut[:len(cut)-2]}}, 64, &collector{})
	if _, err = r.run("COPY"); !errors.As(err, &server) || !errors.Is(err, io.ErrUnexpectedEOF) || r.idle {
		t.Errorf("idle %t, %v", r.idle, err)
	}
}

func TestCopyReaderRefused(t *testing.T) {
	r := reading(&scripted{say: [][]byte{answer([][]byte{[]byte("one\n"), []byte("two\n")}, false)}}, 64, &collector{refuse: 1})
	if _, err := r.run("COPY"); !errors.Is(err, errRefused) || !errors.Is(r.refused, errRefused) || r.idle {
		t.Errorf("idle %t, %v", r.idle, err)
	}
}

// Lengths that cannot be: an error, without the memory that they ask for.
func TestCopyReaderGarbage(t *testing.T) {
	for _, say := range [][]byte{
		{'d', 0, 0, 0, 0}, {'d', 0, 0, 0, 3}, {'d', 0xff, 0xff, 0xff, 0xff}, {'d', 0x80, 0, 0, 1}, {'N', 0x7f, 0xff, 0xff, 0xff},
		{'E', 0, 0, 0, 4}, {'E', 0, 0, 0, 6, 'S', 'x'}, {'Z', 0, 0, 0, 4}, {'Z', 0, 0, 0, 6, 'I', 'I'},
	} {
		r := reading(&scripted{say: [][]byte{say}}, 64, &collector{})
		if _, err := r.run("COPY"); err == nil && r.idle {
			t.Errorf("%x is taken for an end", say)
		}
	}
	// What follows the end belongs to nobody, so the session is not used again.
	after := append(answer(nil, false), 'N', 0, 0, 0, 5, 0)
	r := reading(&scripted{say: [][]byte{after}}, 4096, &collector{})
	if _, err := r.run("COPY"); err != nil || r.idle {
		t.Errorf("idle %t, %v", r.idle, err)
	}
}

// FuzzCopyReader: whatever a server says, the reader ends, and hands on whole
// messages of what was said and nothing else.
func FuzzCopyReader(f *testing.F) {
	f.Add(answer([][]byte{[]byte("one\n"), {}, bytes.Repeat([]byte("x"), 100)}, false), uint8(3), uint8(20))
	f.Add(answer([][]byte{[]byte("one\n")}, true), uint8(1), uint8(0))
	f.Add([]byte{'d', 0xff, 0xff, 0xff, 0xff}, uint8(5), uint8(0))
	f.Add([]byte("Z\x00\x00\x00\x05I"), uint8(5), uint8(0))
	f.Fuzz(func(t *testing.T, said []byte, step, buffer uint8) {
		var say [][]byte
		for rest := said; len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			say, rest = append(say, rest[:n:n]), rest[n:]
		}
		got := &collector{}
		r := reading(&scripted{say: say}, 5+int(buffer), got)
		began := time.Now()
		_, err := r.run("COPY")
		if time.Since(began) > 5*time.Second {
			t.Fatal("it does not end")
		}
		if end := []byte("Z\x00\x00\x00\x05"); r.idle && !bytes.Contains(said, append(end, r.txStatus)) {
			t.Fatalf("idle after %q", said)
		}
		if err == nil && r.idle && got.partial != nil {
			t.Fatalf("a message has no end: %q", got.partial)
		}
		// Read the frames the plain way, and compare.
		at := 0
		for i, message := range got.messages {
			for ; said[at] != 'd'; at += 1 + int(binary.BigEndian.Uint32(said[at+1:])) {
			}
			size := int(binary.BigEndian.Uint32(said[at+1:]))
			if want := said[at+5 : at+1+size]; !bytes.Equal(message, want) {
				t.Fatalf("message %d: got %q, want %q", i, message, want)
			}
			at += 1 + size
		}
	})
}

func TestCommandRows(t *testing.T) {
	for text, want := range map[string]int64{"COPY 42\x00": 42, "COPY 0\x00": 0, "BEGIN\x00": 0, "": 0, "\x00": 0, "COPY 9223372036854775807\x00": 1<<63 - 1} {
		if got := commandRows([]byte(text)); got != want {
			t.Errorf("commandRows(%q) = %d, want %d", text, got, want)
		}
	}
}
