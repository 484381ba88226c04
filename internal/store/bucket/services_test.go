package bucket

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"dbbackup/internal/fault"
	"dbbackup/internal/faultproxy"
	"dbbackup/internal/store"
	"dbbackup/internal/storeserver"
)

// T26, T29, T30 for the services that are not S3: requests that fail, answers
// that are lost, transfers that are cut.
func TestOtherServicesThroughFaults(t *testing.T) {
	google, azure := storeserver.StartGCS(t), storeserver.StartAzure(t)
	through := func(u *url.URL, endpoint string) (*faultproxy.Proxy, *url.URL) {
		at, err := url.Parse(endpoint)
		must(t, err)
		proxy := faultproxy.Start(t, at.Host, 7)
		front := *u
		front.RawQuery = "endpoint=" + url.QueryEscape(proxy.URL+at.Path)
		return proxy, &front
	}
	tests := []struct {
		name     string
		endpoint string
		direct   *url.URL
		options  Options
		commit   func(r *http.Request) bool // of a small object
		large    func(r *http.Request) bool // of one in parts; nil where the library sees to it
	}{
		{
			"google", google.Endpoint, newGCS(t, google, "db1"), testOptions(),
			func(r *http.Request) bool {
				return r.Method == http.MethodPost && r.URL.Query().Get("uploadType") == "multipart"
			}, nil,
		},
		{
			"azure", azure.Endpoint, newAzure(t, azure, "db1"), azureOptions(azure),
			func(r *http.Request) bool { return r.Method == http.MethodPut && !r.URL.Query().Has("comp") },
			func(r *http.Request) bool { return r.URL.Query().Get("comp") == "blocklist" },
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proxy, u := through(tt.direct, tt.endpoint)
			b := openTest(t, u, tt.options)
			ctx := t.Context()

			commits := map[int64]func(*http.Request) bool{100: tt.commit}
			if tt.large != nil {
				commits[5<<20] = tt.large
			}
			for size, commit := range commits {
				key := fmt.Sprintf("set/lost-%d", size)
				var unsummed atomic.Int32 // T34: what carries content says what arrives; this server does not look
				proxy.Set(faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: commit, Times: 1},
					faultproxy.Fault{Kind: faultproxy.Reset, Match: func(r *http.Request) bool {
						if tt.name == "azure" && r.Method == http.MethodPut && r.URL.Query().Get("comp") != "blocklist" && r.Header.Get("X-Ms-Content-Crc64") == "" {
							unsummed.Add(1)
						}
						return false
					}})
				must(t, writeNoise(ctx, b, key, 1, size, 1<<20, size))
				if proxy.Fired()[0] == 0 || unsummed.Load() > 0 {
					t.Errorf("%d answers were lost, and %d requests had no checksum", proxy.Fired()[0], unsummed.Load())
				}
				proxy.Set(faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: commit, Times: 1})
				if err := writeNoise(ctx, b, key, 2, size, 1<<20, size); !errors.Is(err, store.ErrExist) {
					t.Errorf("a taken key of %d bytes: %v", size, err)
				}
				proxy.WantFired(t)
				wantNoise(t, b, key, 1, size)

				key = fmt.Sprintf("set/contradicted-%d", size)
				proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Match: commit, Times: 1, Status: http.StatusConflict})
				must(t, writeNoise(ctx, b, key, 1, size, 1<<20, size))
				proxy.WantFired(t)
				wantNoise(t, b, key, 1, size)
			}

			const large = 20 << 20
			proxy.Set(
				faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusServiceUnavailable, Every: 5},
				faultproxy.Fault{Kind: faultproxy.Reset, Every: 6},
			)
			for i := range 12 {
				must(t, writeNoise(ctx, b, fmt.Sprintf("set/%02d", i), uint64(i), 1000, 1000, 0))
			}
			must(t, writeNoise(ctx, b, "set/large", 9, large, 1<<20, large))
			proxy.WantFired(t)
			proxy.Set(
				faultproxy.Fault{Kind: faultproxy.Cut, Times: 5, Match: func(r *http.Request) bool {
					return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "large")
				}},
				faultproxy.Fault{Kind: faultproxy.Cut, Times: 1, Match: method(http.MethodGet)}, // a listing
			)
			wantNoise(t, b, "set/large", 9, large)
			if got, want := len(keys(t, b)), 13+2*len(commits); got != want {
				t.Errorf("%d objects, want %d", got, want)
			}
			proxy.WantFired(t)

			options := tt.options
			if tt.name == "google" { // the library counts for itself: attempts are those of one chunk
				options.Attempts = 3
				patient := openTest(t, u, options)
				proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusServiceUnavailable, Every: 2})
				must(t, writeNoise(ctx, patient, "set/patient", 3, 2*large, 1<<20, 2*large))
				if n := proxy.Fired()[0]; n <= options.Attempts {
					t.Errorf("%d requests failed, want more than %d", n, options.Attempts)
				}
				proxy.Set()
				wantNoise(t, b, "set/patient", 3, 2*large)
			}

			// A service that only fails, from the beginning and in the middle of an upload.
			options.Attempts = 5
			b = openTest(t, u, options)
			for _, size := range []int64{10, large} {
				for _, after := range []int{0, 2} {
					dead := faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusServiceUnavailable, After: after}
					if size < large && after > 0 {
						continue
					}
					proxy.Set(dead)
					err := writeNoise(ctx, b, "set/never", 1, size, 1<<20, size)
					wantKind(t, err, fault.Unavailable)
					if !strings.Contains(fmt.Sprint(err), "given up after 5 attempts") {
						t.Errorf("the error is %v", err)
					}
					proxy.WantFired(t)
					if n, most := len(proxy.Requests()), after+(b.options.Attempts+1)*(b.options.Streams+1); n > most {
						t.Errorf("%d requests to a service that is dead after %d, for %d bytes; want at most %d", n, after, size, most)
					}
				}
			}
			proxy.Set()
			if _, err := b.Open(ctx, "set/never"); !errors.Is(err, store.ErrNotExist) {
				t.Errorf("what could not be written is there: %v", err)
			}

			// What went on is another object, or none: as in TestChangedWhileRead. The
			// server that stands for Google's does not look at the condition, so here it
			// must have been asked for.
			for _, kind := range []string{"replaced", "vanished"} {
				key := "set/" + kind
				must(t, writeNoise(ctx, b, key, 1, 4<<20, 1<<20, 0))
				var gets, pinned atomic.Int32
				proxy.Set(faultproxy.Fault{Kind: faultproxy.Cut, Times: 1, Match: func(r *http.Request) bool {
					if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, kind) {
						return false
					}
					gets.Add(1)
					if q := r.URL.Query(); r.Header.Get("If-Match") != "" || q.Has("ifGenerationMatch") || q.Has("generation") {
						pinned.Add(1)
					}
					return true
				}})
				r, err := b.Open(ctx, key)
				must(t, err)
				_, err = io.ReadFull(r, make([]byte, 1000))
				must(t, err)
				must(t, b.Delete(ctx, key))
				if kind == "replaced" {
					must(t, writeNoise(ctx, b, key, 2, 4<<20, 1<<20, 0))
				}
				_, err = io.Copy(io.Discard, r)
				if (kind == "vanished" || tt.name != "google") && (!fault.Is(err, fault.Integrity) && !errors.Is(err, store.ErrNotExist) || !strings.Contains(err.Error(), key)) {
					t.Errorf("reading what was %s: %v", kind, err)
				}
				must(t, r.Close())
				proxy.WantFired(t)
				if n := gets.Load(); n < 2 || pinned.Load() != n-1 {
					t.Errorf("%d of %d requests asked for what was read before, want all but the first", pinned.Load(), n)
				}
			}

			// A deletion whose answer was lost is one.
			proxy.Set(faultproxy.Fault{Kind: faultproxy.LostAnswer, Times: 1, Match: method(http.MethodDelete)})
			must(t, b.Delete(ctx, "set/replaced"))
			proxy.WantFired(t)
		})
	}
}
