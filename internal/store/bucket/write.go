package bucket

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Create begins an object. It sends nothing before the first part is full: a
// key that is taken already is ErrExist at Commit.
func (b *Bucket) Create(ctx context.Context, key string, expect int64) (store.Writer, error) {
	full, err := b.full(key)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return nil, fmt.Errorf("create object: %w", err)
	}
	partBytes, err := b.partBytes(expect)
	if err != nil {
		return nil, b.wrap(opPut, key, err)
	}
	w := &writer{
		bucket: b, ctx: ctx, key: key, full: full, token: rand.Text(),
		partBytes: partBytes, most: partBytes * b.service.limits().maxParts, streams: 1,
	}
	if b.service.limits().parallel {
		w.streams = b.options.Streams
	}
	if expect > partBytes/2 {
		if err := w.takeFirst(); err != nil {
			return nil, b.wrap(opPut, key, err)
		}
	}
	return w, nil
}

// roomy is up to which size parts leave room for four times of what is
// expected. Beyond it memory counts for more, and half as much again must do.
const roomy = 16 << 20

// partBytes sizes parts so that they suffice. They are whole MiB, and all of an
// object are equal: Cloudflare's R2 takes no others.
func (b *Bucket) partBytes(expect int64) (int64, error) {
	const mib = 1 << 20
	limits, expect := b.service.limits(), max(0, min(expect, 1<<60))
	wholeMiB := func(n int64) int64 { return (n + mib - 1) / mib * mib }
	divide := func(total int64) int64 { return wholeMiB(total/limits.maxParts + 1) }
	if divide(expect) > limits.maxPart {
		return 0, fmt.Errorf("an object of %s is more than the service can hold in %d parts", bytesize.Format(expect), limits.maxParts)
	}
	size := max(wholeMiB(b.options.PartBytes), limits.minPart)
	size = max(size, min(divide(4*expect), roomy), divide(expect+expect/2))
	return min(size, limits.maxPart), nil
}

// writer is one object being written. The first failure is final.
type writer struct {
	bucket    *Bucket
	ctx       context.Context // of the whole object, as store.Store.Create says
	key, full string
	token     string
	partBytes int64
	most      int64 // bytes that the parts can hold
	streams   int

	buf      []byte // the part being filled; nil when the object has ended
	mapped   bool   // buf is one of the bucket's buffers
	reserved int    // parts taken from the budget
	size     int64
	err      error // why it ended without being committed

	upload upload // nil while the object fits into one part
	number int    // parts handed over
	free   chan []byte
	group  *errgroup.Group
	failed context.Context // ends when a part failed
	cancel context.CancelFunc
	ended  bool
}

// takeFirst exchanges what buf is for a whole part's buffer.
func (w *writer) takeFirst() error {
	buf, err := w.bucket.buffers.take(w.partBytes)
	if err != nil {
		return err
	}
	w.buf, w.mapped = append(buf, w.buf...), true
	return nil
}

func (w *writer) Write(p []byte) (int, error) {
	if w.ended {
		return 0, w.after("write")
	}
	written := 0
	for written < len(p) {
		if err := w.makeRoom(int64(len(p) - written)); err != nil {
			return written, w.fail(err)
		}
		n := min(len(p)-written, cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[written:written+n]...)
		written += n
		w.size += int64(n)
	}
	return written, nil
}

// makeRoom leaves room in buf. A part that is full is only sent when more
// follows: an object of one part is one request.
func (w *writer) makeRoom(want int64) error {
	length := int64(len(w.buf))
	switch {
	case length < int64(cap(w.buf)):
		return nil
	case length >= w.partBytes:
		return w.sendPart()
	case length+want <= 256<<10: // many objects are small
		w.buf = append(make([]byte, 0, max(4<<10, 2*(length+want))), w.buf...)
		return nil
	}
	return w.takeFirst()
}

// sendPart hands the full buffer over and takes another one.
func (w *writer) sendPart() error {
	if w.size >= w.most {
		return fault.New(fault.Failed, "use the native engine (--mode chunked), which writes objects of a known size, or run again: the size is estimated anew",
			"the object outgrew what was expected of it: its %d parts of %s are full", w.number+1, bytesize.Format(w.partBytes))
	}
	if w.upload == nil {
		if err := w.begin(); err != nil {
			return err
		}
	}
	w.handOver()
	return w.takeNext()
}

func (w *writer) begin() error {
	err := w.bucket.retry(w.ctx, "begin upload of "+w.key, func(ctx context.Context) (err error) {
		w.upload, err = w.bucket.service.begin(ctx, w.full, w.token)
		return err
	})
	if err != nil {
		w.upload = nil
		return err
	}
	ctx, cancel := context.WithCancel(w.ctx)
	w.group, w.failed = errgroup.WithContext(ctx)
	w.group.SetLimit(w.streams)
	w.cancel = cancel
	w.free = make(chan []byte, w.streams+1)
	return nil
}

// handOver sends buf in the background. It waits while all streams are busy.
func (w *writer) handOver() {
	w.number++
	number, part, mapped := w.number, w.buf, w.mapped
	w.buf, w.mapped = nil, false
	w.group.Go(func() error {
		err := w.send(number, part)
		if mapped {
			w.free <- part[:0]
		}
		return err
	})
}

func (w *writer) send(number int, part []byte) error {
	return w.bucket.retry(w.failed, fmt.Sprintf("part %d of %s", number, w.key), func(ctx context.Context) error {
		body := lend(part)
		defer body.revoke()
		return w.upload.part(ctx, number, body)
	})
}

