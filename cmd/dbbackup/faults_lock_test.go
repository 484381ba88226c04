package main

import (
	"bytes"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"dbbackup/internal/faultproxy"
	"dbbackup/internal/storeserver"
)

// changes tells the requests that change a store, but for its lock.
func changes(method, path string) bool {
	return method != http.MethodGet && method != http.MethodHead && !strings.Contains(path, "/.lock/")
}

// takeOver writes what another run that takes over the lock of a store would.
func takeOver(t testing.TB, s *storeserver.S3, prefix string) {
	t.Helper()
	bucket, key := "backups", prefix+"/.lock/00009999"
	_, err := s.Client().PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: bytes.NewReader([]byte(`{"holder":{"host":"elsewhere"},"token":"another"}`)),
	})
	if err != nil {
		t.Error(err)
	}
}

// Another run takes the lock over in the middle of what a command does to the store.
// The command learns of it, says so, and changes nothing any more: neither does it
// clear up, for what is there may be the other run's by now.
func TestLostLockStopsWhatHoldsIt(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	db, keys, fresh := smallDatabase(t, c), newKeys(t), newKeys(t)
	folder := captured(t, c, db)
	seal := []string{"backup", "single", db, "--mode", "custom", "--encrypt", "--keys", keys}
	for name, tc := range map[string]struct {
		before [][]string // commands that fill the store
		args   []string   // without the store
		at     string     // the end of the key of the request that never returns
		left   int        // complete sets
	}{
		"backup":           {args: []string{"backup", "single", db, "--mode", "custom"}, at: ".dump"},
		"backup of chunks": {args: []string{"backup", "single", db, "--mode", "chunked"}, at: "/contents.json"},
		"prune":            {before: [][]string{seal, seal}, args: []string{"prune", "--keep-last", "1"}, at: "/manifest.json", left: 2},
		"key rotate": {
			before: [][]string{seal}, at: "/keys/000001.age", left: 1,
			args: []string{"key", "rotate", "--keys", keys, "--recipients-file", filepath.Join(fresh, recipientsFile)},
		},
		"copy": {args: []string{"copy", "--all", "--from", folder}, at: "/globals.sql"},
		"gc":   {before: [][]string{seal}, args: []string{"gc"}, at: ".dump", left: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prefix := strings.ReplaceAll(name, " ", "-")
			owner, proxy := at(s, s.Endpoint, prefix, ""), startFaultproxy(t, s)
			r := at(s, proxy.URL, prefix, "")
			for _, args := range tc.before {
				owner.run(t, c, args...).must(t, exitOK)
			}
			if name == "gc" { // of what a run left that could not commit
				proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusInternalServerError, Match: func(r *http.Request) bool {
					return putting("/manifest.json")(r) || r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/databases/")
				}})
				at(s, proxy.URL, prefix, "&attempts=1").run(t, c, "backup", "single", db, "--mode", "custom").must(t, exitFailed)
				proxy.WantFired(t)
			}
			var once sync.Once
			proxy.Set(faultproxy.Fault{Kind: faultproxy.Hang, Times: 1, Match: func(r *http.Request) bool {
				if !changes(r.Method, r.URL.Path) || !strings.HasSuffix(r.URL.Path, tc.at) {
					return false
				}
				once.Do(func() { takeOver(t, s, prefix) })
				return true
			}})
			var got result
			if name == "copy" {
				got = dbbackup(t, r.env, append(tc.args, "--to", r.url)...)
			} else {
				got = r.run(t, c, tc.args...)
			}
			got.want(t, exitLocked, "the lock of the store was lost: another run took it over", "hint: see whether another run works on the store")
			proxy.WantFired(t)
			if late := changesAfterTakeOver(proxy.Requests(), tc.at); len(late) > 0 {
				t.Errorf("after the lock was lost: %q", late)
			}
			if ids := owner.sets(t); len(ids) != tc.left {
				t.Errorf("list shows %q, want %d sets", ids, tc.left)
			}
		})
	}
}

// changesAfterTakeOver are the requests that change the store after the first look at
// the lock that follows the one which hung.
func changesAfterTakeOver(requests []string, at string) (late []string) {
	hung := slices.IndexFunc(requests, func(request string) bool {
		method, path, _ := strings.Cut(request, " ")
		path, _, _ = strings.Cut(path, "?")
		return changes(method, path) && strings.HasSuffix(path, at)
	})
	looked := false
	for _, request := range requests[hung+1:] {
		method, path, _ := strings.Cut(request, " ")
		if method == http.MethodPut && strings.Contains(path, "/.lock/") { // a heartbeat: the look before it saw nothing yet
			looked, late = false, nil
			continue
		}
		looked = looked || strings.Contains(path, ".lock%2F") || strings.Contains(path, "/.lock/")
		if looked && changes(method, path) {
			late = append(late, request)
		}
	}
	return late
}
