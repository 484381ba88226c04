package sftp

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path"

	wire "github.com/pkg/sftp"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/folders"
)

// window is how many blocks of one object are under way at most: 2 MB, which is
// what an SSH channel takes before the other side must answer.
const window = 64

// Create begins an object in a temporary file beside its final place. A key
// that is taken already is ErrExist at once.
func (s *Store) Create(ctx context.Context, key string, _ int64) (store.Writer, error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return nil, fmt.Errorf("create object: %w", err)
	}
	info, err := s.lookUp(ctx, key)
	if err == nil && info != nil {
		err = fs.ErrExist
	}
	if err != nil {
		return nil, s.wrap(ctx, "create object", key, err)
	}
	w, err := s.newWriter(ctx, key)
	if err != nil {
		return nil, s.wrap(ctx, "create object", key, notTaken(err))
	}
	return w, nil
}

// newWriter opens the temporary file. Its folder may be missing, or be pruned
// by another writer between its making and the opening: it is made again.
func (s *Store) newWriter(ctx context.Context, key string) (*writer, error) {
	w := &writer{store: s, ctx: ctx, key: key}
	if err := w.connect(); err != nil {
		return nil, err
	}
	const attempts = 20
	var err error
	for i := 1; err == nil; i++ {
		w.temp = path.Join(path.Dir(key), folders.Partial(path.Base(key)))
		l := w.link
		w.file, err = await(ctx, l, func() (*wire.File, error) { return createFile(l.Client, s.at(w.temp)) })
		switch {
		case err == nil:
			return w, nil
		case errors.Is(err, fs.ErrNotExist) && i < attempts:
			if err = s.makeFolders(ctx, path.Dir(key)); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		case errors.Is(err, errLost) && i <= maxInVain:
			l.hangUp()
			if err = s.remove(ctx, w.temp); err == nil { // it may have been made
				err = w.connect()
			}
		}
	}
	return nil, errors.Join(err, w.discard())
}

// createFile makes a new file that nobody else can have prepared, with the
// right mode under any umask. It is empty until the mode is right.
func createFile(c *wire.Client, full string) (*wire.File, error) {
	file, err := c.OpenFile(full, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	if err := file.Chmod(fileMode); err != nil {
		return nil, errors.Join(err, file.Close(), c.Remove(full))
	}
	return file, nil
}

// notTaken keeps "a folder of the key cannot be made" from being read as "the
// object exists".
func notTaken(err error) error {
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return errors.New(err.Error())
	}
	return err
}

// writer is one object being written. The first failure is final, but for that of
// a link: then it goes on through another. Blocks are sent without waiting for the
// answers to those before, and each answer is looked at before the object is
// committed: an object has no holes.
type writer struct {
	store *Store
	ctx   context.Context // the object's, as Create promises
	key   string
	temp  string
	link  *link      // nil when the object has ended
	file  *wire.File // nil when it is closed

	block  []byte  // being filled
	flying []*sent // oldest first; what stands before them was acknowledged
	offset int64   // of the block
	err    error   // why it ended

	acked  maphash.Hash // of what was acknowledged
	inVain int          // links lost since the last answer
	before promise      // of what an earlier link was told
}

// sent is a block whose answer is to come.
type sent struct {
	block  []byte
	offset int64
	done   chan struct{} // closed when err is the answer
	err    error
}

func (w *writer) Write(p []byte) (int, error) {
	if w.link == nil {
		return 0, w.ended("write")
	}
	written := 0
	for len(p) > 0 {
		if w.block == nil {
			block, err := w.room()
			if err != nil {
				return written, w.fail("write object", err)
			}
			w.block = block
		}
		n := min(len(p), blockBytes-len(w.block))
		w.block = append(w.block, p[:n]...)
		p, written = p[n:], written+n
		if len(w.block) == blockBytes {
			w.send()
		}
	}
	return written, nil
}

// room returns an empty block: a new one, or that of the oldest answer.
func (w *writer) room() ([]byte, error) {
	if len(w.flying) < window {
		return make([]byte, 0, blockBytes), nil
	}
	block, err := w.settle()
	return block[:0], err
}

// settle waits for the oldest answer, and returns the block that it is to.
func (w *writer) settle() ([]byte, error) {
	for {
		oldest := w.flying[0]
		select {
		case <-oldest.done:
		case <-w.ctx.Done():
			return nil, w.ctx.Err()
		}
		if oldest.err == nil {
			_, _ = w.acked.Write(oldest.block) // never fails
			w.flying, w.inVain = w.flying[1:], 0
			return oldest.block, nil
		}
		if err := w.resume(oldest.err); err != nil {
			return nil, err
		}
	}
}

