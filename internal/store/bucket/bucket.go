package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/lease"
)

var (
	_ store.Place    = (*Bucket)(nil)
	_ store.Lockable = (*Bucket)(nil)
)

// Options are what a URL does not say. The zero value is a good one.
type Options struct {
	// Streams is how many parts of one object are sent at once; 0 means 4.
	Streams int
	// PartBytes is the smallest part; 0 means 8 MiB. Large objects get larger
	// ones, so that their parts suffice.
	PartBytes int64
	// MemoryBytes is what all objects share for parts beyond each one's first;
	// 0 means 32 MiB.
	MemoryBytes int64
	// Attempts bounds how often one request is made; 0 means 20.
	Attempts int
	// MaxDelay is the longest pause between two attempts; 0 means 10 s.
	MaxDelay time.Duration
	// Stall is how long a connection may be silent in the middle of a request;
	// 0 means 5 minutes.
	Stall time.Duration
	// Warn is told of each attempt that failed and is repeated. It may be nil,
	// and is called by several goroutines.
	Warn func(message string)
	// Lease says how fast a dead holder of the store's lock is noticed.
	Lease lease.Options
	// Getenv looks up the variables that name Azure's account and credentials,
	// which the other services' libraries read by themselves. nil knows none.
	Getenv func(string) string
}

func (o Options) withDefaults() Options {
	o.Streams = positive(o.Streams, 4)
	o.PartBytes = positive(o.PartBytes, 8<<20)
	o.MemoryBytes = positive(o.MemoryBytes, 32<<20)
	o.Attempts = positive(o.Attempts, 20)
	o.MaxDelay = positive(o.MaxDelay, 10*time.Second)
	o.Stall = positive(o.Stall, 5*time.Minute)
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	return o
}

func positive[T int | int64 | time.Duration](value, otherwise T) T {
	if value <= 0 {
		return otherwise
	}
	return value
}

// Bucket is a store in a bucket. It may be used by several goroutines.
type Bucket struct {
	location
	options Options
	service service
	buffers *buffers
}

// Open connects to the bucket that a URL names, and makes sure that it is there
// and may be listed. A missing bucket is fault.NotFound, a credential that is
// missing or not enough fault.Precondition. Close gives it back.
//
//	s3://bucket/prefix?region=&profile=&endpoint=&path-style=&checksums=&object-lock=&retain=
//	gs://bucket/prefix?endpoint=
//	azblob://container/prefix?account=&endpoint=
//
// Each also takes attempts= and stall=, which go before the options.
func Open(ctx context.Context, u *url.URL, options Options) (*Bucket, error) {
	place, err := parse(u)
	if err != nil {
		return nil, err
	}
	if options, err = place.patience(options); err != nil {
		return nil, err
	}
	b := &Bucket{location: place, options: options.withDefaults()}
	b.buffers = newBuffers(b.options.MemoryBytes)
	switch place.kind {
	case "s3":
		b.service, err = openS3(ctx, place, b.options)
	case "gs":
		b.service, err = openGCS(ctx, place, b.options)
	case "azblob":
		b.service, err = openAzure(place, b.options)
	}
	if err != nil {
		return nil, b.wrap(opOpen, "", err)
	}
	if err := b.look(ctx); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// look makes one request that fails if the bucket is not there.
func (b *Bucket) look(ctx context.Context) error {
	_, _, err := b.page(ctx, "", nil, 1)
	return b.wrap(opList, "", err)
}

// Close gives the connections back.
func (b *Bucket) Close() error {
	b.buffers.close()
	if err := b.service.close(); err != nil {
		return fmt.Errorf("close store %s: %w", b, err)
	}
	return nil
}

// String is the URL that Open was given. It holds no secret: parse saw to that.
func (b *Bucket) String() string { return b.text }

// Warnings says what is unsafe about the way to the bucket.
func (b *Bucket) Warnings() []string {
	endpoint, err := b.endpoint()
	if err != nil || !plain(endpoint) {
		return nil
	}
	return []string{fmt.Sprintf("the store %s is reached by plain http: whoever is on the way reads the backups; use https", b)}
}

const probeName = ".probe"

// CheckWritable creates a small object. One that is there already shows as well
// that it might be created: services check the right before the condition. The
// right to delete is not needed, then the probe stays for the next time.
func (b *Bucket) CheckWritable(ctx context.Context) error {
	if err := b.service.ready(ctx); err != nil {
		return b.precondition(opPut, "", err)
	}
	err := b.put(ctx, b.prefix+probeName, []byte("dbbackup probes whether it may write here\n"), putOptions{onlyNew: true})
	if err != nil && !errors.Is(err, store.ErrExist) {
		return b.precondition(opPut, probeName, err)
	}
	if err := b.remove(ctx, b.prefix+probeName); err != nil && !errors.Is(err, store.ErrDenied) {
		return b.precondition(opDelete, probeName, err)
	}
	return nil
}

// precondition is wrap for what must hold before a run begins.
func (b *Bucket) precondition(op operation, key string, err error) error {
	if err = b.wrap(op, key, err); fault.KindOf(err) == fault.Failed {
		return fault.New(fault.Precondition, "", "%w", err)
	}
	return err
}

// full returns the key in the bucket of a key in the store.
func (b *Bucket) full(key string) (string, error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	return b.prefix + key, nil
}
