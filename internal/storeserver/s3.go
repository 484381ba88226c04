package storeserver

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// S3 is a running versitygw, which keeps objects in files.
type S3 struct {
	Endpoint string // http://127.0.0.1:PORT
	Region   string
	Key      string // the access key of the owner of all buckets
	Secret   string
	Data     string // where objects lie: BUCKET/KEY

	process *process
	again   func() (*process, error) // at the same address
}

// StartS3 runs an S3 server until the test is over.
func StartS3(tb testing.TB) *S3 {
	tb.Helper()
	path, dir := program(tb, "versitygw"), tb.TempDir()
	s := &S3{Region: s3Region, Key: s3Key, Secret: s3Secret, Data: filepath.Join(dir, "data")}
	versions, users := filepath.Join(dir, "versions"), filepath.Join(dir, "users")
	for _, folder := range []string{s.Data, versions, users} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	args := func(port int) []string {
		return []string{"--access", s.Key, "--secret", s.Secret, "--region", s.Region, "--port", address(port), "--quiet",
			"--iam-dir", users,
			"posix", "--versioning-dir", versions, s.Data}
	}
	running, port := start(tb, path, dir, args)
	s.Endpoint, s.process = "http://"+address(port), running
	s.again = func() (*process, error) {
		p, err := run(path, dir, args(port))
		if err != nil {
			return nil, err
		}
		tb.Cleanup(p.stop)
		return p, p.await(port)
	}
	return s
}

// Kill ends the server at once, in the middle of whatever it does.
func (s *S3) Kill() { s.process.stop() }

// Restart runs a server that was killed again, with the same address and data.
func (s *S3) Restart(tb testing.TB) {
	tb.Helper()
	p, err := s.again()
	if err != nil {
		tb.Fatalf("restart versitygw: %v", err)
	}
	s.process = p
}

// The credential of every server's owner.
const (
	s3Region = "us-east-1"
	s3Key    = "storeserver"
	s3Secret = "storeserver-secret"
)

// environment leads AWS's tools to the credential, and nowhere else.
func environment() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": s3Key, "AWS_SECRET_ACCESS_KEY": s3Secret, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_REGION": s3Region, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	}
}

// Setenv makes the server's credential the one that AWS's tools find.
func (s *S3) Setenv(t *testing.T) {
	t.Helper()
	for name, value := range environment() {
		t.Setenv(name, value)
	}
}

// SetenvForAll does it for all tests of a process, which can be parallel then. It
// is for TestMain.
func SetenvForAll() error {
	var errs []error
	for name, value := range environment() {
		errs = append(errs, os.Setenv(name, value))
	}
	return errors.Join(errs...)
}

// Client is a client of the server, for what a test does or looks at behind the
// back of the program.
func (s *S3) Client() *s3.Client {
	return s3.New(s3.Options{
		Region: s.Region, BaseEndpoint: &s.Endpoint, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s.Key, s.Secret, ""),
	})
}

// Bucket makes an empty bucket; with locks one whose objects can be locked.
func (s *S3) Bucket(tb testing.TB, name string, locks bool) {
	tb.Helper()
	_, err := s.Client().CreateBucket(tb.Context(), &s3.CreateBucketInput{Bucket: &name, ObjectLockEnabledForBucket: aws.Bool(locks)})
	if err != nil {
		tb.Fatal(err)
	}
}
