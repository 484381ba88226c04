package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"cloud.google.com/go/storage"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// operation is what was asked of the service, for errors and the rights that
// it needs.
type operation string

const (
	opOpen    operation = "open"
	opPut     operation = "write"
	opRead    operation = "read"
	opList    operation = "list"
	opDelete  operation = "delete"
	opUploads operation = "find unfinished uploads of"
	opDiscard operation = "discard the unfinished upload of"
	opRetain  operation = "extend the object lock of"
)

// answerOf returns the HTTP status and the error code that a service answered
// with; 0 and nothing for an error that is none of a service.
func answerOf(err error) (status int, code string) {
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var aws *awshttp.ResponseError
	var azure *azcore.ResponseError
	var google *googleapi.Error
	var token *oauth2.RetrieveError
	switch {
	case errors.As(err, &aws):
		return aws.HTTPStatusCode(), code
	case errors.As(err, &azure):
		return azure.StatusCode, azure.ErrorCode
	case errors.Is(err, storage.ErrBucketNotExist):
		return http.StatusNotFound, "NoSuchBucket"
	case errors.Is(err, storage.ErrObjectNotExist):
		return http.StatusNotFound, ""
	case errors.As(err, &token) && token.Response != nil && token.Response.StatusCode < 500:
		return http.StatusUnauthorized, "authError"
	case errors.As(err, &google):
		if len(google.Errors) > 0 {
			code = google.Errors[0].Reason
		}
		return google.Code, code
	}
	return 0, code
}

// errChanged is an object that is not the one whose reading began.
var errChanged = errors.New("the object was replaced while it was read")

// wrap names what was done to which object, and gives the error the kind and
// the hint of what the service answered.
func (b *Bucket) wrap(op operation, key string, err error) error {
	if err == nil {
		return nil
	}
	object := "store " + b.text
	if key != "" {
		object = key + " in store " + b.text
	}
	kind, hint, cause := b.classify(op, err)
	text := fmt.Errorf("%s %s: %w", op, object, concealed(cause))
	if kind == fault.Failed && hint == "" {
		return text
	}
	return fault.New(kind, hint, "%w", text)
}

// classify also replaces a service's words for missing, taken and denied by the
// store's.
func (b *Bucket) classify(op operation, err error) (kind fault.Kind, hint string, cause error) {
	status, code := answerOf(err)
	switch {
	case isOurs(err):
		return fault.Failed, "", err
	case code == "NoSuchBucket", code == "ContainerNotFound", code == "ContainerBeingDeleted", status == http.StatusNotFound && op == opList:
		return fault.NotFound, "check the bucket's name and region; a bucket is not made by the first backup", err
	case status == http.StatusNotFound:
		return fault.Failed, "", because(store.ErrNotExist, err)
	case op == opDelete && isDenied(status, code):
		return fault.Failed, "the object is under an object lock, or the credential needs " + b.service.permission(op), because(store.ErrDenied, err)
	case isExpired(err):
		return fault.Precondition, "renew the credential of the store, then run again: what is stored is kept", err
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fault.Precondition, b.hintDenied(op, code), err
	case status == http.StatusMovedPermanently, code == "AuthorizationHeaderMalformed", code == "IllegalLocationConstraintException":
		return fault.Precondition, "the bucket is in another region: give it with ?region= in the URL of the store", err
	case status == http.StatusPreconditionFailed && op == opRead:
		return fault.Integrity, "find out who writes to the bucket, then run again", because(errChanged, err)
	case status == http.StatusInsufficientStorage, code == "QuotaExceeded", code == "XMinioStorageFull":
		return fault.Precondition, "the service has no more room for this bucket: free some, then run again", err
	case isTransient(err):
		return fault.Unavailable, "see whether the service can be reached from this machine, then run again", err
	case isUnknownHost(err):
		return fault.Unavailable, "no such host is known here: check the endpoint, region or account in the URL of the store, and this machine's resolver", err
	}
	return fault.Failed, "", err
}

// isOurs says that the error needs no more explanation.
func isOurs(err error) bool {
	return fault.KindOf(err) != fault.Failed || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrExist) || errors.Is(err, store.ErrDenied)
}

// isDenied covers the words in which services refuse to delete what is locked.
func isDenied(status int, code string) bool {
	switch code {
	case "BlobImmutableDueToPolicy", "InvalidRequest", "MethodNotAllowed", "ObjectLocked":
		return true
	}
	return status == http.StatusForbidden || status == http.StatusUnauthorized
}

func (b *Bucket) hintDenied(op operation, code string) string {
	switch code {
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthenticationFailed", "InvalidAuthenticationInfo", "authError":
		return "the service does not know the credential: check which one the environment, the profile or the machine's role gives"
	}
	return "the credential needs " + b.service.permission(op)
}

// because is a sentinel with the service's words behind it.
func because(sentinel, err error) error { return fmt.Errorf("%w (%w)", sentinel, err) }

// concealment shows an error on one line, without the signature of a signed URL,
// which Azure's kind of credential is made of, and without what libraries say before
// they come to the point.
type concealment struct {
	text string
	err  error
}

func (c *concealment) Error() string { return c.text }

func (c *concealment) Unwrap() error { return c.err }

var signature = regexp.MustCompile(`(?i)\b(sig|signature|x-amz-signature|x-amz-security-token|x-amz-credential|x-goog-signature)=[^&\s"']+`)

// preface is the wrapper's own code, and what S3's client says of an answer that
// never came.
var preface = regexp.MustCompile(`\bblob \(code=\w+\): |https response error StatusCode: 0, RequestID: , HostID: , `)

func concealed(err error) error {
	text := err.Error()
	clean := signature.ReplaceAllString(text, "$1=...")
	clean = preface.ReplaceAllString(clean, "")
	var azure *azcore.ResponseError
	if errors.As(err, &azure) { // it prints the whole answer
		request, _, _ := strings.Cut(clean, "\n")
		clean = fmt.Sprintf("%s: %d %s", request, azure.StatusCode, azure.ErrorCode)
	}
	if clean != text {
		return &concealment{clean, err}
	}
	return err
}
