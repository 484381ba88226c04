package bucket

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/storeserver"
)

// A URL that is not understood is refused by name, and nothing of a secret in
// it is repeated.
func TestBadURLs(t *testing.T) {
	const secret = "hunter2"
	tests := []struct{ text, want string }{
		{"s3:///prefix", "not understood"},
		{"s3:bucket", "not understood"},
		{"s3://bucket:80/x", "not understood"},
		{"s3://bucket/x#y", "not understood"},
		{"s3://key:hunter2@bucket/x", "holds credentials"},
		{"ftp://bucket/x", "ftp"},
		{"s3://bucket/x?secret=hunter2", `"secret"`},
		{"s3://bucket/x?Region=eu", `"Region"`},
		{"gs://bucket/x?region=eu", `"region"`},
		{"gs://bucket/x?object-lock=COMPLIANCE&retain=30d", "unknown key"},
		{"azblob://bucket/x?retain=30d", `"retain"`},
		{"s3://bucket/x?attempts=0", `"attempts"`},
		{"gs://bucket/x?attempts=many", `"attempts"`},
		{"azblob://bucket/x?stall=10ms", `"stall"`},
		{"s3://bucket/x?stall=5", `"stall"`},
		{"s3://bucket/x?region=a&region=b", `"region"`},
		{"s3://bucket/x?region=", `"region"`},
		{"s3://bucket/x?region=%zz", "query"},
		{"s3://bucket/x?endpoint=ftp://a", "endpoint"},
		{"s3://bucket/x?endpoint=https://u:hunter2@a", "endpoint"},
		{"s3://bucket/x?path-style=perhaps", `"path-style"`},
		{"s3://bucket/x?checksums=never", `"checksums"`},
		{"s3://bucket/x?object-lock=COMPLIANCE", `"retain"`},
		{"s3://bucket/x?retain=30d", `"object-lock"`},
		{"s3://bucket/x?object-lock=governance&retain=30d", `"object-lock"`},
		{"s3://bucket/x?object-lock=GOVERNANCE&retain=-3d", `"retain"`},
		{"s3://bucket/x?object-lock=GOVERNANCE&retain=999999999d", `"retain"`},
		{"s3://bucket/a//b", "empty segment"},
		{"s3://bucket/../x", "dot"},
		{"s3://bucket/.lock", "dot"},
		{"s3://bucket/a%00b", "NUL"},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.text)
		must(t, err)
		_, err = Open(t.Context(), u, Options{})
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v (kind %v), want a usage error about %s", tt.text, err, fault.KindOf(err), tt.want)
			continue
		}
		if all := err.Error() + strings.Join(fault.Hints(err), ""); strings.Contains(all, secret) {
			t.Errorf("%s: the error repeats the secret: %s", tt.text, all)
		}
	}
}

func TestOpenRefused(t *testing.T) {
	server := storeserver.StartS3(t)
	server.Setenv(t)
	server.Bucket(t, "test", false)
	at := s3URL(t, server.Endpoint, "test", "db1", "")

	_, err := Open(t.Context(), s3URL(t, server.Endpoint, "none", "db1", ""), testOptions())
	wantKind(t, err, fault.NotFound)
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	_, err = Open(t.Context(), at, testOptions())
	wantKind(t, err, fault.Precondition)
	if err != nil && strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the error shows the secret: %v", err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	_, err = Open(t.Context(), at, testOptions())
	wantKind(t, err, fault.Precondition)

	away := testOptions()
	away.Attempts = 3
	server.Setenv(t)
	_, err = Open(t.Context(), s3URL(t, "http://127.0.0.1:1", "test", "db1", ""), away)
	wantKind(t, err, fault.Unavailable)

	_, err = Open(t.Context(), s3URL(t, "http://nowhere.invalid", "test", "db1", ""), away)
	wantKind(t, err, fault.Unavailable)
	if hints := strings.Join(fault.Hints(err), ""); !strings.Contains(hints, "endpoint") {
		t.Errorf("hints of an unknown host: %q", hints)
	}
	if text := err.Error(); strings.Contains(text, "code=") || strings.Contains(text, "StatusCode: 0") || !strings.Contains(text, "nowhere.invalid") {
		t.Errorf("the error does not come to the point: %s", text)
	}

	azure := storeserver.StartAzure(t)
	u := newAzure(t, azure, "db1")
	u.Host = "none"
	_, err = Open(t.Context(), u, azureOptions(azure))
	wantKind(t, err, fault.NotFound)
	u = newAzure(t, azure, "db1")
	options := azureOptions(azure)
	options.Getenv = func(name string) string {
		return map[string]string{"AZURE_STORAGE_ACCOUNT": azure.Account, "AZURE_STORAGE_KEY": "aHVudGVyMg=="}[name]
	}
	_, err = Open(t.Context(), u, options)
	wantKind(t, err, fault.Precondition)
	if err != nil && strings.Contains(err.Error(), "aHVudGVyMg") {
		t.Errorf("the error shows the secret: %v", err)
	}
	options.Getenv = func(name string) string {
		return map[string]string{"AZURE_STORAGE_ACCOUNT": azure.Account, "AZURE_STORAGE_SAS_TOKEN": "?sv=2024-11-04&sp=rl&sr=c&sig=hunter2%3D"}[name]
	}
	options.Attempts = 2
	_, err = Open(t.Context(), u, options)
	wantKind(t, err, fault.Precondition)
	u.RawQuery = "endpoint=http://127.0.0.1:1/x"
	_, unreachable := Open(t.Context(), u, options)
	wantKind(t, unreachable, fault.Unavailable)
	if text := errors.Join(err, unreachable).Error(); strings.Contains(text, "hunter2") {
		t.Errorf("the error shows the signature: %s", text)
	}

	options.Getenv = func(string) string { return "" }
	u.RawQuery = "endpoint=" + azure.Endpoint
	_, err = Open(t.Context(), u, options)
	wantKind(t, err, fault.Usage)

	gcs := storeserver.StartGCS(t)
	u = newGCS(t, gcs, "db1")
	u.Host = "none"
	_, err = Open(t.Context(), u, testOptions())
	wantKind(t, err, fault.NotFound)
}

