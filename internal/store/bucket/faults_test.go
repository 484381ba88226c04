package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"dbbackup/internal/fault"
	"dbbackup/internal/faultproxy"
	"dbbackup/internal/store"
	"dbbackup/internal/storeserver"
)

// throughProxy returns an S3 server, a proxy in front of it, and the URL of a
// store behind the proxy.
func throughProxy(t *testing.T, query string) (*storeserver.S3, *faultproxy.Proxy, *url.URL) {
	t.Helper()
	server := storeserver.StartS3(t)
	server.Setenv(t)
	server.Bucket(t, "test", false)
	proxy := faultproxy.Start(t, strings.TrimPrefix(server.Endpoint, "http://"), 42)
	return server, proxy, s3URL(t, proxy.URL, "test", "db1", query)
}

// partOptions make objects of 5 MiB and more go in parts.
func partOptions() Options {
	options := testOptions()
	options.PartBytes = 5 << 20
	return options
}

func method(name string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == name }
}

// object matches requests of a method for an object's content, not listings.
func object(name string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == name && strings.Contains(r.URL.Path, "/set/")
	}
}

func wantKind(t *testing.T, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("got %v (kind %v), want kind %v", err, fault.KindOf(err), kind)
	}
}

// T26: every fifth request fails in one of many ways, and all is well.
func TestFlakyService(t *testing.T) {
	_, proxy, u := throughProxy(t, "")
	options := partOptions()
	var mu sync.Mutex
	warnings := 0
	options.Warn = func(string) {
		mu.Lock()
		defer mu.Unlock()
		warnings++
	}
	b := openTest(t, u, options)
	proxy.Set(
		faultproxy.Fault{Kind: faultproxy.FlipUp, Every: 7, Match: object(http.MethodPut)},
		faultproxy.Fault{Kind: faultproxy.Cut, Every: 5, Match: method(http.MethodGet)},
		faultproxy.Fault{Kind: faultproxy.Status, Every: 19, Status: http.StatusInternalServerError},
		faultproxy.Fault{Kind: faultproxy.Status, Every: 17, Status: http.StatusServiceUnavailable, Body: faultproxy.S3Error("SlowDown")},
		faultproxy.Fault{Kind: faultproxy.Status, Every: 23, Status: http.StatusTooManyRequests},
		faultproxy.Fault{Kind: faultproxy.Status, Every: 21, Status: http.StatusBadGateway, Body: "<html>"},
		faultproxy.Fault{Kind: faultproxy.Reset, Every: 16},
		faultproxy.Fault{Kind: faultproxy.LostAnswer, Every: 18},
	)
	var group errgroup.Group
	const objects = 24
	size := func(i int) int64 { return []int64{10, 300_000, 12 << 20}[i%3] }
	for i := range objects {
		group.Go(func() error {
			return writeNoise(t.Context(), b, fmt.Sprintf("set/%02d", i), uint64(i), size(i), 1<<20, size(i))
		})
	}
	must(t, group.Wait())
	if got := len(keys(t, b)); got != objects {
		t.Errorf("%d objects, want %d", got, objects)
	}
	for i := range objects {
		wantNoise(t, b, fmt.Sprintf("set/%02d", i), uint64(i), size(i))
	}
	for i := range objects / 2 {
		must(t, b.Delete(t.Context(), fmt.Sprintf("set/%02d", i)))
	}
	proxy.WantFired(t)
	total := 0
	for _, n := range proxy.Fired() {
		total += n
	}
	t.Logf("%d requests, faults %v, %d warnings", len(proxy.Requests()), proxy.Fired(), warnings)
	if warnings == 0 || warnings > total {
		t.Errorf("%d warnings for %d faults", warnings, total)
	}
	proxy.Set()
	// An upload whose beginning was not heard of is a leftover.
	left, err := b.Leftovers(t.Context())
	must(t, err)
	for _, name := range left {
		must(t, b.RemoveLeftover(t.Context(), name))
	}
	if left, err = b.Leftovers(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left is %q (%v)", left, err)
	}
	if got := len(keys(t, b)); got != objects/2 {
		t.Errorf("%d objects after deleting, want %d", got, objects/2)
	}
}

