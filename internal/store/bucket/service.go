package bucket

import (
	"context"
	"io"

	"dbbackup/internal/store"
)

// service is what differs between the kinds of object stores. Keys are the bucket's own. No method repeats a request:
// that is the Bucket's part.
type service interface {
	// limits says how objects may be divided.
	limits() limits
	// ready fails where what the URL asks of the bucket is not switched on.
	ready(ctx context.Context) error
	// open reads length bytes of an object from offset on, all of it where length
	// is negative. A version that is not there any more is status 412.
	open(ctx context.Context, key string, offset, length int64, version string) (*content, error)
	// look returns an object's metadata.
	look(ctx context.Context, key string) (metadata map[string]string, err error)
	// page lists up to size objects below prefix, in order, from what token names
	// on: nil is the beginning, and next is empty after the last page.
	page(ctx context.Context, prefix string, token []byte, size int) (objects []store.Info, next []byte, err error)
	// put stores an object with one request.
	put(ctx context.Context, key string, body *lentReader, options putOptions) error
	// begin starts an object in parts.
	begin(ctx context.Context, key, token string) (upload, error)
	// remove deletes an object. What is not there may be an error of status 404.
	remove(ctx context.Context, key string) error
	// uploads calls fn for each unfinished upload below prefix, and discard
	// removes one.
	uploads(ctx context.Context, prefix string, fn func(key, id string)) error
	discard(ctx context.Context, key, id string) error
	// renew looks for another credential after the service called that of a
	// request expired. false means that there is none.
	renew(ctx context.Context, used string) (bool, error)
	// credential tells one credential from another, without being one.
	credential(ctx context.Context) string
	// permission names the right that an operation needs.
	permission(op operation) string
	close() error
}

// content is an object, or a range of one, on its way.
type content struct {
	io.ReadCloser
	size    int64  // of the whole object
	version string // what is read, for those who go on later
}

// putOptions are the conditions of a put.
type putOptions struct {
	onlyNew bool   // fail with status 409 or 412 where an object is
	token   string // goes into the metadata; empty for none
	keep    bool   // under the bucket's object lock, if the URL asks for one
}

// upload is one object being sent in parts. Parts are numbered from 1 and may
// be sent again; several at once only if limits say so.
type upload interface {
	part(ctx context.Context, number int, body *lentReader) error
	// complete makes an object of so many parts visible, if its key is still
	// free.
	complete(ctx context.Context, parts int) error
	abort(ctx context.Context) error
}

// limits of a service.
type limits struct {
	minPart  int64 // of all parts but the last
	maxPart  int64
	maxParts int64
	parallel bool
}

// tokenKey is the metadata under which an object carries its writer's token.
const tokenKey = "dbbackuptoken"
