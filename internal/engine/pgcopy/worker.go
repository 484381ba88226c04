package pgcopy

import (
	"context"
	"fmt"
	"unicode/utf8"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
	"dbbackup/internal/report"
)

// maxLosses is how many sessions a job may cost before it is given up.
const maxLosses = 5

// worker reads chunks, in a session of its own under the snapshot.
type worker struct {
	c      *capture
	limits limits
	stream *pg.Stream // nil: none yet, or the last one was lost
	codec  *compress.Writer
	buffer []byte
}

// bufferBytes gathers rows for the codec.
const bufferBytes = 128 << 10

func (c *capture) newWorker() *worker {
	return &worker{c: c, limits: c.limits, buffer: make([]byte, 0, bufferBytes)}
}

// work does jobs until the queue is over. The caller lets the worker leave.
func (w *worker) work(ctx context.Context) (err error) {
	if w.codec, err = w.c.req.Codec.NewWriter(); err != nil {
		return err
	}
	for j := w.c.queue.next(); j != nil; j = w.c.queue.next() {
		err := w.do(ctx, j)
		if err != nil {
			w.c.queue.end()
		}
		w.c.queue.done()
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) leave(ctx context.Context) {
	if w.stream != nil {
		w.c.snapshot.leave(ctx, w.stream)
		w.stream = nil
	}
}

// do runs a job, again when its session is lost, under the same snapshot.
func (w *worker) do(ctx context.Context, j *job) error {
	release, err := w.c.pool.take(ctx, j.bytes)
	if err != nil {
		return err
	}
	defer release()
	for losses := 0; ; losses++ {
		if err := w.join(ctx); err != nil {
			return fmt.Errorf("%s: %w", j.what, err)
		}
		w.c.snapshot.offer(ctx, w.stream)
		err := j.run(ctx, w)
		if err == nil {
			w.c.snapshot.rest(w.stream)
			return nil
		}
		if pg.IsLockTimeout(err) && !w.stream.Lost() {
			return w.c.readHeld(ctx, w, j)
		}
		if !w.stream.Lost() || ctx.Err() != nil || losses >= maxLosses || !pg.Lost(err) {
			return fmt.Errorf("%s: %w", j.what, err)
		}
		w.c.report.Warn("a session was lost; its chunk is read again under the same snapshot",
			report.F("database", w.c.req.Database), report.F("chunk", j.what), report.F("because", err))
		w.leave(ctx)
	}
}

func (w *worker) join(ctx context.Context) (err error) {
	if w.stream != nil {
		w.c.snapshot.claim(w.stream)
		if w.stream.Lost() {
			w.leave(ctx)
		}
	}
	if w.stream == nil {
		w.stream, err = w.c.snapshot.joinWorker(ctx)
	}
	return err
}

// object is an object that a worker fills with one stream or several.
type object struct {
	*backupset.ObjectWriter
	name   string
	shared bool      // several streams lie in it
	count  func(int) // told of every stored byte
}

// open begins the next object of the database's folder.
func (w *worker) open(ctx context.Context) (*object, error) {
	c := w.c
	suffix := ".copy" + c.req.Codec.Suffix()
	name := objectName(c.req.Folder, c.req.Base.number(), suffix)
	out, err := c.set.Object(ctx, name, c.req.ChunkBytes)
	if err != nil {
		return nil, err
	}
	return &object{ObjectWriter: out, name: name, count: func(n int) { c.stored.Add(int64(n)) }}, nil
}

// copyOut reads one COPY stream into the object, and returns the piece that it
// became: without an object when there were no rows. Its digest of stored bytes is
// that of the part; who puts one stream only into an object takes the object's.
func (w *worker) copyOut(ctx context.Context, out *object, table, step, sql, format string) (backupset.Piece, error) {
	from := out.Bytes()
	s, part := w.newSink(ctx, out, format)
	end := w.c.active.begin(table, s)
	rows, err := w.stream.CopyOut(ctx, step, sql, s)
	end()
	if err != nil {
		return backupset.Piece{}, err
	}
	if rows != s.messages.rows {
		return backupset.Piece{}, fmt.Errorf("%s: the server says that it sent %d rows, and %d came", step, rows, s.messages.rows)
	}
	if err := s.close(); err != nil {
		return backupset.Piece{}, fmt.Errorf("%s: %w", step, err)
	}
	return backupset.Piece{
		Object: out.name, Offset: from, Bytes: out.Bytes() - from, RawBytes: s.raw, Codec: w.c.req.Codec.String(),
		SHA256: part.digest(), Rows: s.messages.rows, Digest: backupset.FormatDigest(s.messages.sum),
	}, nil
}

// sink takes a COPY stream to the codec.
type sink struct {
	w        *worker
	ctx      context.Context //nolint:containedctx // of one CopyOut, which has no place for it in its receiver
	messages *messages
	raw      int64 // bytes that went to the codec
	came     int64 // bytes that came
}

// newSink begins a stream in an object. What an earlier stream, which broke off,
// left in the worker's buffer is forgotten.
func (w *worker) newSink(ctx context.Context, out *object, format string) (*sink, *part) {
	part := newPart(out)
	w.codec.Reset(part)
	w.buffer = w.buffer[:0]
	return &sink{w: w, messages: newMessages(format), ctx: ctx}, part
}

// close ends the stream. What came and what was written must be the same.
func (s *sink) close() error {
	if err := s.flush(); err != nil {
		return err
	}
	if s.raw != s.came {
		return fmt.Errorf("%d bytes came and %d were written", s.came, s.raw)
	}
	return s.w.codec.Close()
}

// direct is the size from which a piece is not gathered with others.
const direct = 32 << 10

// Message implements pg.CopyReceiver.
func (s *sink) Message(piece []byte, last bool) error {
	s.messages.add(piece, last)
	s.came += int64(len(piece))
	w := s.w
	if len(piece) >= direct || len(w.buffer)+len(piece) > cap(w.buffer) {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if len(piece) >= direct {
		return s.write(piece)
	}
	w.buffer = append(w.buffer, piece...)
	return nil
}

func (s *sink) flush() error {
	err := s.write(s.w.buffer)
	s.w.buffer = s.w.buffer[:0]
	return err
}

func (s *sink) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := s.w.c.manners.pass(s.ctx, len(p)); err != nil {
		return err
	}
	s.raw += int64(len(p))
	s.w.c.signs.Add(int64(len(p)))
	s.w.c.active.moved(s, s.messages.rows, s.raw)
	_, err := s.w.codec.Write(p)
	return err
}

func validName(name string) bool { return utf8.ValidString(name) }