// T26: a service that only fails is given up after a bounded number of requests.
func TestDeadService(t *testing.T) {
	_, proxy, u := throughProxy(t, "")
	options := partOptions()
	options.Attempts = 5
	b := openTest(t, u, options)
	must(t, writeNoise(t.Context(), b, "set/there", 1, 10, 10, 0))
	for _, f := range []faultproxy.Fault{
		{Kind: faultproxy.Status, Status: http.StatusServiceUnavailable, Body: faultproxy.S3Error("SlowDown")},
		{Kind: faultproxy.Reset},
	} {
		attempts := map[string]func() error{
			"write":       func() error { return writeNoise(t.Context(), b, "set/small", 1, 10, 10, 0) },
			"write parts": func() error { return writeNoise(t.Context(), b, "set/large", 1, 12<<20, 1<<20, 12<<20) },
			"delete":      func() error { return b.Delete(t.Context(), "set/there") },
			"list":        func() error { return b.List(t.Context(), "", func(store.Info) error { return nil }) },
			"open":        func() error { _, err := b.Open(t.Context(), "set/there"); return err },
			"writable":    func() error { return b.CheckWritable(t.Context()) },
			"lock":        func() error { _, _, err := b.Lock(t.Context(), store.Holder{}); return err },
		}
		for name, attempt := range attempts {
			proxy.Set(f)
			err := attempt()
			wantKind(t, err, fault.Unavailable)
			if n := len(proxy.Requests()); n < options.Attempts || n > options.Attempts+1 {
				t.Errorf("%s: %d requests were made, want %d", name, n, options.Attempts)
			}
		}
	}
}

// T27: a credential that expires is looked for once more.
func TestExpiredCredential(t *testing.T) {
	server, proxy, u := throughProxy(t, "")
	file := filepath.Join(t.TempDir(), "credentials")
	renew := func(key, secret string) {
		must(t, os.WriteFile(file, []byte("[default]\naws_access_key_id="+key+"\naws_secret_access_key="+secret+"\n"), 0o600))
	}
	server.User(t, "test", "other", "s3:*")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	renew(server.Key, server.Secret)
	options := partOptions()
	var renewed atomic.Int32
	options.Warn = func(message string) {
		if strings.Contains(message, "was renewed") {
			renewed.Add(1)
		}
	}
	b := openTest(t, u, options)
	expired := faultproxy.Fault{Kind: faultproxy.Status, After: 3, Status: http.StatusBadRequest, Body: faultproxy.S3Error("ExpiredToken"),
		Match: func(r *http.Request) bool {
			return strings.Contains(r.Header.Get("Authorization"), "Credential="+server.Key+"/")
		}}
	write := func(key string) error { return writeNoise(t.Context(), b, key, 1, 23<<20, 1<<20, 23<<20) }

	proxy.Set(expired)
	err := write("set/stopped")
	wantKind(t, err, fault.Precondition)
	if n := len(proxy.Requests()); n > 12 {
		t.Errorf("%d requests with a credential that expired", n)
	}
	if n := renewed.Load(); n > 0 {
		t.Errorf("it said %d times that the same credential was another one", n)
	}
	if hints := strings.Join(fault.Hints(err), " "); !strings.Contains(hints, "renew the credential") {
		t.Errorf("the hint is %q", hints)
	}
	proxy.WantFired(t)

	proxy.Set(expired)
	renew("other", "other-secret")
	must(t, write("set/renewed"))
	wantNoise(t, b, "set/renewed", 1, 23<<20)
	proxy.WantFired(t)
	if renewed.Load() == 0 {
		t.Error("nobody was told that the credential is another one")
	}
	for _, key := range keys(t, b) {
		if key != "set/renewed" {
			t.Errorf("%s is there", key)
		}
	}
}

