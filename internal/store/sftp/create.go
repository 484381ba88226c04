package sftp

import (
	"context"
	"errors"
	"fmt"
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
	l, err := s.links.take(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{store: s, ctx: ctx, key: key, link: l}
	const attempts = 20
	for i := 1; ; i++ {
		w.temp = path.Join(path.Dir(key), folders.Partial(path.Base(key)))
		w.file, err = await(ctx, l, func() (*wire.File, error) { return createFile(l.Client, s.at(w.temp)) })
		if err == nil {
			return w, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || i == attempts {
			break
		}
		if err = s.makeFolders(ctx, path.Dir(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			break
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

// writer is one object being written. The first failure is final. Blocks are
// sent without waiting for the answers to those before, and each answer is
// looked at before the object is committed: an object has no holes.
type writer struct {
	store *Store
	ctx   context.Context // the object's, as Create promises
	key   string
	temp  string
	link  *link      // nil when the object has ended
	file  *wire.File // nil when it is closed

	block  []byte  // being filled
	flying []*sent // oldest first
	offset int64   // of the block
	err    error   // why it ended
}

// sent is a block whose answer is to come.
type sent struct {
	block []byte
	done  chan error
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
	oldest := w.flying[0]
	if err := w.settle(); err != nil {
		return nil, err
	}
	return oldest.block[:0], nil
}

// settle waits for the oldest answer.
func (w *writer) settle() error {
	select {
	case err := <-w.flying[0].done:
		w.flying = w.flying[1:]
		return err
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// send sends the block off.
func (w *writer) send() {
	s := &sent{block: w.block, done: make(chan error, 1)}
	file, offset := w.file, w.offset
	if !w.link.run(func() {
		_, err := file.WriteAt(s.block, offset)
		if err != nil && !answered(err) {
			err = fmt.Errorf("%w: %w", errLost, err)
		}
		s.done <- err
	}) {
		s.done <- errLost
	}
	w.flying = append(w.flying, s)
	w.offset += int64(len(w.block))
	w.block = nil
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
		if err := w.settle(); err != nil {
			return err
		}
	}
	file := w.file
	info, err := await(w.ctx, w.link, func() (os.FileInfo, error) {
		if w.store.syncsFiles {
			if err := file.Sync(); err != nil {
				return nil, err
			}
		}
		return file.Stat()
	})
	if err != nil {
		return err
	}
	if info.Size() != w.offset {
		return fault.New(fault.Integrity, "look at the server's disk and its log", "the server has %d bytes of it, and was sent %d", info.Size(), w.offset)
	}
	w.file = nil
	_, err = await(w.ctx, w.link, func() (struct{}, error) { return struct{}{}, file.Close() })
	return err
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
