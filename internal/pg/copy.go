package pg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// CopyReceiver takes what COPY ... TO STDOUT sends. The server sends one
// CopyData message for each row (PostgreSQL manual, protocol, "COPY
// Operations"); a large one comes in pieces.
type CopyReceiver interface {
	// Message receives a piece of a message; last says that the message ends
	// with it. The slice is only good until it returns.
	Message(piece []byte, last bool) error
}

// copyBuffer is how much is read from the connection at once. Memory does not
// depend on how wide a row is.
const copyBuffer = 256 << 10

// CopyOut runs a COPY ... TO STDOUT and hands on what comes. It returns the
// number of rows that the server says it sent. pgx reads whole messages, which
// for a value of 600 MB takes as much memory; here the connection is read in
// pieces. After an error of receiver the session is lost.
func (s *Stream) CopyOut(ctx context.Context, step, sql string, receiver CopyReceiver) (int64, error) {
	if s.Lost() {
		return 0, s.fail(step, net.ErrClosed)
	}
	hijacked, err := s.c.Hijack()
	if err != nil {
		return 0, s.fail(step, err)
	}
	conn, err := hijacked.Conn.(*turn).end() //nolint:forcetypeassert // ConnectStream and the end of this made it one
	if err != nil {
		return 0, s.fail(step, err)
	}
	release := endOnDone(ctx, conn)
	if s.buffer == nil {
		s.buffer = make([]byte, copyBuffer)
	}
	reader := &copyReader{in: conn, buffer: s.buffer, receiver: receiver}
	rows, err := reader.run(sql)
	interrupted := release()
	if interrupted {
		err = errors.Join(context.Cause(ctx), err)
	}
	if !reader.idle {
		err = errors.Join(err, net.ErrClosed)
		_ = conn.Close() // mid-stream it is good for nothing
		s.lost = err
		if interrupted {
			return 0, context.Cause(ctx)
		}
		return 0, wrapCopy(step, reader.refused, err)
	}
	hijacked.Conn, hijacked.TxStatus = &turn{Conn: conn}, reader.txStatus
	c, constructErr := pgconn.Construct(hijacked)
	if constructErr != nil {
		s.lost = constructErr
		return 0, wrap(step, constructErr)
	}
	s.c = c
	if interrupted {
		return 0, context.Cause(ctx)
	}
	return rows, wrapCopy(step, reader.refused, err)
}

// wrapCopy prefers what the receiver said over the loss of the session that
// followed from it.
func wrapCopy(step string, receiver, err error) error {
	if receiver != nil {
		return fmt.Errorf("%s: %w", step, receiver)
	}
	return wrap(step, err)
}

// endOnDone makes reads and writes of conn fail when ctx ends. The returned
// function undoes that and reports whether it came to it.
func endOnDone(ctx context.Context, conn net.Conn) (release func() bool) {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = conn.SetDeadline(past) // a connection that is closed already needs none
	})
	return func() bool {
		if stop() {
			return false
		}
		<-ended
		_ = conn.SetDeadline(time.Time{}) // as above
		return true
	}
}

// copyReader speaks the part of the protocol that a COPY out needs.
type copyReader struct {
	in       net.Conn
	buffer   []byte
	from, to int // what of buffer was read and not yet used
	receiver CopyReceiver
	refused  error // the receiver's
	idle     bool  // the server is ready for the next query
	txStatus byte
}

func (r *copyReader) run(sql string) (rows int64, err error) {
	query, err := (&pgproto3.Query{String: sql}).Encode(nil)
	if err != nil {
		return 0, err
	}
	if _, err := r.in.Write(query); err != nil {
		return 0, err
	}
	var failure error
	for {
		kind, length, err := r.header()
		if err != nil {
			return 0, errors.Join(failure, err)
		}
		if kind == 'd' {
			if err := r.data(length); err != nil {
				return 0, err
			}
			continue
		}
		body, err := r.body(length)
		if err != nil {
			return 0, errors.Join(failure, err)
		}
		switch kind {
		case 'C':
			rows = commandRows(body)
		case 'E':
			failure = errorResponse(body)
		case 'Z':
			r.idle = len(body) == 1 && r.from == r.to
			if r.idle {
				r.txStatus = body[0]
			}
			return rows, failure
		}
	}
}

