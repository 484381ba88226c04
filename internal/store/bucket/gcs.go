package bucket

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"cloud.google.com/go/storage"
	"github.com/googleapis/gax-go/v2"
	"gocloud.dev/blob"
	"gocloud.dev/blob/gcsblob"
	"gocloud.dev/gcp"
	"google.golang.org/api/option"

	"dbbackup/internal/fault"
)

// gcsService is Google Cloud Storage.
type gcsService struct {
	*cdk
	bucket  *storage.BucketHandle
	options Options
}

func openGCS(ctx context.Context, place location, options Options) (service, error) {
	endpoint, err := place.endpoint()
	if err != nil {
		return nil, err
	}
	transport := newTransport(options.Stall)
	opts := []option.ClientOption{storage.WithJSONReads()}
	if endpoint != nil {
		opts = append(opts, option.WithEndpoint(endpoint.JoinPath("storage/v1/").String()))
	}
	if endpoint != nil && endpoint.Scheme == "http" {
		// Whoever is on the way reads a token: there is none for plain http.
		opts = append(opts, option.WithHTTPClient(&http.Client{Transport: transport}))
	} else {
		found, err := gcp.DefaultCredentials(ctx)
		if err != nil {
			return nil, fault.New(fault.Precondition,
				"set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account, or give the machine one", "find a credential for the store: %w", err)
		}
		client, err := gcp.NewHTTPClient(transport, found.TokenSource)
		if err != nil {
			return nil, err
		}
		opts = append(opts, option.WithHTTPClient(&client.Client))
	}
	client, err := storage.NewClient(ctx, opts...)
	if err != nil {
		return nil, err
	}
	client.SetRetry(storage.WithPolicy(storage.RetryNever)) // Bucket.retry is the only one, but for parts
	b, err := gcsblob.OpenBucket(ctx, nil, place.bucket, &gcsblob.Options{Client: client})
	return &gcsService{cdk: &cdk{b, gcsVersion, pinGCS}, bucket: client.Bucket(place.bucket), options: options}, err
}

// limits: there are no parts that could be sent apart from each other, so these
// are small ones, and the library's chunks are what is sent and repeated.
func (s *gcsService) limits() limits {
	return limits{minPart: 1 << 20, maxPart: 1 << 20, maxParts: 5 << 20}
}

// chunkBytes is one request of an upload in chunks, and what it holds in memory.
const chunkBytes = 8 << 20

func (s *gcsService) ready(context.Context) error { return nil }

func (s *gcsService) object(key string, onlyNew bool) *storage.ObjectHandle {
	object := s.bucket.Object(key)
	if onlyNew {
		return object.If(storage.Conditions{DoesNotExist: true})
	}
	return object
}

func (s *gcsService) put(ctx context.Context, key string, body *lentReader, options putOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends an upload whose writing failed
	w := s.object(key, options.onlyNew).NewWriter(ctx)
	w.ChunkSize = 0
	w.ContentType = "application/octet-stream"
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	if _, err := io.Copy(sum, body); err != nil {
		return err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w.CRC32C, w.SendCRC32C = sum.Sum32(), true
	if options.token != "" {
		w.Metadata = map[string]string{tokenKey: options.token}
	}
	if _, err := io.Copy(w, body); err != nil {
		return err
	}
	return w.Close()
}

// begin starts a resumable upload. The library repeats its requests itself, by the
// same rule as everything else is repeated. It has no bound of its own: it begins
// an upload until the context ends, and sends a chunk for 32 seconds, whatever
// WithMaxAttempts says.
func (s *gcsService) begin(ctx context.Context, key, token string) (upload, error) {
	ctx, cancel := context.WithCancel(ctx)
	u := &gcsUpload{cancel: cancel, attempts: int64(s.options.Attempts)}
	repeat := func(err error) bool {
		if !isTransient(err) || u.failures.Add(1) >= u.attempts {
			return false
		}
		s.options.Warn(fmt.Sprintf("write %s: a request failed and is repeated: %s", key, concealed(err)))
		return true
	}
	w := s.object(key, true).Retryer(
		storage.WithPolicy(storage.RetryAlways),
		storage.WithBackoff(gax.Backoff{Initial: min(firstDelay, s.options.MaxDelay), Max: s.options.MaxDelay, Multiplier: 2}),
		storage.WithErrorFunc(repeat),
	).NewWriter(ctx)
	w.ChunkSize = chunkBytes
	w.ContentType = "application/octet-stream"
	w.ChunkRetryDeadline = time.Duration(s.options.Attempts) * (s.options.MaxDelay + s.options.Stall)
	w.ProgressFunc = func(int64) { u.failures.Store(0) }
	w.Metadata = map[string]string{tokenKey: token}
	u.writer = w
	return u, nil
}

// gcsUpload is a resumable upload. Its parts come one after the other.
type gcsUpload struct {
	writer   *storage.Writer
	cancel   context.CancelFunc
	failures atomic.Int64 // of requests, since the last that did not fail
	attempts int64        // the most of them
}

// finalError is one after which a request cannot be made again.
type finalError struct{ error }

func (e *finalError) Unwrap() error { return e.error }

// final says what ended the upload.
func (u *gcsUpload) final(err error) error {
	if err == nil {
		return nil
	}
	if n := u.failures.Load(); n >= u.attempts {
		err = fmt.Errorf("given up after %d attempts: %w", n, err)
	}
	return &finalError{err}
}

func (u *gcsUpload) part(_ context.Context, _ int, body *lentReader) error {
	_, err := io.Copy(struct{ io.Writer }{u.writer}, body)
	return u.final(err)
}

func (u *gcsUpload) complete(context.Context, int) error {
	defer u.cancel()
	return u.final(u.writer.Close())
}

// abort ends the upload. What the service has of it is no object, costs nothing
// and is gone after a week.
func (u *gcsUpload) abort(context.Context) error {
	u.cancel()
	_ = u.writer.Close() // it fails: that is what was asked for
	return nil
}

func (s *gcsService) remove(ctx context.Context, key string) error {
	return s.bucket.Object(key).Delete(ctx)
}

func gcsVersion(reader *blob.Reader) string {
	var r *storage.Reader
	if !reader.As(&r) {
		return ""
	}
	return strconv.FormatInt(r.Attrs.Generation, 10)
}

func pinGCS(as func(any) bool, version string) {
	var object **storage.ObjectHandle
	generation, err := strconv.ParseInt(version, 10, 64)
	if err == nil && as(&object) {
		*object = (*object).If(storage.Conditions{GenerationMatch: generation})
	}
}

// uploads finds nothing: unfinished uploads cannot be listed, and vanish.
func (s *gcsService) uploads(context.Context, string, func(key, id string)) error { return nil }

func (s *gcsService) discard(context.Context, string, string) error { return errNoUploads }

var errNoUploads = errors.New("this kind of store has no unfinished uploads to discard")

// renew finds nothing: tokens are renewed before they expire.
func (s *gcsService) renew(context.Context, string) (bool, error) { return false, nil }

func (s *gcsService) credential(context.Context) string { return "" }

func (s *gcsService) permission(op operation) string {
	switch op {
	case opPut:
		return "storage.objects.create, and for what it replaces in .lock/ storage.objects.delete"
	case opRead:
		return "storage.objects.get"
	case opDelete:
		return "storage.objects.delete"
	}
	return "storage.objects.list"
}
