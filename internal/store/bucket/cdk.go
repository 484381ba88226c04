package bucket

import (
	"context"

	"gocloud.dev/blob"

	"dbbackup/internal/store"
)

// cdk is the part of a service that gocloud.dev/blob does alike for S3 and
// Google. Azure is not among them: its driver stores keys with a percent sign
// under another name, and so lists them in another order.
type cdk struct {
	blob *blob.Bucket
	// versionOf names what a reader reads, so that pin can insist on it.
	versionOf func(reader *blob.Reader) string
	pin       func(as func(any) bool, version string)
}

func (c *cdk) open(ctx context.Context, key string, offset, length int64, version string) (*content, error) {
	options := &blob.ReaderOptions{}
	if version != "" {
		options.BeforeRead = func(as func(any) bool) error {
			c.pin(as, version)
			return nil
		}
	}
	r, err := c.blob.NewRangeReader(ctx, key, offset, length, options)
	if err != nil {
		return nil, err
	}
	return &content{ReadCloser: r, size: r.Size(), version: c.versionOf(r)}, nil
}

func (c *cdk) look(ctx context.Context, key string) (metadata map[string]string, err error) {
	attributes, err := c.blob.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	return attributes.Metadata, nil
}

func (c *cdk) page(ctx context.Context, prefix string, token []byte, size int) (objects []store.Info, next []byte, err error) {
	if token == nil {
		token = blob.FirstPageToken
	}
	list, next, err := c.blob.ListPage(ctx, token, size, &blob.ListOptions{Prefix: prefix})
	if err != nil {
		return nil, nil, err
	}
	for _, object := range list {
		objects = append(objects, store.Info{Key: object.Key, Bytes: object.Size, Modified: object.ModTime})
	}
	return objects, next, nil
}

func (c *cdk) close() error { return c.blob.Close() }
