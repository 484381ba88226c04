package bucket

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azureblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// azureService is Azure Blob Storage, by Azure's own module alone: the driver of
// gocloud.dev renames keys, and its writer ends in a panic when an upload fails.
type azureService struct{ container *container.Client }

func openAzure(place location, options Options) (service, error) {
	client, err := dialAzure(place, options)
	if err != nil {
		return nil, err
	}
	return &azureService{client}, nil
}

// dialAzure looks for credentials as Azure's own tools do: a connection string,
// the account's key, a shared access signature, then whoever this machine is or
// is logged in as.
func dialAzure(place location, options Options) (*container.Client, error) {
	env := options.Getenv
	client := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1}, // Bucket.retry is the only one
		Transport: &http.Client{Transport: newTransport(options.Stall)},
	}}
	endpoint, err := place.endpoint()
	if err != nil {
		return nil, err
	}
	if text := env("AZURE_STORAGE_CONNECTION_STRING"); text != "" && endpoint == nil && place.values.Get("account") == "" {
		c, err := container.NewClientFromConnectionString(text, place.bucket, client)
		if err != nil {
			return nil, fault.New(fault.Precondition, "check AZURE_STORAGE_CONNECTION_STRING", "the connection string of the store is not understood")
		}
		return c, nil
	}
	account := place.values.Get("account")
	if account == "" {
		account = env("AZURE_STORAGE_ACCOUNT")
	}
	if endpoint == nil {
		if account == "" {
			return nil, fault.New(fault.Precondition, "add ?account=NAME to the URL of the store, or set AZURE_STORAGE_ACCOUNT", "the account of the container is not known")
		}
		endpoint = &url.URL{Scheme: "https", Host: account + ".blob.core.windows.net"}
	}
	return dialAzureAt(endpoint.JoinPath(place.bucket), account, env, client)
}

func dialAzureAt(at *url.URL, account string, env func(string) string, client *container.ClientOptions) (*container.Client, error) {
	if key := env("AZURE_STORAGE_KEY"); key != "" {
		credential, err := azureblob.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, fault.New(fault.Precondition, "check AZURE_STORAGE_KEY", "the key of the storage account is not base64")
		}
		return container.NewClientWithSharedKeyCredential(at.String(), credential, client)
	}
	if token := env("AZURE_STORAGE_SAS_TOKEN"); token != "" {
		if plain(at) {
			return nil, usage("use https", "a shared access signature is not sent over plain http: whoever is on the way could use it")
		}
		signed := *at
		signed.RawQuery = strings.TrimPrefix(token, "?")
		return container.NewClientWithNoCredential(signed.String(), client)
	}
	if at.Scheme == "http" { // the library refuses each request, on the loopback, too
		return nil, usage("use https, or set AZURE_STORAGE_KEY", "an access token, which is all there is to log in with, is not sent over plain http")
	}
	credential, err := azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{ClientOptions: azcore.ClientOptions{Transport: client.Transport}})
	if err != nil {
		return nil, fault.New(fault.Precondition, "set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, log in with az, or give the machine an identity", "find a credential for the store: %w", err)
	}
	return container.NewClient(at.String(), credential, client)
}

// limits are those of block blobs ("Scalability and performance targets for Blob
// storage").
func (s *azureService) limits() limits {
	return limits{minPart: 1 << 20, maxPart: 4000 << 20, maxParts: 50000, parallel: true}
}

func (s *azureService) ready(context.Context) error { return nil }

func azureConditions(onlyNew bool) *azureblob.AccessConditions {
	if !onlyNew {
		return nil
	}
	any := azcore.ETagAny
	return &azureblob.AccessConditions{ModifiedAccessConditions: &azureblob.ModifiedAccessConditions{IfNoneMatch: &any}}
}

func azureMetadata(token string) map[string]*string {
	if token == "" {
		return nil
	}
	return map[string]*string{tokenKey: &token}
}

func (s *azureService) put(ctx context.Context, key string, body *lentReader, options putOptions) error {
	_, err := s.container.NewBlockBlobClient(key).Upload(ctx, body, &blockblob.UploadOptions{
		AccessConditions: azureConditions(options.onlyNew), Metadata: azureMetadata(options.token),
		TransactionalValidation: azureblob.TransferValidationTypeComputeCRC64(),
	})
	return err
}

func (s *azureService) begin(_ context.Context, key, token string) (upload, error) {
	return &azureUpload{blob: s.container.NewBlockBlobClient(key), token: token}, nil
}