// T29: the service did what it was asked, and its answer was lost.
func TestLostAnswers(t *testing.T) {
	_, proxy, u := throughProxy(t, "")
	b := openTest(t, u, partOptions())
	commits := func(r *http.Request) bool {
		q := r.URL.Query()
		return strings.Contains(r.URL.Path, "/set/") && (r.Method == http.MethodPut && !q.Has("partNumber") || r.Method == http.MethodPost && q.Has("uploadId"))
	}
	for name, size := range map[string]int64{"small": 100, "large": 12 << 20} {
		lost := faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: commits, Times: 1}
		proxy.Set(lost)
		must(t, writeNoise(t.Context(), b, "set/"+name, 1, size, 1<<20, size))
		proxy.WantFired(t)
		wantNoise(t, b, "set/"+name, 1, size)

		// Services say of the repeated request that the key is taken, or that there is
		// no such upload: what it asks for was done by the first one.
		for status, code := range map[int]string{http.StatusPreconditionFailed: "PreconditionFailed", http.StatusNotFound: "NoSuchUpload"} {
			key := fmt.Sprintf("set/%s-%d", name, status)
			proxy.Set(lost, faultproxy.Fault{Kind: faultproxy.Status, Match: commits, Times: 1, Status: status, Body: faultproxy.S3Error(code)},
				faultproxy.Fault{Kind: faultproxy.Reset, Match: method(http.MethodHead), Times: 1})
			must(t, writeNoise(t.Context(), b, key, 1, size, 1<<20, size))
			proxy.WantFired(t)
			wantNoise(t, b, key, 1, size)
		}

		proxy.Set(lost) // now the key is another object's
		err := writeNoise(t.Context(), b, "set/"+name, 2, size, 1<<20, size)
		if !errors.Is(err, store.ErrExist) {
			t.Errorf("%s: a taken key: %v", name, err)
		}
		proxy.WantFired(t)
		wantNoise(t, b, "set/"+name, 1, size)
	}
	// Every answer to a deletion, and to the beginning of an upload.
	proxy.Set(faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: object(http.MethodDelete), Times: 1},
		faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: object(http.MethodPost), Times: 1})
	must(t, b.Delete(t.Context(), "set/small"))
	must(t, writeNoise(t.Context(), b, "set/again", 3, 12<<20, 1<<20, 12<<20))
	proxy.WantFired(t)
	proxy.Set()
	wantNoise(t, b, "set/again", 3, 12<<20)
	// The upload whose id was lost is a leftover, and no object.
	left, err := b.Leftovers(t.Context())
	must(t, err)
	if len(left) != 1 || !strings.HasPrefix(left[0], "set/again"+uploadMark) {
		t.Fatalf("left is %q", left)
	}
	must(t, b.RemoveLeftover(t.Context(), left[0]))
	must(t, b.RemoveLeftover(t.Context(), left[0]))
}