// header reads a message's kind and the length of its body.
func (r *copyReader) header() (kind byte, length int, err error) {
	if err := r.fill(5); err != nil {
		return 0, 0, err
	}
	kind = r.buffer[r.from]
	size := binary.BigEndian.Uint32(r.buffer[r.from+1:])
	r.from += 5
	if size < 4 || size > 1<<31 {
		return 0, 0, fmt.Errorf("the server sent a message of %d bytes", size)
	}
	return kind, int(size) - 4, nil
}

// fill makes sure that n bytes, fewer than the buffer holds, lie in it.
func (r *copyReader) fill(n int) error {
	if r.to-r.from >= n {
		return nil
	}
	r.to = copy(r.buffer, r.buffer[r.from:r.to])
	r.from = 0
	for r.to < n {
		got, err := r.in.Read(r.buffer[r.to:])
		r.to += got
		if err != nil && r.to < n {
			return unexpected(err)
		}
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// data hands on one CopyData message.
func (r *copyReader) data(length int) error {
	if length == 0 {
		return r.hand(nil, true)
	}
	for left := length; left > 0; {
		if r.from == r.to {
			if err := r.fill(1); err != nil {
				return err
			}
		}
		n := min(left, r.to-r.from)
		piece := r.buffer[r.from : r.from+n]
		r.from += n
		left -= n
		if err := r.hand(piece, left == 0); err != nil {
			return err
		}
	}
	return nil
}

func (r *copyReader) hand(piece []byte, last bool) error {
	r.refused = r.receiver.Message(piece, last)
	return r.refused
}

// maxBody bounds messages that are no rows.
const maxBody = 16 << 20

func (r *copyReader) body(length int) ([]byte, error) {
	if length > maxBody {
		return nil, fmt.Errorf("the server sent a message of %d bytes", length)
	}
	body := make([]byte, length)
	n := copy(body, r.buffer[r.from:r.to])
	r.from += n
	if _, err := io.ReadFull(r.in, body[n:]); err != nil {
		return nil, unexpected(err)
	}
	return body, nil
}

// commandRows reads the number in "COPY 42".
func commandRows(body []byte) int64 {
	words := strings.Fields(strings.TrimRight(string(body), "\x00"))
	if len(words) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(words[len(words)-1], 10, 64) // 0 for a command that counts nothing
	return n
}

func errorResponse(body []byte) error {
	var e pgproto3.ErrorResponse
	if err := e.Decode(body); err != nil {
		return fmt.Errorf("the server sent an error that cannot be read: %w", err)
	}
	return pgconn.ErrorResponseToPgError(&e)
}

// CopyIn runs a COPY ... FROM STDIN, feeds it what in holds, and returns how
// many rows the server took. When reading fails the server is told so, and
// takes none. in is read in small pieces, and not any more once this returns.
func (s *Stream) CopyIn(ctx context.Context, step, sql string, in io.Reader) (int64, error) {
	if s.Lost() {
		return 0, s.fail(step, net.ErrClosed)
	}
	source := &failing{in: in}
	tag, err := s.c.CopyFrom(ctx, source, sql)
	if failure := source.end(); failure != nil {
		return 0, fmt.Errorf("%s: %w", step, failure)
	}
	if err != nil {
		return 0, s.fail(step, err)
	}
	return tag.RowsAffected(), nil
}

// failing remembers why reading failed: the server only repeats it as text. pgx
// reads in a goroutine, for which it does not wait when the session is lost or
// interrupted: after end nothing is read any more.
type failing struct {
	mu    sync.Mutex
	in    io.Reader
	err   error
	ended bool
}

func (f *failing) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return 0, net.ErrClosed
	}
	n, err := f.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// end waits for a read that is under way, and returns why reading failed.
func (f *failing) end() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	return f.err
}
