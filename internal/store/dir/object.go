package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dbbackup/internal/store"
	"dbbackup/internal/store/folders"
)

// Create begins an object in a temporary file beside its final place. A key
// that is taken already is ErrExist at once.
func (d *Dir) Create(ctx context.Context, key string, _ int64) (store.Writer, error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return nil, fmt.Errorf("create object: %w", err)
	}
	w := &writer{dir: d, key: key, temp: path.Join(path.Dir(key), folders.Partial(path.Base(key)))}
	if err := w.open(); err != nil {
		return nil, errors.Join(d.wrap("create object", key, err), d.pruneUp(path.Dir(key)))
	}
	return w, nil
}

// writer is one object being written. The first failure is final.
type writer struct {
	dir  *Dir
	key  string
	temp string
	file *os.File // nil when the object has ended
	err  error    // why it ended without being committed

	written, begun int64 // bytes, and those of which the way to the device has begun
}

func (w *writer) open() error {
	w.dir.folders.Lock()
	defer w.dir.folders.Unlock()
	if err := w.dir.makeFolders(path.Dir(w.key)); err != nil {
		return notTaken(err)
	}
	if _, err := w.dir.root.Lstat(w.key); err == nil {
		return fs.ErrExist
	}
	file, err := w.dir.createFile(w.temp)
	w.file = file
	return err
}

// notTaken keeps "a folder of the key cannot be made" from being read as "the
// object exists".
func notTaken(err error) error {
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return errors.New(err.Error())
	}
	return err
}

func (w *writer) Write(p []byte) (int, error) {
	if w.file == nil {
		return 0, w.ended("write")
	}
	n, err := w.file.Write(p)
	if err != nil {
		return n, w.fail("write object", err)
	}
	w.written += int64(n)
	if w.written-w.begun >= writeBehind {
		w.beginSync()
	}
	return n, nil
}

// writeBehind is how much of an object the kernel may gather before it begins to
// write. Left alone it waits for the sync, and so would whoever commits.
const writeBehind = 8 << 20

// beginSync lets the device work while more comes. It waits for nothing, promises
// nothing, and leaves errors to the sync (sync_file_range(2)).
func (w *writer) beginSync() {
	raw, err := w.file.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			_ = unix.SyncFileRange(int(fd), w.begun, w.written-w.begun, unix.SYNC_FILE_RANGE_WRITE) //nolint:gosec // a descriptor
		})
	}
	if err == nil {
		w.begun = w.written
	}
}

// Commit publishes the object. The order is what makes it durable: content,
// then name, then the folders that lead to the name.
func (w *writer) Commit() error {
	if w.file == nil {
		return w.ended("commit")
	}
	if err := w.file.Sync(); err != nil {
		return w.fail("sync object", err)
	}
	file := w.file
	w.file = nil
	if err := file.Close(); err != nil {
		return w.fail("close object", err)
	}
	if err := w.dir.renameNew(w.temp, w.key); err != nil {
		return w.fail("publish object", err)
	}
	if err := w.dir.syncUp(path.Dir(w.key)); err != nil {
		// The name may or may not survive a power failure: take it back.
		return w.fail("sync folder of", errors.Join(err, w.dir.root.Remove(w.key)))
	}
	w.err = errCommitted
	return nil
}

// errCommitted marks the good end.
var errCommitted = errors.New("the object is committed")

// Abort discards what was written.
func (w *writer) Abort() error {
	if w.file == nil {
		return nil
	}
	w.err = errors.New("the object was aborted")
	return w.dir.wrap("discard object", w.key, w.discard())
}

func (w *writer) ended(step string) error {
	return fmt.Errorf("%s %s after its end: %w", step, w.key, w.err)
}

// fail ends the object for good and removes what is there of it.
func (w *writer) fail(step string, err error) error {
	w.err = w.dir.wrap(step, w.key, err)
	if err := w.discard(); err != nil {
		w.err = errors.Join(w.err, err)
	}
	return w.err
}

func (w *writer) discard() error {
	if w.file != nil {
		_ = w.file.Close() // its content is thrown away: nothing depends on the result
		w.file = nil
	}
	if err := w.dir.root.Remove(w.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return w.dir.pruneUp(path.Dir(w.key))
}

// Open reads an object. A symbolic link, wherever in the key, is refused.
func (d *Dir) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	return d.open(ctx, key)
}

// OpenRange reads a part of an object, under the same rules.
func (d *Dir) OpenRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	file, err := d.open(ctx, key)
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return nil, errors.Join(d.wrap("open object", key, err), file.Close())
	}
	if length < 0 {
		return file, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(file, length), file}, nil
}

func (d *Dir) open(ctx context.Context, key string) (*os.File, error) {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	file, err := d.openPlain(key)
	if err != nil {
		return nil, d.wrap("open object", key, err)
	}
	return file, nil
}

// Delete removes an object durably, and the folders that it leaves empty.
func (d *Dir) Delete(ctx context.Context, key string) error {
	if err := errors.Join(ctx.Err(), store.CheckKey(key)); err != nil {
		return fmt.Errorf("delete object: %w", err)
	}
	return d.wrap("delete object", key, d.remove(key))
}

func (d *Dir) remove(key string) error {
	folder := path.Dir(key)
	if err := d.checkFolders(folder); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	info, err := d.root.Lstat(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return errors.New("is a folder")
	}
	if err := d.root.Remove(key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.syncFolder(folder); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.pruneUp(folder)
}

// List calls fn for every regular file whose key begins with prefix.
func (d *Dir) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	start := "."
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		start = prefix[:i]
		if err := store.CheckKey(start); err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
	}
	if err := d.checkFolders(start); errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return ctx.Err() // no keys can be there
	} else if err != nil {
		return d.wrap("list", prefix, err)
	}
	return d.walk(ctx, start, prefix, fn)
}

// walk visits one folder in key order.
func (d *Dir) walk(ctx context.Context, folder, prefix string, fn func(store.Info) error) error {
	entries, err := d.entries(folder)
	if err != nil {
		return d.wrap("list folder", folder, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
		key := path.Join(folder, e.Name())
		switch {
		case store.CheckKey(key) != nil:
		case e.IsDir() && folders.Overlaps(key+"/", prefix):
			err = d.walk(ctx, key, prefix, fn)
		case e.Type().IsRegular() && strings.HasPrefix(key, prefix):
			err = d.visit(key, e, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) visit(key string, e fs.DirEntry, fn func(store.Info) error) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted since the folder was read
	}
	if err != nil {
		return d.wrap("list", key, err)
	}
	return fn(store.Info{Key: key, Bytes: info.Size(), Modified: info.ModTime()})
}

func (d *Dir) entries(folder string) ([]fs.DirEntry, error) {
	handle, err := d.root.Open(folder)
	if err != nil {
		return nil, err
	}
	defer handle.Close()
	entries, err := handle.ReadDir(-1)
	slices.SortFunc(entries, folders.Compare[fs.DirEntry])
	return entries, err
}