// T30: a transfer that is cut goes on where it was.
func TestCutRead(t *testing.T) {
	_, proxy, u := throughProxy(t, "")
	b := openTest(t, u, partOptions())
	const size = 12 << 20
	must(t, writeNoise(t.Context(), b, "set/object", 1, size, 1<<20, size))
	gets := object(http.MethodGet)
	const cuts = 22 // more than one request is tried: each brings some bytes
	proxy.Set(faultproxy.Fault{Kind: faultproxy.Cut, Match: gets, Times: cuts})
	wantNoise(t, b, "set/object", 1, size)
	if fired := proxy.Fired()[0]; fired != cuts || fired <= b.options.Attempts {
		t.Errorf("cut %d times, want %d, and more than %d", fired, cuts, b.options.Attempts)
	}
	for _, request := range proxy.Requests() {
		if !strings.HasPrefix(request, http.MethodGet) {
			t.Errorf("reading made the request %s", request)
		}
	}
	for _, kind := range []faultproxy.Kind{faultproxy.Cut, faultproxy.Short} { // a range says how long it is in two places
		proxy.Set(faultproxy.Fault{Kind: kind, Match: gets, Times: 3})
		r, err := b.OpenRange(t.Context(), "set/object", 1000, 5_000_000)
		must(t, err)
		want := noise(1, 5_001_000)
		_, err = io.CopyN(io.Discard, want, 1000)
		must(t, err)
		if got, want := sum(t, r), sum(t, want); got != want {
			t.Errorf("%s: a range that was cut is another one", kind)
		}
		must(t, r.Close())
		if fired := proxy.Fired()[0]; fired != 3 {
			t.Errorf("%s: %d times, want 3", kind, fired)
		}
	}

	// Cut without a byte arriving, again and again: the end is bounded, whether the
	// service answers or not.
	options := partOptions()
	options.Attempts = 4
	b = openTest(t, u, options)
	cut := faultproxy.Fault{Kind: faultproxy.Cut, Match: gets}
	for most, faults := range map[int][]faultproxy.Fault{
		1 + options.Attempts: {{Kind: faultproxy.Status, Match: gets, After: 1, Status: http.StatusInternalServerError}, cut},
		// After 24 halves nothing is left to cut; what is on its way when a connection
		// is reset may be lost with it.
		4 * (25 + options.Attempts): {cut},
	} {
		proxy.Set(faults...)
		r, err := b.Open(t.Context(), "set/object")
		must(t, err)
		n, err := io.Copy(io.Discard, r)
		wantKind(t, err, fault.Unavailable)
		if n == 0 || n >= size {
			t.Errorf("%d bytes were read of an object whose transfer ended half-way", n)
		}
		must(t, r.Close())
		proxy.WantFired(t)
		if n := len(proxy.Requests()); n > most {
			t.Errorf("%d requests, want at most %d", n, most)
		}
	}
}

// T30, T35: what went on is another object, or none.
func TestChangedWhileRead(t *testing.T) {
	server, proxy, u := throughProxy(t, "")
	b := openTest(t, u, partOptions())
	const size = 4 << 20
	halfRead := func(key string) io.ReadCloser {
		must(t, writeNoise(t.Context(), b, key, 1, size, 1<<20, size))
		proxy.Set(faultproxy.Fault{Kind: faultproxy.Cut, Match: object(http.MethodGet), Times: 1})
		r, err := b.Open(t.Context(), key)
		must(t, err)
		_, err = io.ReadFull(r, make([]byte, 1000))
		must(t, err)
		return r
	}
	r := halfRead("set/replaced")
	_, err := server.Client().PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String("test"), Key: aws.String("db1/set/replaced"), Body: bytes.NewReader(make([]byte, size)),
	})
	must(t, err)
	_, err = io.Copy(io.Discard, r)
	wantKind(t, err, fault.Integrity)
	if err == nil || !strings.Contains(err.Error(), "set/replaced") {
		t.Errorf("the error does not name the object: %v", err)
	}
	must(t, r.Close())
	proxy.WantFired(t)

	r = halfRead("set/vanished")
	must(t, b.Delete(t.Context(), "set/vanished"))
	_, err = io.Copy(io.Discard, r)
	if !errors.Is(err, store.ErrNotExist) || !strings.Contains(err.Error(), "set/vanished") {
		t.Errorf("reading what vanished: %v", err)
	}
	must(t, r.Close())
	proxy.WantFired(t)
}

