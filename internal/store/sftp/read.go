package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Open reads an object. A symbolic link, wherever in the key, is refused.
func (s *Store) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	return s.OpenRange(ctx, key, 0, -1)
}

// OpenRange reads a part of an object, under the same rules.
func (s *Store) OpenRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	err := errors.Join(ctx.Err(), store.CheckKey(key))
	if err == nil && offset < 0 {
		err = fmt.Errorf("offset %d of %s", offset, key)
	}
	if err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	r := &reader{store: s, ctx: ctx, key: key, next: offset, ahead: firstAhead}
	if err := r.open(); err != nil {
		return nil, s.wrap(ctx, "open object", key, err)
	}
	r.end = max(offset, r.info.Size())
	if length >= 0 && length < r.end-offset {
		r.end = offset + length
	}
	return r, nil
}

// firstAhead is how many blocks are asked for at first: who wants only the head
// of an object does not get two megabytes sent. Each block read adds some.
const firstAhead = 8

// reader asks for blocks before they are wanted. When the link is lost it opens
// the object again on another and goes on where it stood.
type reader struct {
	store *Store
	ctx   context.Context // the object's
	key   string
	info  os.FileInfo // as it was opened first
	link  *link       // nil when closed
	file  *wire.File

	next    int64      // offset of the next block to ask for
	end     int64      // of what is wanted
	ahead   int        // how many blocks may be asked for
	asked   []*fetched // oldest first
	current []byte     // what is left of the block being read
	spare   [][]byte   // blocks to use again
	used    []byte     // the block that current is of
	inVain  int        // resumed so often since the last block came
	err     error      // that all reads return
}

// fetched is a block that is to come.
type fetched struct {
	block  []byte
	offset int64
	done   chan error
}

// open opens the file, if it is the plain file that it was before.
func (r *reader) open() error {
	l, err := r.store.links.take(r.ctx)
	if err != nil {
		return err
	}
	info, file, err := r.openOn(l)
	if err != nil {
		r.store.links.give(l)
		return err
	}
	r.link, r.file, r.info = l, file, info
	return nil
}

func (r *reader) openOn(l *link) (os.FileInfo, *wire.File, error) {
	before, err := r.store.lookUp(r.ctx, r.key)
	switch {
	case err != nil:
		return nil, nil, err
	case before == nil:
		return nil, nil, store.ErrNotExist
	case !before.Mode().IsRegular():
		return nil, nil, fmt.Errorf("%s %w", r.key, errNotOurs)
	}
	file, err := await(r.ctx, l, func() (*wire.File, error) { return l.Open(r.store.at(r.key)) })
	if err != nil {
		return nil, nil, err
	}
	after, err := await(r.ctx, l, file.Stat)
	if err == nil && !same(before, after) || err == nil && r.info != nil && !same(r.info, after) {
		err = fault.New(fault.Integrity, "objects are never changed: look who else writes to the store", "%s was changed while it was read", r.key)
	}
	if err != nil {
		leave(l, file)
		return nil, nil, err
	}
	return after, file, nil
}

// same reports whether a file can be the one that was seen.
func same(a, b os.FileInfo) bool {
	return a.Size() == b.Size() && a.ModTime().Equal(b.ModTime()) && b.Mode().IsRegular()
}

// leave closes a file that was only read. Nobody waits: the answers that are
// still to come stand before it.
func leave(l *link, file *wire.File) {
	l.run(func() { _ = file.Close() })
}

func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.fill(); err != nil {
		return 0, err
	}
	n := copy(p, r.current)
	r.current = r.current[n:]
	return n, nil
}

// WriteTo is for io.Copy: no block is copied.
func (r *reader) WriteTo(w io.Writer) (written int64, err error) {
	for {
		if err := r.fill(); err == io.EOF {
			return written, nil
		} else if err != nil {
			return written, err
		}
		n, err := w.Write(r.current)
		written += int64(n)
		r.current = r.current[n:]
		if err != nil {
			return written, err
		}
	}
}

// fill makes the next block current, if the current one is read. The first
// error stays.
func (r *reader) fill() error {
	if len(r.current) > 0 {
		return nil
	}
	if r.err == nil {
		r.err = r.advance()
	}
	return r.err
}

func (r *reader) advance() error {
	if r.used != nil {
		r.spare, r.used = append(r.spare, r.used), nil
	}
	for {
		r.request()
		if len(r.asked) == 0 {
			return io.EOF
		}
		oldest := r.asked[0]
		select {
		case err := <-oldest.done:
			if err == nil {
				r.asked, r.inVain = r.asked[1:], 0
				r.current, r.used = oldest.block, oldest.block
				return nil
			}
			if err := r.resume(oldest.offset, err); err != nil {
				return r.store.wrap(r.ctx, "read object", r.key, err)
			}
		case <-r.ctx.Done():
			return fmt.Errorf("read object %s: %w", r.key, r.ctx.Err())
		}
	}
}

// request asks for blocks until enough are under way.
func (r *reader) request() {
	for len(r.asked) < r.ahead && r.next < r.end {
		n := min(r.end-r.next, blockBytes)
		f := &fetched{block: r.block()[:n], offset: r.next, done: make(chan error, 1)}
		file := r.file
		if !r.link.run(func() { f.done <- readBlock(file, f) }) {
			f.done <- errLost
		}
		r.asked = append(r.asked, f)
		r.next += n
	}
	r.ahead = min(r.ahead+2, window)
}

func (r *reader) block() []byte {
	if last := len(r.spare) - 1; last >= 0 {
		block := r.spare[last]
		r.spare = r.spare[:last]
		return block[:blockBytes]
	}
	return make([]byte, blockBytes)
}

// readBlock reads a whole block, in several requests where a server sends less
// than was asked for.
func readBlock(file *wire.File, f *fetched) error {
	n, err := file.ReadAt(f.block, f.offset)
	switch {
	case n == len(f.block):
		return nil
	case err == io.EOF:
		return errShort // or the end of the connection
	case err != nil && !answered(err):
		return fmt.Errorf("%w: %w", errLost, err)
	case err == nil:
		return errShort
	}
	return err
}

var errShort = errors.New("it ends before its size")

// resume opens the object again, after a link was lost, and goes on at an
// offset. What was asked for behind it is asked for again. The links wait for
// the server; this only counts how often that was in vain.
func (r *reader) resume(offset int64, why error) error {
	short := errors.Is(why, errShort) // it is what a lost link looks like, too
	if short && !r.link.isDead() {
		return fault.New(fault.Integrity, "verify the set that it belongs to", "%w (%d bytes)", errShort, r.info.Size())
	}
	if !short && !errors.Is(why, errLost) {
		return why
	}
	r.link.hangUp()
	const attempts = 5
	for {
		r.drop()
		if r.inVain++; r.inVain > attempts {
			return fmt.Errorf("resume at byte %d: %w", offset, why)
		}
		err := r.open()
		if err == nil {
			r.next, r.ahead = offset, firstAhead
			return nil
		}
		if !errors.Is(err, errLost) {
			return fmt.Errorf("resume at byte %d: %w", offset, err)
		}
	}
}

// drop gives up the link and what was asked of it.
func (r *reader) drop() {
	r.asked = nil // their blocks are still written to: none is used again
	if r.link == nil {
		return
	}
	leave(r.link, r.file)
	r.store.links.give(r.link)
	r.link = nil
}

// Close ends the reading.
func (r *reader) Close() error {
	r.drop()
	r.err = os.ErrClosed
	r.current, r.used, r.spare = nil, nil, nil
	return nil
}
