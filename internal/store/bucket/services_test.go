package bucket

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
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
				proxy.Set(faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: commit, Times: 1})
				must(t, writeNoise(ctx, b, key, 1, size, 1<<20, size))
				proxy.WantFired(t)
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

			proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusServiceUnavailable})
			wantKind(t, writeNoise(ctx, b, "set/never", 1, 10, 10, 0), fault.Unavailable)
			if n := len(proxy.Requests()); n > b.options.Attempts+1 {
				t.Errorf("%d requests to a dead service", n)
			}
		})
	}
}