// send sends the block off.
func (w *writer) send() {
	w.flying = append(w.flying, w.fly(w.block, w.offset))
	w.offset += int64(len(w.block))
	w.block = nil
}

func (w *writer) fly(block []byte, offset int64) *sent {
	s := &sent{block: block, offset: offset, done: make(chan struct{})}
	file := w.file
	if !w.link.run(func() {
		defer close(s.done)
		if _, s.err = file.WriteAt(block, offset); s.err != nil && !answered(s.err) {
			s.err = fmt.Errorf("%w: %w", errLost, s.err)
		}
	}) {
		s.err = errLost
		close(s.done)
	}
	return s
}

// Commit publishes the object. The order is what makes it durable: content,
// then name, then the folders that lead to the name.
func (w *writer) Commit() error {
	if w.link == nil {
		return w.ended("commit")
	}
	if err := w.finish(); err != nil {
		return w.fail("write object", err)
	}
	if err := w.keptPromise(); err != nil {
		return w.fail("read back", err)
	}
	if err := w.store.publish(w.ctx, w.temp, w.key); err != nil {
		return w.fail("publish object", err)
	}
	if err := w.store.syncUp(w.ctx, path.Dir(w.key)); err != nil {
		// The name may or may not survive a power failure: take it back.
		ctx, cancel := afterwards(w.ctx)
		defer cancel()
		return w.fail("sync folder of", errors.Join(err, w.store.remove(ctx, w.key)))
	}
	w.release()
	w.err = errCommitted
	return nil
}

// finish brings the content to the server's disk.
func (w *writer) finish() error {
	if len(w.block) > 0 {
		w.send()
	}
	for len(w.flying) > 0 {
		if _, err := w.settle(); err != nil {
			return err
		}
	}
	for {
		size, err := w.sync()
		if err == nil && size != w.offset {
			err = fault.New(fault.Integrity, "look at the server's disk and its log", "the server has %d bytes of it, and was sent %d", size, w.offset)
		}
		if err == nil {
			break
		}
		if err := w.resume(err); err != nil {
			return err
		}
	}
	file := w.file
	w.file = nil
	_, err := await(w.ctx, w.link, func() (struct{}, error) { return struct{}{}, file.Close() })
	if errors.Is(err, errLost) { // which closes it, too
		return nil
	}
	return err
}

// sync brings the file to the disk and returns its size.
func (w *writer) sync() (int64, error) {
	file := w.file
	return await(w.ctx, w.link, func() (int64, error) {
		if err := w.store.sync(file); err != nil {
			return 0, err
		}
		info, err := file.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	})
}

// errCommitted marks the good end.
var errCommitted = errors.New("the object is committed")

// Abort discards what was written.
func (w *writer) Abort() error {
	if w.link == nil {
		return nil
	}
	w.err = errors.New("the object was aborted")
	return w.store.wrap(context.WithoutCancel(w.ctx), "discard object", w.key, w.discard())
}

func (w *writer) ended(step string) error {
	return fmt.Errorf("%s %s after its end: %w", step, w.key, w.err)
}

// fail ends the object for good and removes what is there of it.
func (w *writer) fail(step string, err error) error {
	w.err = w.store.wrap(w.ctx, step, w.key, err)
	if err := w.discard(); err != nil {
		w.err = errors.Join(w.err, fmt.Errorf("discard it: %w", err))
	}
	return w.err
}

// release gives the link back.
func (w *writer) release() {
	if w.link != nil {
		w.store.links.give(w.link)
	}
	w.link, w.flying, w.block = nil, nil, nil
}

// discard removes the temporary file and the folders that it leaves empty. It
// has its own time: the object's context may have ended, and be why.
func (w *writer) discard() error {
	ctx, cancel := afterwards(w.ctx)
	defer cancel()
	l, file := w.link, w.file
	w.file = nil
	w.release()
	if file != nil {
		// A lost link closes it, too; and removing does not need it closed.
		_, _ = await(ctx, l, func() (struct{}, error) { return struct{}{}, file.Close() })
	}
	if err := w.store.remove(ctx, w.temp); err != nil {
		return err
	}
	return w.store.pruneUp(ctx, path.Dir(w.key))
}
