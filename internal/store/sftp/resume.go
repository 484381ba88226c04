package sftp

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/fault"
)

// maxInVain is how many links in a row may be lost, without an answer to a block,
// until an object fails. The links themselves wait for the server.
const maxInVain = 5

// promise is what the server acknowledged of an object through links that were
// lost: so many bytes, with this digest.
type promise struct {
	bytes int64
	sum   uint64
}

// resume goes on with an object whose link was lost, through another one and in the
// same file. What the server has not acknowledged is still here, and is sent again;
// should the old session still come to write some of it, that is the same bytes in
// the same places. What it has acknowledged is no longer here, and may be gone
// where the whole host went down: Commit looks. Any other error is returned.
func (w *writer) resume(why error) error {
	if !errors.Is(why, errLost) {
		return why
	}
	for errors.Is(why, errLost) && w.inVain < maxInVain {
		w.inVain++
		w.link.hangUp()
		for _, s := range w.flying {
			<-s.done // its block is read until then
		}
		if why = w.reopen(); why == nil {
			for i, s := range w.flying {
				w.flying[i] = w.fly(s.block, s.offset)
			}
			return nil
		}
	}
	return fmt.Errorf("go on at byte %d: %w", w.acknowledged(), why)
}

// acknowledged is how many bytes the server has said to have.
func (w *writer) acknowledged() int64 {
	if len(w.flying) > 0 {
		return w.flying[0].offset
	}
	return w.offset
}

// connect takes a link for the object, in the place of the one that it has.
func (w *writer) connect() (err error) {
	if w.link != nil {
		w.store.links.give(w.link)
	}
	w.file = nil
	w.link, err = w.store.links.take(w.ctx)
	return err
}

// reopen opens the temporary file again.
func (w *writer) reopen() error {
	if err := w.connect(); err != nil {
		return err
	}
	switch info, err := w.store.lookUp(w.ctx, w.temp); {
	case err != nil:
		return err
	case info == nil:
		return errors.New("what was sent so far was deleted")
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s %w", w.temp, errNotOurs)
	case info.Size() < w.acknowledged():
		return errForgotten
	}
	l := w.link
	var err error
	w.file, err = await(w.ctx, l, func() (*wire.File, error) { return l.OpenFile(w.store.at(w.temp), os.O_WRONLY) })
	w.before = promise{w.acknowledged(), w.acked.Sum64()}
	return err
}

var errForgotten = fault.New(fault.Integrity, "its host may have gone down; run again", "the server has lost bytes that it had acknowledged")

// keptPromise reads what was acknowledged through links that were lost: between
// that and the sync of the file the server's host may have lost it.
func (w *writer) keptPromise() error {
	if w.before.bytes == 0 {
		return nil
	}
	r := &reader{store: w.store, ctx: w.ctx, key: w.temp, ahead: firstAhead, end: w.before.bytes}
	if err := r.open(); err != nil {
		return err
	}
	var sum maphash.Hash
	sum.SetSeed(w.acked.Seed())
	n, err := io.Copy(&sum, r)
	if err = errors.Join(err, r.Close()); err == nil && (n != w.before.bytes || sum.Sum64() != w.before.sum) {
		err = errForgotten
	}
	return err
}