// A credential that may neither delete nor see versions is enough to back up.
func TestWriterWithoutDelete(t *testing.T) {
	server := storeserver.StartS3(t)
	server.Setenv(t)
	server.Bucket(t, "test", false)
	u := s3URL(t, server.Endpoint, "test", "db1", "")
	server.User(t, "test", "writer", "s3:PutObject", "s3:GetObject", "s3:ListBucket", "s3:AbortMultipartUpload", "s3:ListBucketMultipartUploads")
	t.Setenv("AWS_ACCESS_KEY_ID", "writer")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "writer-secret")
	b := openTest(t, u, partOptions())
	for range 2 { // the second time a probe lies there already
		must(t, b.CheckWritable(t.Context()))
		_, release, err := b.Lock(t.Context(), store.Holder{Host: "a"})
		must(t, err)
		must(t, release())
	}
	must(t, writeNoise(t.Context(), b, "set/object", 1, 12<<20, 1<<20, 0))
	err := b.Delete(t.Context(), "set/object")
	if !errors.Is(err, store.ErrDenied) || !strings.Contains(strings.Join(fault.Hints(err), ""), "s3:DeleteObject") {
		t.Errorf("delete: %v, hints %q", err, fault.Hints(err))
	}
	if got := keys(t, b); len(got) != 1 {
		t.Errorf("listed %q", got)
	}

	server.User(t, "test", "reader", "s3:GetObject", "s3:ListBucket")
	t.Setenv("AWS_ACCESS_KEY_ID", "reader")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "reader-secret")
	b = openTest(t, u, partOptions())
	wantNoise(t, b, "set/object", 1, 12<<20)
	err = b.CheckWritable(t.Context())
	wantKind(t, err, fault.Precondition)
	if !strings.Contains(strings.Join(fault.Hints(err), ""), "s3:PutObject") {
		t.Errorf("hints are %q", fault.Hints(err))
	}
}

// T104: two tenants in one bucket never see each other.
func TestPrefixes(t *testing.T) {
	server := storeserver.StartS3(t)
	server.Setenv(t)
	server.Bucket(t, "test", false)
	one := openTest(t, s3URL(t, server.Endpoint, "test", "db1", ""), partOptions())
	ten := openTest(t, s3URL(t, server.Endpoint, "test", "db10", ""), partOptions())
	for _, b := range []*Bucket{one, ten} {
		must(t, writeNoise(t.Context(), b, "set/object", 1, 10, 10, 0))
		_, err := b.service.begin(t.Context(), b.prefix+"set/half", "token")
		must(t, err)
	}
	for _, b := range []*Bucket{one, ten} {
		if got := keys(t, b); len(got) != 1 || got[0] != "set/object" {
			t.Errorf("%s lists %q", b, got)
		}
		left, err := b.Leftovers(t.Context())
		must(t, err)
		if len(left) != 1 {
			t.Errorf("%s has the leftovers %q", b, left)
		}
	}
	// Both have the lock at once: they are two stores.
	_, releaseOne, err := one.Lock(t.Context(), store.Holder{Host: "one"})
	must(t, err)
	_, releaseTen, err := ten.Lock(t.Context(), store.Holder{Host: "ten"})
	must(t, err)
	must(t, errors.Join(releaseOne(), releaseTen()))
	left, err := one.Leftovers(t.Context())
	must(t, err)
	for _, name := range left {
		must(t, one.RemoveLeftover(t.Context(), name))
	}
	must(t, one.Delete(t.Context(), "set/object"))
	for _, name := range []string{"../db10/set/object", "0/set/object"} {
		_ = one.Delete(t.Context(), name)
		_ = one.RemoveLeftover(t.Context(), name+left[0][strings.Index(left[0], uploadMark):])
	}
	if got := keys(t, ten); len(got) != 1 {
		t.Errorf("db10 holds %q after db1 was emptied", got)
	}
	if left, err = ten.Leftovers(t.Context()); err != nil || len(left) != 1 {
		t.Errorf("db10 has the leftovers %q (%v) after db1 was emptied", left, err)
	}
}
