package bucket

import (
	"fmt"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"dbbackup/internal/store"
	"dbbackup/internal/store/lease"
	"dbbackup/internal/store/storetest"
	"dbbackup/internal/storeserver"
)

var buckets atomic.Int64

// newS3 returns the URL of a store in a bucket of its own.
func newS3(t *testing.T, server *storeserver.S3, prefix, query string) *url.URL {
	t.Helper()
	name := fmt.Sprintf("test-%d", buckets.Add(1))
	server.Bucket(t, name, false)
	return s3URL(t, server.Endpoint, name, prefix, query)
}

func s3URL(t *testing.T, endpoint, bucket, prefix, query string) *url.URL {
	t.Helper()
	u, err := url.Parse("s3://" + bucket + "/" + prefix + "?endpoint=" + url.QueryEscape(endpoint) + query)
	must(t, err)
	return u
}

// testBeat lets a lock outlive a busy machine, and ends what waits for a takeover
// within three seconds.
const testBeat = 250 * time.Millisecond

// testOptions are quick ones: nothing that is tested takes real time.
func testOptions() Options {
	return Options{MaxDelay: 20 * time.Millisecond, Lease: lease.Options{Beat: testBeat}}
}

func openTest(t *testing.T, u *url.URL, options Options) *Bucket {
	t.Helper()
	b, err := Open(t.Context(), u, options)
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestS3(t *testing.T) {
	server := storeserver.StartS3(t)
	server.Setenv(t)
	for _, query := range []string{"", "&checksums=when_supported"} {
		t.Run("store"+query, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) store.Store {
				return openTest(t, newS3(t, server, "backups/db1", query), testOptions())
			})
		})
	}
}

// An object of several parts is one object: whole, conditional, and nothing
// before and after.
func TestS3Parts(t *testing.T) {
	server := storeserver.StartS3(t)
	server.Setenv(t)
	options := testOptions()
	options.PartBytes = 5 << 20
	b := openTest(t, newS3(t, server, "db1", ""), options)
	testParts(t, b, 5<<20)
	left, err := b.Leftovers(t.Context())
	must(t, err)
	if len(left) != 0 {
		t.Errorf("leftovers are %q", left)
	}
}