// T33: a listing is whole or an error.
func TestCutListing(t *testing.T) {
	_, proxy, u := throughProxy(t, "")
	b := openTest(t, u, testOptions())
	var group errgroup.Group
	group.SetLimit(16)
	const objects = 1100
	for i := range objects {
		group.Go(func() error { return writeNoise(t.Context(), b, fmt.Sprintf("set/%04d", i), 1, 1, 1, 0) })
	}
	must(t, group.Wait())
	lists := func(r *http.Request) bool { return r.URL.Query().Has("list-type") }
	for _, kind := range []faultproxy.Kind{faultproxy.Cut, faultproxy.Short, faultproxy.Reset} {
		proxy.Set(faultproxy.Fault{Kind: kind, Match: lists, Times: 1}, faultproxy.Fault{Kind: kind, Match: lists, After: 1, Times: 1})
		if got := len(keys(t, b)); got != objects {
			t.Errorf("%s: %d of %d objects are listed", kind, got, objects)
		}
		proxy.WantFired(t)
	}
	second := func(r *http.Request) bool { return r.URL.Query().Has("continuation-token") }
	for _, f := range []faultproxy.Fault{
		{Kind: faultproxy.Status, Match: second, Status: http.StatusInternalServerError},
		{Kind: faultproxy.Status, Match: second, Status: http.StatusForbidden, Body: faultproxy.S3Error("AccessDenied")},
		{Kind: faultproxy.Short, Match: second},
		{Kind: faultproxy.Cut, Match: second},
	} {
		proxy.Set(f)
		listed := 0
		err := b.List(t.Context(), "set/", func(store.Info) error { listed++; return nil })
		if err == nil || listed >= objects {
			t.Errorf("%s %d on the second page: %d of %d were listed, and the error is %v", f.Kind, f.Status, listed, objects, err)
		}
		proxy.WantFired(t)
	}
	proxy.Set()
	if got := len(keys(t, b)); got != objects {
		t.Errorf("%d of %d objects are listed", got, objects)
	}
	if n := len(proxy.Requests()); n != 2 {
		t.Errorf("%d requests for %d objects, want 2", n, objects)
	}
}

// T34: a bit flipped on the way up never gets stored. One flipped on the way
// down is seen by the service's checksum where it has one; where it has none,
// the digests that callers keep see it, which is why the bytes must differ here.
func TestFlippedBits(t *testing.T) {
	_, proxy, u := throughProxy(t, "&checksums=when_supported")
	checked := openTest(t, u, partOptions())
	plain := openTest(t, s3URL(t, proxy.URL, "test", "db1", ""), partOptions())
	for name, b := range map[string]*Bucket{"checked": checked, "plain": plain} {
		for i, size := range []int64{1000, 12 << 20} {
			key := fmt.Sprintf("set/%s-%d", name, i)
			proxy.Set(faultproxy.Fault{Kind: faultproxy.FlipUp, Match: object(http.MethodPut), Times: 2})
			must(t, writeNoise(t.Context(), b, key, 1, size, 1<<20, size))
			proxy.WantFired(t)
			wantNoise(t, b, key, 1, size)
		}
	}
	proxy.Set(faultproxy.Fault{Kind: faultproxy.FlipDown, Match: object(http.MethodGet)})
	noticed := 0
	for name, size := range map[string]int64{"checked-0": 1000, "plain-0": 1000, "checked-1": 12 << 20, "plain-1": 12 << 20} {
		r, err := checked.Open(t.Context(), "set/"+name)
		must(t, err)
		h := sha256.New()
		_, err = io.Copy(h, r)
		if err != nil {
			wantKind(t, err, fault.Integrity)
			noticed++
		} else if got, want := fmt.Sprintf("%x", h.Sum(nil)), sum(t, noise(1, size)); got == want {
			t.Errorf("%s: the bit was not flipped", name)
		}
		must(t, r.Close())
	}
	if noticed == 0 {
		t.Error("no checksum of the service was looked at")
	}
	if fired := proxy.Fired()[0]; fired != 4 {
		t.Errorf("%d bits were flipped", fired)
	}
}

// T29 for the lock: an answer that is lost makes no second holder, and no
// holder that does not know of itself.
func TestLockThroughFaults(t *testing.T) {
	_, proxy, u := throughProxy(t, "")
	b := openTest(t, u, testOptions())
	lockPut := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/.lock/")
	}
	for range 3 {
		proxy.Set(faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: lockPut, Times: 2}, faultproxy.Fault{Kind: faultproxy.Status, Status: 503, Every: 5})
		held, release, err := b.Lock(t.Context(), store.Holder{Host: "a", PID: 1})
		must(t, err)
		_, _, err = b.Lock(t.Context(), store.Holder{Host: "b"})
		wantKind(t, err, fault.Locked)
		if held.Err() != nil {
			t.Error(context.Cause(held))
		}
		must(t, release())
		if proxy.Fired()[0] == 0 {
			t.Error("no answer was lost")
		}
	}
}
