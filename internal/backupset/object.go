package backupset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/store"
)

// ErrNotLocal is returned by Stage for a store whose objects are not files of
// this machine, and for a set that is encrypted, whose objects are not what a
// child process reads or writes.
var ErrNotLocal = errors.New("the store is not local")

// ObjectWriter receives one object's bytes. Exactly one of Commit and Abort
// ends it; Abort after Commit does nothing, so that it can be deferred. It is
// used by one goroutine.
type ObjectWriter struct {
	set   *Writer
	name  string
	out   store.Writer
	seal  *sealedWriter // nil: what is written is what is stored
	sum   hash.Hash
	bytes int64
	ended bool
}

// Object begins an object of the set, of about expect bytes (store.Create). ctx
// holds until the object has ended.
func (w *Writer) Object(ctx context.Context, name string, expect int64) (*ObjectWriter, error) {
	if err := w.reserve(name); err != nil {
		return nil, err
	}
	out, err := w.st.Create(ctx, w.key(name), expect)
	if err != nil {
		w.release(name)
		return nil, err
	}
	o := &ObjectWriter{set: w, name: name, out: out, sum: sha256.New()}
	if w.seal != nil {
		if o.seal, err = w.seal.encrypt(out); err != nil {
			return nil, errors.Join(fmt.Errorf("object %s: %w", name, err), o.Abort())
		}
	}
	return o, nil
}

// Write hands p to the store and hashes what the store took (B2). Of a set that
// is encrypted the store takes something else, which is hashed, too.
func (o *ObjectWriter) Write(p []byte) (int, error) {
	if o.ended {
		return 0, fmt.Errorf("write object %s after its end", o.name)
	}
	to := io.Writer(o.out)
	if o.seal != nil {
		to = o.seal
	}
	n, err := to.Write(p)
	o.sum.Write(p[:n])
	o.bytes += int64(n)
	return n, err
}

// Bytes returns how many bytes were written so far.
func (o *ObjectWriter) Bytes() int64 { return o.bytes }

// Commit makes the object durable and part of the set. After an error nothing
// is left of it and its name is free again.
func (o *ObjectWriter) Commit() (Object, error) {
	if o.ended {
		return Object{}, fmt.Errorf("commit object %s after its end", o.name)
	}
	o.ended = true
	if o.seal != nil {
		if err := o.seal.Close(); err != nil {
			o.set.release(o.name)
			return Object{}, errors.Join(err, o.out.Abort())
		}
	}
	if err := o.out.Commit(); err != nil {
		o.set.release(o.name)
		return Object{}, err
	}
	if o.seal != nil {
		o.set.seal.record(o.name, o.seal.object(o.name))
	}
	object := Object{Name: o.name, Bytes: o.bytes, SHA256: hex.EncodeToString(o.sum.Sum(nil))}
	o.set.release(o.name, object)
	return object, nil
}

// Abort discards the object and frees its name.
func (o *ObjectWriter) Abort() error {
	if o.ended {
		return nil
	}
	o.ended = true
	defer o.set.release(o.name)
	return o.out.Abort()
}

// Staged is a private path where a child process makes a file, or a folder of
// files, that becomes one object or several. Exactly one of Commit and Discard
// ends it; Discard after a successful Commit does nothing. It is used by one
// goroutine.
type Staged struct {
	set   *Writer
	local store.Local
	name  string
	path  string
	ended bool
}

// Stage reserves name for a file or a folder. Sets that are not Local return
// ErrNotLocal.
func (w *Writer) Stage(ctx context.Context, name string) (*Staged, error) {
	local, ok := w.st.(store.Local)
	if !ok || w.seal != nil {
		return nil, fmt.Errorf("stage object %s: %w", name, ErrNotLocal)
	}
	if err := w.reserve(name); err != nil {
		return nil, err
	}
	path, err := local.Stage(ctx, w.key(name))
	if err != nil {
		w.release(name)
		return nil, err
	}
	return &Staged{set: w, local: local, name: name, path: path}, nil
}

// Path returns where the child writes. Nothing exists there yet.
func (s *Staged) Path() string { return s.path }

// Commit hashes what is there, makes it durable and part of the set. Every
// process that wrote it must have ended. A folder becomes one object for each
// file, named NAME/FILE. After an error only Discard is left.
func (s *Staged) Commit(ctx context.Context) ([]Object, error) {
	if s.ended {
		return nil, fmt.Errorf("commit object %s after its end", s.name)
	}
	objects, err := hashTree(ctx, s.path, s.name)
	if err != nil {
		return nil, fmt.Errorf("hash staged object %s: %w", s.name, err)
	}
	if err := s.local.Publish(ctx, s.path, s.set.key(s.name)); err != nil {
		return nil, err
	}
	s.ended = true
	s.set.release(s.name, objects...)
	return objects, nil
}

// Discard removes what was staged and frees the name.
func (s *Staged) Discard() error {
	if s.ended {
		return nil
	}
	s.ended = true
	defer s.set.release(s.name)
	return s.local.Discard(s.path)
}

// hashTree returns an object for a file, or for each file of a folder, named
// below name. Files are hashed in parallel. Anything else is refused.
func hashTree(ctx context.Context, path, name string) ([]Object, error) {
	objects, err := plainFiles(path, name)
	if err != nil {
		return nil, err
	}
	if len(objects) == 0 {
		return nil, errors.New("the folder holds no file")
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range objects {
		o := &objects[i]
		group.Go(func() error {
			return hashFile(ctx, filepath.Join(path, filepath.FromSlash(o.Name[len(name):])), o)
		})
	}
	return objects, group.Wait()
}

func plainFiles(root, name string) ([]Object, error) {
	var objects []Object
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder", path)
		}
		object := Object{Name: name + filepath.ToSlash(path[len(root):])}
		objects = append(objects, object)
		return CheckName(object.Name)
	})
	return objects, err
}

func hashFile(ctx context.Context, path string, o *Object) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	sum := sha256.New()
	o.Bytes, err = io.CopyBuffer(sum, untilDone(ctx, file), make([]byte, 256<<10))
	o.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return err
}

// readFunc is a reader that is a function.
type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// untilDone returns a reader of in that ends with ctx.
func untilDone(ctx context.Context, in io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return in.Read(p)
	})
}
