package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Open reads an object. A transfer that is cut goes on where it was.
func (b *Bucket) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	return b.OpenRange(ctx, key, 0, -1)
}

// OpenRange reads a range of an object.
func (b *Bucket) OpenRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	full, err := b.full(key)
	if err == nil && offset < 0 {
		err = fmt.Errorf("offset %d is negative", offset)
	}
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, fmt.Errorf("open object: %w", err)
	}
	r := &reader{bucket: b, ctx: ctx, key: key, full: full, next: offset, end: -1}
	if length >= 0 {
		r.end = offset + length
	}
	if err := r.open(); err != nil {
		return nil, b.wrap(opRead, key, err)
	}
	return r, nil
}

// reader is one object being read.
type reader struct {
	bucket    *Bucket
	ctx       context.Context // of the whole object, as store.Store.Open says
	key, full string
	version   string // what is read, once the service has said it
	next, end int64  // what is left to read; end is negative until it is known
	body      *content
	cuts      int // since the last byte
	err       error
}

// open asks for what is left, of the version that was read before.
func (r *reader) open() error {
	if r.end >= 0 && r.next >= r.end {
		return r.checkExists()
	}
	err := r.bucket.retry(r.ctx, "read "+r.key, r.request)
	if status, _ := answerOf(err); status == http.StatusRequestedRangeNotSatisfiable && r.version == "" {
		r.end = r.next // the range begins behind the end
		return r.checkExists()
	}
	if err != nil {
		return err
	}
	if r.end < 0 || r.end > r.body.size {
		r.end = r.body.size
	}
	r.version = r.body.version
	return nil
}

func (r *reader) request(ctx context.Context) (err error) {
	length := int64(-1)
	if r.end >= 0 {
		length = r.end - r.next
	}
	r.body, err = r.bucket.service.open(ctx, r.full, r.next, length, r.version)
	return err
}

// checkExists is for ranges in which there is nothing to read.
func (r *reader) checkExists() error {
	return r.bucket.retry(r.ctx, "look at "+r.key, func(ctx context.Context) error {
		_, err := r.bucket.service.look(ctx, r.full)
		return err
	})
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	for {
		if r.body == nil && r.next >= r.end {
			r.err = io.EOF
			return 0, r.err
		}
		n, err := r.body.Read(p)
		if n > 0 {
			r.next += int64(n)
			r.cuts = 0
			return n, nil // an error comes again
		}
		if err == nil {
			continue
		}
		if r.err = r.goOn(err); r.err != nil {
			return 0, r.err
		}
	}
}

// goOn decides what the end of a transfer means: the end of the object, or a
// cut, after which it asks for the rest.
func (r *reader) goOn(end error) error {
	switch {
	case r.ctx.Err() != nil:
		return r.bucket.wrap(opRead, r.key, stopped(r.ctx, end))
	case r.next == r.end && errors.Is(end, io.EOF):
		return io.EOF
	case r.next >= r.end:
		return r.bucket.wrap(opRead, r.key, fault.New(fault.Integrity, "read it again; if the error stays, the stored object is damaged",
			"the bytes that arrived do not match the service's checksum: %w", end))
	}
	r.cuts++
	err := fmt.Errorf("the transfer was cut at byte %d of %d: %w", r.next, r.end, end)
	if r.cuts >= r.bucket.options.Attempts {
		return r.bucket.wrap(opRead, r.key, fault.New(fault.Unavailable, "see whether the service can be reached from this machine, then run again", "%w", err))
	}
	if err := r.bucket.pause(r.ctx, "read "+r.key, r.cuts, err); err != nil {
		return r.bucket.wrap(opRead, r.key, err)
	}
	_ = r.body.Close() // nothing is expected of it any more
	r.body = nil
	return r.bucket.wrap(opRead, r.key, r.open())
}

func (r *reader) Close() error {
	if r.err == nil || errors.Is(r.err, io.EOF) {
		r.err = fmt.Errorf("read %s after its end: %w", r.key, errClosed)
	}
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return r.bucket.wrap(opRead, r.key, err)
}

var errClosed = errors.New("the object is closed")

// Delete removes an object.
func (b *Bucket) Delete(ctx context.Context, key string) error {
	full, err := b.full(key)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return fmt.Errorf("delete object: %w", err)
	}
	return b.remove(ctx, full)
}

func (b *Bucket) remove(ctx context.Context, full string) error {
	err := b.retry(ctx, "delete "+b.short(full), func(ctx context.Context) error { return b.service.remove(ctx, full) })
	if err = b.wrap(opDelete, b.short(full), err); errors.Is(err, store.ErrNotExist) {
		return nil
	}
	return err
}
