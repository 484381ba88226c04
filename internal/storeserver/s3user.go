package storeserver

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// User makes a user who may do the actions in a bucket, such as s3:GetObject, and
// nothing else, and returns the variables that AWS's tools find the user by.
func (s *S3) User(tb testing.TB, bucket, name string, actions ...string) (env []string) {
	tb.Helper()
	secret := name + "-secret"
	command := exec.CommandContext(tb.Context(), program(tb, "versitygw"), "admin", "--access", s.Key, "--secret", s.Secret,
		"--endpoint-url", s.Endpoint, "--region", s.Region, "create-user", "--access", name, "--secret", secret, "--role", "user")
	if out, err := command.CombinedOutput(); err != nil {
		tb.Fatalf("create user %s: %v\n%s", name, err, out)
	}
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Principal": map[string]any{"AWS": []string{name}}, "Action": actions,
		"Resource": []string{"arn:aws:s3:::" + bucket, "arn:aws:s3:::" + bucket + "/*"},
	}}})
	if err != nil {
		tb.Fatal(err)
	}
	text := string(policy)
	if _, err := s.Client().PutBucketPolicy(tb.Context(), &s3.PutBucketPolicyInput{Bucket: &bucket, Policy: &text}); err != nil {
		tb.Fatal(err)
	}
	return []string{
		"AWS_ACCESS_KEY_ID=" + name, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_REGION=" + s.Region, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=" + os.DevNull, "AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
	}
}
