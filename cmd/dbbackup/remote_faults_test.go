package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"dbbackup/internal/faultproxy"
	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
	"dbbackup/internal/storeserver"
)

// startBucket runs an S3 server with a bucket called backups.
func startBucket(t *testing.T) *storeserver.S3 {
	t.Helper()
	s := storeserver.StartS3(t)
	s.Bucket(t, "backups", false)
	return s
}

// at is a store in the bucket of a server, seen through an endpoint.
func at(s *storeserver.S3, endpoint, prefix, query string) remote {
	return remote{
		url: "s3://backups/" + prefix + "?path-style=true&endpoint=" + endpoint + query,
		env: []string{"AWS_ACCESS_KEY_ID=" + s.Key, "AWS_SECRET_ACCESS_KEY=" + s.Secret, "AWS_REGION=" + s.Region, "AWS_EC2_METADATA_DISABLED=true"},
	}
}

// chunkedInto are the arguments of a capture in small chunks, without the store.
func chunkedInto(db string, args ...string) []string {
	return append([]string{"backup", "single", db, "--mode", "chunked", "--chunk-size", "64kB"}, args...)
}

// wantCut checks that requests failed because their connections were broken, and
// were made again.
func (r result) wantCut(t testing.TB, atLeast int) {
	t.Helper()
	cut := 0
	for line := range strings.Lines(r.stderr) {
		if strings.Contains(line, "the next follows in") && (strings.Contains(line, "reset") || strings.Contains(line, "EOF") || strings.Contains(line, "broken pipe")) {
			cut++
		}
	}
	if cut < atLeast {
		t.Errorf("%d requests were cut off, want at least %d: the test proves nothing", cut, atLeast)
	}
}

// T26: connections are cut again and again, below HTTP and in the middle of what
// they carry. The set is made, verified and restored all the same.
func TestT26ConnectionsAreCut(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	for name, cut := range map[string]func(t *testing.T, p *storeserver.Toxiproxy){
		"of requests": func(t *testing.T, p *storeserver.Toxiproxy) {
			p.Add(t, "limit_data", "upstream", 0.15, map[string]int{"bytes": 20_000})
		},
		"of answers": func(t *testing.T, p *storeserver.Toxiproxy) {
			p.Add(t, "limit_data", "downstream", 0.06, map[string]int{"bytes": 20_000})
		},
		"before the answer": func(t *testing.T, p *storeserver.Toxiproxy) {
			p.Add(t, "reset_peer", "downstream", 0.04, map[string]int{"timeout": 50})
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := startBucket(t)
			proxy := storeserver.StartToxiproxy(t, s.Endpoint)
			r, db := at(s, proxy.Endpoint, "pre", ""), family(t, c)
			cut(t, proxy)
			backup := r.run(t, c, chunkedInto(db)...).must(t, exitOK)
			verify := r.run(t, nil, "verify").must(t, exitOK)
			to := c.FreeName(t)
			restore := r.run(t, c, "restore", "single", db, "--target-db", to).must(t, exitOK)
			zoo.Compare(t, c, db, c, to)
			result{stderr: backup.stderr + verify.stderr + restore.stderr}.wantCut(t, 3)
			if ids := r.sets(t); len(ids) != 1 {
				t.Errorf("list shows %q", ids)
			}
		})
	}
}

