package bucket

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"
	"gocloud.dev/blob"
	"gocloud.dev/blob/s3blob"

	"dbbackup/internal/fault"
)

// s3Service is S3, and what speaks its protocol.
type s3Service struct {
	*cdk
	client      *s3.Client
	bucket      string
	credentials *credentials
	checksum    types.ChecksumAlgorithm // of what is sent; empty for none
	mode        types.ObjectLockMode    // empty without object lock
	retain      time.Duration
}

func openS3(ctx context.Context, place location, options Options) (service, error) {
	s := &s3Service{bucket: place.bucket}
	if err := s.setLock(place); err != nil {
		return nil, err
	}
	endpoint, err := place.endpoint()
	if err != nil {
		return nil, err
	}
	pathStyle, err := place.flag("path-style", endpoint != nil)
	if err != nil {
		return nil, err
	}
	checksums, err := place.checksums(endpoint != nil)
	if err != nil {
		return nil, err
	}
	load := func(ctx context.Context) (aws.Config, error) { return loadAWS(ctx, place, options) }
	cfg, err := load(ctx)
	if err != nil {
		return nil, fault.New(fault.Precondition, "check the AWS configuration files and the profile", "read the AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		if endpoint == nil {
			return nil, fault.New(fault.Precondition, "add ?region=eu-central-1 or the like to the URL of the store, or set AWS_REGION", "the region of the bucket is not known")
		}
		cfg.Region = "us-east-1" // what services that know no regions expect
	}
	s.credentials = &credentials{load: load, now: cfg.Credentials}
	if _, err := s.credentials.Retrieve(ctx); err != nil {
		return nil, fault.New(fault.Precondition,
			"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role", "find a credential for the store: %w", err)
	}
	cfg.Credentials = s.credentials
	s.client = s3.NewFromConfig(cfg, func(o *s3.Options) {
		o.UsePathStyle = pathStyle
		o.RequestChecksumCalculation = checksums
		o.DisableLogOutputChecksumValidationSkipped = true
		if endpoint != nil {
			o.BaseEndpoint = aws.String(endpoint.String())
		}
	})
	if s.mode != "" || checksums == aws.RequestChecksumCalculationWhenSupported {
		s.checksum = types.ChecksumAlgorithmCrc32 // S3 insists on one where an object is locked
	}
	b, err := s3blob.OpenBucket(ctx, s.client, place.bucket, nil)
	s.cdk = &cdk{b, s3Version, pinS3}
	return s, err
}

// loadAWS resolves the configuration as all AWS tools do.
func loadAWS(ctx context.Context, place location, options Options) (aws.Config, error) {
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { tune(t, options.Stall) })
	opts := []func(*config.LoadOptions) error{
		config.WithHTTPClient(client),
		config.WithLogger(logging.Nop{}),                                   // it would write to standard error
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }), // Bucket.retry is the only one
	}
	if region := place.values.Get("region"); region != "" {
		opts = append(opts, config.WithRegion(region))
	}
	if profile := place.values.Get("profile"); profile != "" {
		opts = append(opts, config.WithSharedConfigProfile(profile))
	}
	return config.LoadDefaultConfig(ctx, opts...)
}

// checksums says whether requests carry a checksum that older relatives of S3
// do not understand. Those are behind an endpoint of their own.
func (l location) checksums(foreign bool) (aws.RequestChecksumCalculation, error) {
	switch l.values.Get("checksums") {
	case "":
		if foreign {
			return aws.RequestChecksumCalculationWhenRequired, nil
		}
		return aws.RequestChecksumCalculationWhenSupported, nil
	case "when_required":
		return aws.RequestChecksumCalculationWhenRequired, nil
	case "when_supported":
		return aws.RequestChecksumCalculationWhenSupported, nil
	}
	return 0, usage("give when_supported or when_required", "the key \"checksums\" of the store's URL is not understood")
}

func (s *s3Service) setLock(place location) (err error) {
	mode := place.values.Get("object-lock")
	if mode == "" && place.values.Get("retain") == "" {
		return nil
	}
	if mode != string(types.ObjectLockModeGovernance) && mode != string(types.ObjectLockModeCompliance) {
		return usage("give object-lock=GOVERNANCE or object-lock=COMPLIANCE together with retain=30d or the like",
			"the key \"object-lock\" of the store's URL is missing or not understood")
	}
	s.mode = types.ObjectLockMode(mode)
	s.retain, err = place.retain()
	return err
}

// credentials is the credential in use. It can be looked for anew, which the
// library does only when it knows the time of expiry: keys from the environment
// or a file have none.
type credentials struct {
	load func(context.Context) (aws.Config, error)

	mu  sync.Mutex
	now aws.CredentialsProvider
}

func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c.mu.Lock()
	now := c.now
	c.mu.Unlock()
	return now.Retrieve(ctx)
}

func (s *s3Service) credential(ctx context.Context) string {
	found, err := s.credentials.Retrieve(ctx)
	if err != nil {
		return ""
	}
	return found.AccessKeyID
}

func (s *s3Service) renew(ctx context.Context, used string) (bool, error) {
	if s.credential(ctx) != used {
		return true, nil // another request has seen to it
	}
	cfg, err := s.credentials.load(ctx)
	if err != nil {
		return false, fmt.Errorf("renew the credential: %w", err)
	}
	found, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		return false, fmt.Errorf("renew the credential: %w", err)
	}
	s.credentials.mu.Lock()
	defer s.credentials.mu.Unlock()
	s.credentials.now = cfg.Credentials
	return found.AccessKeyID != used, nil
}

func (s *s3Service) permission(op operation) string {
	switch op {
	case opPut:
		if s.mode != "" {
			return "s3:PutObject and s3:PutObjectRetention"
		}
		return "s3:PutObject"
	case opRead:
		return "s3:GetObject"
	case opDelete:
		return "s3:DeleteObject"
	case opUploads:
		return "s3:ListBucketMultipartUploads"
	case opDiscard:
		return "s3:AbortMultipartUpload"
	case opRetain:
		return "s3:GetObjectRetention and s3:PutObjectRetention"
	}
	return "s3:ListBucket"
}

func s3Version(reader *blob.Reader) string {
	var out s3.GetObjectOutput
	if !reader.As(&out) {
		return ""
	}
	return aws.ToString(out.ETag)
}

func pinS3(as func(any) bool, version string) {
	var in *s3.GetObjectInput
	if as(&in) {
		in.IfMatch = aws.String(version)
	}
}

func (s *s3Service) remove(ctx context.Context, key string) error {
	_, err := s.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.bucket, Key: &key})
	return err
}