// takeNext prefers a buffer that is free already, then one from the budget, and
// waits for its own otherwise: so no object waits for another one.
func (w *writer) takeNext() error {
	select {
	case w.buf = <-w.free:
		w.mapped = true
		return nil
	default:
	}
	if w.reserved < w.streams && w.bucket.buffers.reserve(w.partBytes) {
		w.reserved++
		return w.takeFirst()
	}
	select {
	case w.buf = <-w.free:
		w.mapped = true
		return nil
	case <-w.failed.Done():
		return errors.Join(w.group.Wait(), context.Cause(w.failed))
	}
}

// Commit sends what is left and makes the object visible.
func (w *writer) Commit() error {
	if w.ended {
		return w.after("commit")
	}
	if err := w.commit(); err != nil {
		return w.fail(err)
	}
	w.end(errCommitted)
	return nil
}

// errCommitted marks the good end.
var errCommitted = errors.New("the object is committed")

func (w *writer) commit() error {
	if w.upload == nil {
		return w.bucket.put(w.ctx, w.full, w.buf, putOptions{onlyNew: true, token: w.token, keep: true})
	}
	w.handOver()
	if err := w.group.Wait(); err != nil {
		return err
	}
	return w.bucket.publish(w.ctx, w.full, w.token, func(ctx context.Context) error { return w.upload.complete(ctx, w.number) })
}

// Abort discards what was written.
func (w *writer) Abort() error {
	if w.ended {
		return nil
	}
	err := w.discard()
	w.end(errors.New("the object was aborted"))
	return w.bucket.wrap(opDiscard, w.key, err)
}

func (w *writer) after(step string) error {
	return fmt.Errorf("%s %s after its end: %w", step, w.key, w.err)
}

// fail ends the object for good.
func (w *writer) fail(err error) error {
	if cause := context.Cause(w.ctx); cause != nil {
		err = stopped(w.ctx, err)
	}
	err = w.bucket.wrap(opPut, w.key, err)
	if left := w.discard(); left != nil {
		err = errors.Join(err, w.bucket.wrap(opDiscard, w.key, left))
	}
	w.end(err)
	return err
}

// discardTime bounds how long an interrupted run still tidies up. What it does
// not reach is one of the store's leftovers.
const discardTime = 30 * time.Second

// discard waits for the parts in flight: one that arrives after the abort would
// be stored.
func (w *writer) discard() error {
	if w.upload == nil {
		return nil
	}
	w.cancel()
	_ = w.group.Wait() // why it failed is known, or of no interest
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), discardTime)
	defer cancel()
	err := w.bucket.retry(ctx, "discard upload of "+w.key, w.upload.abort)
	if status, _ := answerOf(err); status == http.StatusNotFound {
		return nil
	}
	return err
}

// end gives all memory back. No part is in flight.
func (w *writer) end(why error) {
	w.err, w.ended = why, true
	if w.cancel != nil {
		w.cancel()
	}
	if w.mapped {
		w.bucket.buffers.put(w.buf)
	}
	w.buf, w.mapped = nil, false
	for len(w.free) > 0 {
		w.bucket.buffers.put(<-w.free)
	}
	w.bucket.buffers.giveBack(int64(w.reserved) * w.partBytes)
	w.reserved = 0
}

// put stores a small object with one request, repeated if need be.
func (b *Bucket) put(ctx context.Context, full string, data []byte, options putOptions) error {
	attempt := func(ctx context.Context) error {
		body := lend(data)
		defer body.revoke()
		return b.service.put(ctx, full, body, options)
	}
	if options.onlyNew {
		if options.token == "" {
			options.token = rand.Text()
		}
		return b.publish(ctx, full, options.token, attempt)
	}
	return b.retry(ctx, "write "+b.short(full), attempt)
}

// publish makes an object visible under the condition that its key is free. The
// answer to an earlier attempt may have been lost after the service did what it
// was asked, which makes a later one fail: then the object that is there carries
// the token. A key that is said to be taken, and has no object, is asked for again:
// another writer of it was at work at that moment.
func (b *Bucket) publish(ctx context.Context, full, token string, attempt func(context.Context) error) error {
	for round := 1; ; round++ {
		err := b.retry(ctx, "commit "+b.short(full), attempt)
		if err == nil || ctx.Err() != nil {
			return err
		}
		status, _ := answerOf(err)
		found, foundErr := b.tokenOf(ctx, full)
		if !isTransient(err) && isTransient(foundErr) { // a refusal must not be reported for what was done
			foundErr = b.retry(ctx, "look at "+b.short(full), func(ctx context.Context) (err error) {
				found, err = b.tokenOf(ctx, full)
				return err
			})
		}
		looked, _ := answerOf(foundErr)
		switch {
		case foundErr == nil && found == token:
			return nil
		case status == http.StatusPreconditionFailed, status == http.StatusConflict && foundErr == nil, status == http.StatusNotFound && foundErr == nil:
			return because(store.ErrExist, err)
		case status != http.StatusConflict || looked != http.StatusNotFound || round >= b.options.Attempts:
			return err
		}
		if err := b.pause(ctx, "commit "+b.short(full), round, err); err != nil {
			return err
		}
	}
}

// tokenOf returns the token of an object, empty if it has none.
func (b *Bucket) tokenOf(ctx context.Context, full string) (token string, err error) {
	metadata, err := b.service.look(ctx, full)
	if err != nil {
		return "", err
	}
	for key, value := range metadata {
		if strings.EqualFold(key, tokenKey) {
			token = value
		}
	}
	return token, nil
}

// short is the key in the store of a key in the bucket.
func (b *Bucket) short(full string) string { return strings.TrimPrefix(full, b.prefix) }