// T26: connections that fall silent are given up. The run goes on when the
// service speaks again, and ends when it does not.
func TestT26ConnectionsHang(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := storeserver.StartToxiproxy(t, s.Endpoint)
	db := family(t, c)
	silence := func(r remote, until func(log string) bool, args ...string) (*running, string) {
		log := filepath.Join(t.TempDir(), "log")
		running := startUnder(t, append(slices.Clone(r.env), c.Env()...), loggingTo(log), append(chunkedInto(db, "--max-rate", "4MB", "--jobs", "2", "--store", r.url), args...)...)
		direct := at(s, s.Endpoint, "pre", "")
		eventually(t, "some chunks are finished", func() bool {
			return strings.Count(strings.Join(direct.keys(t), "\n"), "/journal/") >= 4
		})
		proxy.Add(t, "timeout", "upstream", 1, map[string]int{"timeout": 0})
		if until != nil {
			eventually(t, "the silence is noticed", func() bool { text, _ := os.ReadFile(log); return until(string(text)) })
			proxy.Remove(t, "timeout")
		}
		return running, log
	}

	r := at(s, proxy.Endpoint, "pre", "&attempts=1&stall=1s")
	running, log := silence(r, nil, "--attempts", "1")
	if got := running.wait(t); got.code != exitFailed {
		t.Errorf("exit code: got %d, want %d", got.code, exitFailed)
	}
	t.Logf("it said: %s", readFile(t, log))
	result{stderr: string(readFile(t, log)), code: exitFailed}.want(t, exitFailed, "given up after", "i/o timeout")
	proxy.Remove(t, "timeout")
	if ids := r.sets(t); len(ids) > 0 {
		t.Errorf("list shows %q", ids)
	}
	r.run(t, nil, "gc").must(t, exitOK)

	r = at(s, proxy.Endpoint, "pre", "&stall=1s")
	running, log = silence(r, func(log string) bool { return strings.Contains(log, "attempt 1 of 20 failed") })
	if got := running.wait(t); got.code != exitOK {
		t.Errorf("exit code: got %d, want 0\n%s", got.code, readFile(t, log))
	}
	r.run(t, nil, "verify").must(t, exitOK)
}

// putting matches the requests that write an object whose key ends so.
func putting(suffix string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, suffix)
	}
}

func startFaultproxy(t *testing.T, s *storeserver.S3) *faultproxy.Proxy {
	t.Helper()
	return faultproxy.Start(t, strings.TrimPrefix(s.Endpoint, "http://"), 42)
}

// The service takes everything but the manifest. There is no set, the object
// is named, and what is there is gone on with or removed.
func TestManifestIsRefusedByTheService(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	db := smallDatabase(t, c)
	for name, tc := range map[string]struct {
		status int
		error  string
		code   int
		times  int // that the manifest is sent
		hint   string
	}{
		"fails": {http.StatusInternalServerError, "InternalError", exitFailed, 3, "given up after 3 attempts"},
		"full":  {http.StatusInsufficientStorage, "XMinioStorageFull", exitPrecondition, 1, "no more room for this bucket"},
	} {
		for _, mode := range []string{"custom", "chunked"} {
			t.Run(name+" "+mode, func(t *testing.T) {
				r := at(s, proxy.URL, fmt.Sprintf("%s-%s", name, mode), "&attempts=3")
				refuse := func() {
					proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Status: tc.status, Body: faultproxy.S3Error(tc.error), Match: putting("/manifest.json")})
					before := r.sets(t)
					r.run(t, c, "backup", "single", db, "--mode", mode).want(t, tc.code, "manifest.json", tc.hint, "hint: ")
					if n := proxy.Fired()[0]; n != tc.times {
						t.Errorf("the manifest was sent %d times, want %d", n, tc.times)
					}
					proxy.Set()
					if ids := r.sets(t); !slices.Equal(ids, before) {
						t.Errorf("list shows %q, before %q", ids, before)
					}
				}
				refuse()
				if mode == "chunked" {
					r.run(t, c, "resume").must(t, exitOK)
				} else {
					r.run(t, c, "backup", "single", db, "--mode", mode).must(t, exitOK)
				}
				if ids := r.sets(t); len(ids) != 1 {
					t.Errorf("list shows %q", ids)
				}
				r.run(t, nil, "verify").must(t, exitOK)
				before := r.keys(t)
				refuse() // with a good set beside it
				r.run(t, nil, "gc").must(t, exitOK)
				if after := r.keys(t); !slices.Equal(after, before) {
					t.Errorf("after gc: %q, want %q", after, before)
				}
			})
		}
	}
}

// T29: the service commits the manifest, and its answer is lost.
func TestT29AnswerToTheManifestIsLost(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	db := smallDatabase(t, c)
	for _, mode := range []string{"custom", "chunked"} {
		r := at(s, proxy.URL, mode, "")
		proxy.Set(faultproxy.Fault{Kind: faultproxy.LostAnswer, Match: putting("/manifest.json"), Times: 1})
		r.run(t, c, "backup", "single", db, "--mode", mode).want(t, exitOK, "manifest.json")
		proxy.WantFired(t)
		if ids := r.sets(t); len(ids) != 1 {
			t.Errorf("list shows %q", ids)
		}
		r.run(t, nil, "verify").must(t, exitOK)
		for _, key := range r.keys(t) {
			if strings.Contains(key, "UNFINISHED") || strings.Contains(key, "/journal/") {
				t.Errorf("%s is left", key)
			}
		}
	}
}

