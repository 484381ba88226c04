package bucket

import (
	"context"

	"gocloud.dev/blob"
)

// service is what differs between the kinds of object stores and blob.Bucket
// does not even out. Keys are the bucket's own. No method repeats a request:
// that is the Bucket's part.
type service interface {
	// limits says how objects may be divided.
	limits() limits
	// ready fails where what the URL asks of the bucket is not switched on.
	ready(ctx context.Context) error
	// put stores an object with one request.
	put(ctx context.Context, key string, body *lentReader, options putOptions) error
	// begin starts an object in parts.
	begin(ctx context.Context, key, token string) (upload, error)
	// remove deletes an object. What is not there may be an error of status 404.
	remove(ctx context.Context, key string) error
	// version names what a reader reads, so that pin can insist on it.
	version(reader *blob.Reader) string
	pin(as func(any) bool, version string)
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
	// complete makes the object visible, if its key is still free.
	complete(ctx context.Context) error
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