// azureUpload is a list of blocks that is not committed yet.
type azureUpload struct {
	blob  *blockblob.Client
	token string
}

// block names a block so that no other writer of the key has one of that name.
// All names have the same length, as the service wants it.
func (u *azureUpload) block(number int) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s-%05d", u.token, number))
}

func (u *azureUpload) part(ctx context.Context, number int, body *lentReader) error {
	_, err := u.blob.StageBlock(ctx, u.block(number), body, &blockblob.StageBlockOptions{
		TransactionalValidation: azureblob.TransferValidationTypeComputeCRC64(),
	})
	return err
}

func (u *azureUpload) complete(ctx context.Context, parts int) error {
	names := make([]string, parts)
	for i := range names {
		names[i] = u.block(i + 1)
	}
	_, err := u.blob.CommitBlockList(ctx, names, &blockblob.CommitBlockListOptions{
		AccessConditions: azureConditions(true), Metadata: azureMetadata(u.token),
	})
	return err
}

// abort leaves the blocks: they are no object, cannot be removed, and are gone
// after a week.
func (u *azureUpload) abort(context.Context) error { return nil }

func (s *azureService) remove(ctx context.Context, key string) error {
	_, err := s.container.NewBlobClient(key).Delete(ctx, nil)
	return err
}

func (s *azureService) open(ctx context.Context, key string, offset, length int64, version string) (*content, error) {
	in := &azureblob.DownloadStreamOptions{Range: azureblob.HTTPRange{Offset: offset, Count: max(length, 0)}}
	if version != "" {
		tag := azcore.ETag(version)
		in.AccessConditions = &azureblob.AccessConditions{ModifiedAccessConditions: &azureblob.ModifiedAccessConditions{IfMatch: &tag}}
	}
	out, err := s.container.NewBlobClient(key).DownloadStream(ctx, in)
	if err != nil {
		return nil, err
	}
	c := &content{ReadCloser: out.Body}
	if out.ETag != nil {
		c.version = string(*out.ETag)
	}
	if out.ContentLength != nil {
		c.size = *out.ContentLength
	}
	if out.ContentRange != nil { // bytes FIRST-LAST/SIZE
		_, whole, _ := strings.Cut(*out.ContentRange, "/")
		if c.size, err = strconv.ParseInt(whole, 10, 64); err != nil {
			return nil, errors.Join(fmt.Errorf("understand the range %q: %w", *out.ContentRange, err), out.Body.Close())
		}
	}
	return c, nil
}

func (s *azureService) look(ctx context.Context, key string) (map[string]string, error) {
	out, err := s.container.NewBlobClient(key).GetProperties(ctx, nil)
	if err != nil {
		return nil, err
	}
	metadata := map[string]string{}
	for name, value := range out.Metadata {
		if value != nil {
			metadata[name] = *value
		}
	}
	return metadata, nil
}

func (s *azureService) page(ctx context.Context, prefix string, token []byte, size int) (objects []store.Info, next []byte, err error) {
	most := int32(size) //nolint:gosec // a page
	in := &container.ListBlobsFlatOptions{Prefix: &prefix, MaxResults: &most}
	if token != nil {
		marker := string(token)
		in.Marker = &marker
	}
	out, err := s.container.NewListBlobsFlatPager(in).NextPage(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, item := range out.Segment.BlobItems {
		objects = append(objects, store.Info{Key: *item.Name, Bytes: *item.Properties.ContentLength, Modified: *item.Properties.LastModified})
	}
	if out.NextMarker != nil {
		next = []byte(*out.NextMarker)
	}
	return objects, next, nil
}

// close has nothing to do: connections that idle are closed by themselves.
func (s *azureService) close() error { return nil }

// uploads finds nothing: blocks that were not committed vanish by themselves.
func (s *azureService) uploads(context.Context, string, func(key, id string)) error { return nil }

func (s *azureService) discard(context.Context, string, string) error { return errNoUploads }

// renew finds nothing: tokens are renewed before they expire, and a signature
// that expired stays so.
func (s *azureService) renew(context.Context, string) (bool, error) { return false, nil }

func (s *azureService) credential(context.Context) string { return "" }

func (s *azureService) permission(op operation) string {
	const role = " (the role Storage Blob Data Contributor has it)"
	switch op {
	case opPut:
		return "Microsoft.Storage/.../blobs/write" + role
	case opDelete:
		return "Microsoft.Storage/.../blobs/delete" + role
	}
	return "Microsoft.Storage/.../blobs/read" + role
}