// A store that dies in the middle of a run falls behind. The other one has the
// whole set, and copy brings the first up to date when it is back.
func TestStoreDiesInTheMiddleOfARun(t *testing.T) {
	t.Parallel()
	c, good, bad := shared.Cluster(t), startBucket(t), startBucket(t)
	a, b := at(good, good.Endpoint, "pre", ""), at(bad, bad.Endpoint, "pre", "&attempts=3")
	db := family(t, c)
	running := start(t, append(slices.Clone(a.env), c.Env()...), append(chunkedInto(db, "--max-rate", "2MB", "--jobs", "2"), in(a.url, b.url)...)...)
	eventually(t, "some chunks are finished", func() bool {
		return strings.Count(strings.Join(b.keys(t), "\n"), "/journal/") >= 4
	})
	bad.Kill()
	running.wait(t).want(t, exitOmissions, "a store fell behind", bad.Endpoint)
	if ids := a.sets(t); len(ids) != 1 {
		t.Fatalf("list shows %q", ids)
	}
	a.run(t, nil, "verify").must(t, exitOK)

	bad.Restart(t)
	if ids := b.sets(t); len(ids) > 0 {
		t.Errorf("the store that died shows %q", ids)
	}
	dbbackup(t, a.env, "copy", "--all", "--from", a.url, "--to", b.url).must(t, exitOK)
	listing := dbbackup(t, a.env, append(in(a.url, b.url), "list", "--json")...).must(t, exitOK)
	var l listed
	listing.decode(t, &l)
	if len(l.Stores) != 2 || l.Status != "complete" {
		t.Errorf("listed: %s", listing.stdout)
	}
	b.run(t, nil, "verify").must(t, exitOK)
	to := c.FreeName(t)
	b.run(t, c, "restore", "single", db, "--target-db", to).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// A store that is slower than patience allows falls behind, and holds up nothing.
func TestSlowStoreFallsBehind(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := storeserver.StartToxiproxy(t, s.Endpoint)
	folder, r := newStore(t), at(s, proxy.Endpoint, "pre", "&attempts=2&stall=1s")
	db := family(t, c)
	proxy.Add(t, "bandwidth", "upstream", 1, map[string]int{"rate": 20})
	dbbackup(t, append(slices.Clone(r.env), c.Env()...), append(chunkedInto(db, "--store-patience", "1s"), in(folder, r.url)...)...).
		want(t, exitOmissions, "a store fell behind", "it kept the other stores waiting for 1s")
	wantSound(t, folder, 1)
	proxy.Remove(t, "bandwidth")
	direct := at(s, s.Endpoint, "pre", "")
	if ids := direct.sets(t); len(ids) > 0 {
		t.Errorf("the slow store shows %q", ids)
	}
	dbbackup(t, direct.env, "copy", "--all", "--from", folder, "--to", direct.url).must(t, exitOK)
	direct.run(t, nil, "verify").must(t, exitOK)
}

// chunkFile is the file in which the S3 server keeps an object with rows, and the
// object's name in its set.
func chunkFile(t testing.TB, s *storeserver.S3, r remote, prefix, suffix string) (path, name string) {
	t.Helper()
	for _, key := range r.keys(t) {
		if _, name, ok := strings.Cut(key, "/"); ok && strings.HasSuffix(key, suffix) {
			return filepath.Join(s.Data, "backups", prefix, key), name
		}
	}
	t.Fatalf("the store holds no object *%s: %q", suffix, r.keys(t))
	return "", ""
}

// wantDamageFound checks that verify and restore end with the name of the object,
// and that the restore leaves nothing.
func wantDamageFound(t testing.TB, c *pgtest.Cluster, r remote, db, name string, before func()) {
	t.Helper()
	r.tmp = t.TempDir()
	before()
	verify := r.run(t, nil, "verify")
	verify.want(t, exitIntegrity, "is damaged")
	verify.wantStdout(t, "damage: ", name)
	before()
	to := c.FreeName(t)
	r.run(t, c, "restore", "single", db, "--target-db", to).want(t, exitIntegrity, name)
	for _, left := range databasesOf(t, c) {
		if strings.Contains(left, to) {
			t.Errorf("the database %s is left", left)
		}
	}
	wantNothingFetched(t, r.tmp)
}

// T34: a bit of an object in the bucket is another one than was written.
func TestT34FlippedBitInABucket(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	db := smallDatabase(t, c)
	for mode, suffix := range map[string]string{"custom": ".dump", "plain": ".sql.gz", "chunked": ".copy.zst"} {
		t.Run(mode, func(t *testing.T) {
			r := at(s, s.Endpoint, mode, "")
			r.run(t, c, "backup", "single", db, "--mode", mode).must(t, exitOK)
			path, name := chunkFile(t, s, r, mode, suffix)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			withFlipped(t, path, info.Size()/2, func() { wantDamageFound(t, c, r, db, name, func() {}) })
			r.run(t, nil, "verify").must(t, exitOK)
		})
	}
}

// T35: an object is listed, and gone when it is read.
func TestT35ObjectVanishesBeforeItIsRead(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	db, proxy := smallDatabase(t, c), startFaultproxy(t, s)
	for mode, suffix := range map[string]string{"custom": ".dump", "plain": ".sql.gz", "chunked": ".copy.zst"} {
		t.Run(mode, func(t *testing.T) {
			direct, r := at(s, s.Endpoint, mode, ""), at(s, proxy.URL, mode, "")
			direct.run(t, c, "backup", "single", db, "--mode", mode).must(t, exitOK)
			path, name := chunkFile(t, s, direct, mode, suffix)
			var vanished atomic.Int32
			proxy.Set(faultproxy.Fault{Kind: faultproxy.Reset, Match: func(q *http.Request) bool {
				if q.Method == http.MethodGet && strings.HasSuffix(q.URL.Path, name) {
					if err := os.Rename(path, path+".away"); err == nil {
						vanished.Add(1)
					} else if !errors.Is(err, os.ErrNotExist) {
						t.Error(err)
					}
				}
				return false // what is asked for is not there any more
			}})
			wantDamageFound(t, c, r, db, name, func() {
				if _, err := os.Stat(path); err != nil {
					if err := os.Rename(path+".away", path); err != nil {
						t.Fatal(err)
					}
				}
			})
			if n := vanished.Load(); n != 2 {
				t.Errorf("the object vanished %d times, want 2", n)
			}
		})
	}
}

// T104: two stores in one bucket, of which one's prefix begins with the other's.
func TestT104StoresInOneBucket(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	db := smallDatabase(t, c)
	one, ten := at(s, s.Endpoint, "pre/db1", ""), at(s, s.Endpoint, "pre/db10", "")
	for range 2 {
		one.run(t, c, "backup", "single", db, "--mode", "chunked").must(t, exitOK)
		ten.run(t, c, "backup", "single", db, "--mode", "chunked").must(t, exitOK)
	}
	proxy := startFaultproxy(t, s)
	for _, prefix := range []string{"pre/db1", "pre/db10"} { // each leaves what gc would remove
		proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusInternalServerError, Match: putting("/manifest.json")})
		at(s, proxy.URL, prefix, "&attempts=1").run(t, c, "backup", "single", db, "--mode", "chunked").must(t, exitFailed)
		proxy.WantFired(t)
	}
	ids, others, before := one.sets(t), ten.sets(t), ten.keys(t)
	if len(ids) != 2 || len(others) != 2 {
		t.Fatalf("list shows %q and %q", ids, others)
	}
	untouched := func(r remote, before []string) {
		t.Helper()
		if after := r.keys(t); !slices.Equal(after, before) {
			t.Errorf("the other store holds %q, want %q", after, before)
		}
	}
	one.run(t, nil, "gc").must(t, exitOK)
	one.run(t, nil, "prune", "--keep-last", "1").must(t, exitOK)
	untouched(ten, before)
	if left := one.sets(t); !slices.Equal(left, ids[1:]) {
		t.Errorf("left: %q, want %q", left, ids[1:])
	}
	before = one.keys(t)
	ten.run(t, nil, "gc").must(t, exitOK)
	ten.run(t, nil, "prune", "--keep-last", "1").must(t, exitOK)
	untouched(one, before)
	if left := ten.sets(t); !slices.Equal(left, others[1:]) {
		t.Errorf("left: %q, want %q", left, others[1:])
	}
	ten.run(t, nil, "verify").must(t, exitOK)
}
