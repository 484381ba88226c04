package bucket

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"dbbackup/internal/fault"
)

// limits are S3's ("Amazon S3 multipart upload limits").
func (s *s3Service) limits() limits {
	return limits{minPart: 5 << 20, maxPart: 5 << 30, maxParts: 10000, parallel: true}
}

// settleTime is how long a request that changes something may still run when its
// context has ended. A server goes on with what it has begun when its client is
// gone: a part that it stores after the abort is debris, and so is an upload
// whose id nobody heard.
const settleTime = 5 * time.Second

// settling returns a context that ends settleTime after ctx. A request is not
// begun with a ctx that has ended.
func settling(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if ctx.Err() != nil {
		return nil, nil, context.Cause(ctx)
	}
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(settleTime)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-longer.Done():
		}
	})
	return longer, func() { stop(); cancel() }, nil
}

// onlyNew is the condition that no object is there.
var onlyNew = aws.String("*")

func (s *s3Service) put(ctx context.Context, key string, body *lentReader, options putOptions) error {
	ctx, end, err := settling(ctx)
	if err != nil {
		return err
	}
	defer end()
	in := &s3.PutObjectInput{Bucket: &s.bucket, Key: &key, Body: body, ContentLength: &body.size, ChecksumAlgorithm: s.checksum}
	if options.onlyNew {
		in.IfNoneMatch = onlyNew
	}
	if options.token != "" {
		in.Metadata = map[string]string{tokenKey: options.token}
	}
	if options.keep && s.mode != "" {
		in.ObjectLockMode, in.ObjectLockRetainUntilDate = s.mode, s.until()
	}
	_, err = s.client.PutObject(ctx, in)
	return err
}

func (s *s3Service) until() *time.Time { return aws.Time(time.Now().Add(s.retain)) }

func (s *s3Service) begin(ctx context.Context, key, token string) (upload, error) {
	ctx, end, err := settling(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	in := &s3.CreateMultipartUploadInput{
		Bucket: &s.bucket, Key: &key, ChecksumAlgorithm: s.checksum,
		Metadata: map[string]string{tokenKey: token},
	}
	if s.mode != "" {
		in.ObjectLockMode, in.ObjectLockRetainUntilDate = s.mode, s.until()
	}
	out, err := s.client.CreateMultipartUpload(ctx, in)
	if err != nil {
		return nil, err
	}
	return &s3Upload{service: s, key: key, id: aws.ToString(out.UploadId)}, nil
}

// s3Upload is a multipart upload.
type s3Upload struct {
	service *s3Service
	key, id string

	mu    sync.Mutex
	parts []types.CompletedPart
}

func (u *s3Upload) part(ctx context.Context, number int, body *lentReader) error {
	ctx, end, err := settling(ctx)
	if err != nil {
		return err
	}
	defer end()
	n := int32(number) //nolint:gosec // at most 10,000
	out, err := u.service.client.UploadPart(ctx, &s3.UploadPartInput{
		Bucket: &u.service.bucket, Key: &u.key, UploadId: &u.id, PartNumber: &n,
		Body: body, ContentLength: &body.size, ChecksumAlgorithm: u.service.checksum,
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.parts = append(u.parts, types.CompletedPart{PartNumber: &n, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
	return nil
}

func (u *s3Upload) complete(ctx context.Context, _ int) error {
	ctx, end, err := settling(ctx)
	if err != nil {
		return err
	}
	defer end()
	slices.SortFunc(u.parts, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	_, err = u.service.client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: &u.service.bucket, Key: &u.key, UploadId: &u.id, IfNoneMatch: onlyNew,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: u.parts},
	})
	return err
}

func (u *s3Upload) abort(ctx context.Context) error { return u.service.discard(ctx, u.key, u.id) }

func (s *s3Service) discard(ctx context.Context, key, id string) error {
	_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: &key, UploadId: &id})
	return err
}

func (s *s3Service) uploads(ctx context.Context, prefix string, fn func(key, id string)) error {
	pages := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, upload := range page.Uploads {
			fn(aws.ToString(upload.Key), aws.ToString(upload.UploadId))
		}
	}
	return nil
}

// ready makes sure that the bucket can lock objects, if they are to be. A
// credential that may not ask learns it from the first object.
func (s *s3Service) ready(ctx context.Context) error {
	if s.mode == "" {
		return nil
	}
	out, err := s.client.GetObjectLockConfiguration(ctx, &s3.GetObjectLockConfigurationInput{Bucket: &s.bucket})
	status, code := answerOf(err)
	switch {
	case err == nil && out.ObjectLockConfiguration != nil && out.ObjectLockConfiguration.ObjectLockEnabled == types.ObjectLockEnabledEnabled:
		return nil
	case err == nil, code == "ObjectLockConfigurationNotFoundError":
		return fault.New(fault.Precondition, "create a bucket with object lock enabled, or leave object-lock= out of the URL of the store",
			"object lock is not enabled for bucket %s", s.bucket)
	case status == http.StatusForbidden:
		return nil
	}
	return err
}

func (s *s3Service) period() time.Duration { return s.retain }

func (s *s3Service) extend(ctx context.Context, key string, until time.Time) error {
	out, err := s.client.GetObjectRetention(ctx, &s3.GetObjectRetentionInput{Bucket: &s.bucket, Key: &key})
	switch _, code := answerOf(err); {
	case err == nil && out.Retention != nil && out.Retention.RetainUntilDate != nil && !out.Retention.RetainUntilDate.Before(until):
		return nil
	case err != nil && code != "NoSuchObjectLockConfiguration" && code != "ObjectLockConfigurationNotFoundError":
		return err
	}
	mode := types.ObjectLockRetentionMode(s.mode)
	if err == nil && out.Retention != nil && out.Retention.Mode == types.ObjectLockRetentionModeCompliance {
		mode = types.ObjectLockRetentionModeCompliance // can only be tightened
	}
	_, err = s.client.PutObjectRetention(ctx, &s3.PutObjectRetentionInput{
		Bucket: &s.bucket, Key: &key, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32,
		Retention: &types.ObjectLockRetention{Mode: mode, RetainUntilDate: aws.Time(until)},
	})
	return err
}
