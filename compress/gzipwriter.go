package compress

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/pgzip"
)

// MaxLevel is the highest level that is used. Above it gzip costs several
// times the processor time for about one percent of size.
const MaxLevel = 6

// blockBytes is what one processor compresses at a time. Writers are always
// set to it, because the library's default number of blocks is that of all
// processors, and each costs 4 MB or more.
const blockBytes = 1 << 20

var errClosed = errors.New("gzip writer is closed")

// Cap returns the level to use for the one that was asked for, and whether it
// had to be lowered, which the user is to be told.
func Cap(level int) (used int, capped bool) {
	return min(level, MaxLevel), level > MaxLevel
}

// GzipWriter compresses what is written to it, on several processors. It is
// not safe for concurrent use. Close or Abort must be called: it has
// goroutines.
type GzipWriter struct {
	z   *pgzip.Writer // nil once closed or aborted
	err error         // the first error; sticks
}

// NewGzipWriter returns a writer that compresses to w at a level from 0
// (stored) to MaxLevel, on up to procs processors. The stream is one that any
// gzip program reads. It keeps 4 to 8 MB for each of procs.
func NewGzipWriter(w io.Writer, level, procs int) (*GzipWriter, error) {
	if level < 0 || level > MaxLevel {
		return nil, fmt.Errorf("open gzip writer: level %d is not between 0 and %d", level, MaxLevel)
	}
	if procs < 1 {
		return nil, fmt.Errorf("open gzip writer: %d processors", procs)
	}
	z, err := pgzip.NewWriterLevel(w, level)
	if err != nil {
		return nil, fmt.Errorf("open gzip writer: %w", err)
	}
	if err := z.SetConcurrency(blockBytes, procs); err != nil {
		return nil, fmt.Errorf("open gzip writer: %w", err)
	}
	return &GzipWriter{z: z}, nil
}

// Write compresses b. An error of the underlying writer is returned by some
// later Write, at the latest by Close.
func (g *GzipWriter) Write(b []byte) (int, error) {
	if g.err != nil {
		return 0, g.err
	}
	n, err := g.z.Write(b)
	g.err = err
	return n, err
}

// Close writes what is left and the stream's end. It does not close the
// underlying writer. Only a nil error means that everything was written. After
// Close or Abort it does nothing and returns an error.
func (g *GzipWriter) Close() error {
	if g.z == nil {
		return g.err
	}
	err := g.z.Close()
	if g.err == nil {
		g.err = err
	}
	first := g.err
	g.release()
	return first
}

// Abort gives up the stream. It waits for the goroutines, and so for a pending
// Write of the underlying writer. It does nothing after Close, so that it can
// be deferred.
func (g *GzipWriter) Abort() {
	if g.z != nil {
		g.release()
	}
}

// release ends and joins the goroutines. pgzip's Close leaves one of them
// behind when a write failed; its Reset ends and joins them all.
func (g *GzipWriter) release() {
	g.z.Reset(io.Discard)
	g.z = nil
	if g.err == nil {
		g.err = errClosed
	}
}
