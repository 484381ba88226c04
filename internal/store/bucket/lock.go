package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"dbbackup/internal/store"
	"dbbackup/internal/store/lease"
)

// Lock takes the store's lock, which package lease describes. It takes up to
// one heartbeat to tell that another run holds it.
func (b *Bucket) Lock(ctx context.Context, holder store.Holder) (held context.Context, release func() error, err error) {
	held, release, err = lease.Lock(ctx, lockObjects{b}, b.options.Lease, holder)
	if err != nil {
		return nil, nil, fmt.Errorf("lock store %s: %w", b, err)
	}
	return held, release, nil
}

// lockObjects are the objects in the folder of the lock.
type lockObjects struct{ bucket *Bucket }

func (o lockObjects) name(name string) string { return lease.Folder + "/" + name }

func (o lockObjects) full(name string) string { return o.bucket.prefix + o.name(name) }

func (o lockObjects) Create(ctx context.Context, name string, data []byte) error {
	return o.bucket.wrap(opPut, o.name(name), o.bucket.put(ctx, o.full(name), data, putOptions{onlyNew: true}))
}

func (o lockObjects) Put(ctx context.Context, name string, data []byte) error {
	return o.bucket.wrap(opPut, o.name(name), o.bucket.put(ctx, o.full(name), data, putOptions{}))
}

func (o lockObjects) Read(ctx context.Context, name string) (data []byte, err error) {
	r := &reader{bucket: o.bucket, ctx: ctx, key: o.name(name), full: o.full(name), end: -1}
	if err := r.open(); err != nil {
		return nil, o.bucket.wrap(opRead, o.name(name), err)
	}
	data, err = io.ReadAll(io.LimitReader(r, 64<<10))
	return data, errors.Join(err, r.Close())
}

func (o lockObjects) Names(ctx context.Context) (names []string, err error) {
	err = o.bucket.walk(ctx, lease.Folder+"/", func(info store.Info) error {
		names = append(names, strings.TrimPrefix(info.Key, lease.Folder+"/"))
		return nil
	})
	return names, err
}

func (o lockObjects) Delete(ctx context.Context, name string) error {
	return o.bucket.remove(ctx, o.full(name))
}

// retainer is a service that can keep objects from being deleted.
type retainer interface {
	period() time.Duration
	extend(ctx context.Context, key string, until time.Time) error
}

// LockPeriod is how long an object that is written now cannot be deleted; 0
// where the URL asks for no object lock.
func (b *Bucket) LockPeriod() time.Duration {
	if s, ok := b.service.(retainer); ok {
		return s.period()
	}
	return 0
}

// ExtendLock keeps an object until a time. One that is kept longer stays so.
func (b *Bucket) ExtendLock(ctx context.Context, key string, until time.Time) error {
	full, err := b.full(key)
	if err = errors.Join(ctx.Err(), err); err != nil {
		return fmt.Errorf("extend object lock: %w", err)
	}
	s, ok := b.service.(retainer)
	if !ok || s.period() == 0 {
		return usage("add object-lock= and retain= to the URL of the store", "extend the object lock of %s: store %s uses none", key, b)
	}
	return b.wrap(opRetain, key, b.retry(ctx, "extend the object lock of "+key, func(ctx context.Context) error { return s.extend(ctx, full, until) }))
}
