package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"dbbackup/internal/faultproxy"
	"dbbackup/internal/pgtest/zoo"
	"dbbackup/internal/storeserver"
)

// T26: every fifth request fails, drawn by a seed, in one of five ways. The set is
// made, verified and restored all the same, and nothing is asked again that did not fail.
func TestT26EveryFifthRequestFails(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	r, db := at(s, proxy.URL, "pre", ""), family(t, c)
	get := func(q *http.Request) bool { return q.Method == http.MethodGet }
	proxy.Set(
		faultproxy.Fault{Kind: faultproxy.Status, Rate: 0.05, Status: http.StatusInternalServerError},
		faultproxy.Fault{Kind: faultproxy.Status, Rate: 0.05, Status: http.StatusServiceUnavailable, Body: faultproxy.S3Error("SlowDown")},
		faultproxy.Fault{Kind: faultproxy.Status, Rate: 0.05, Status: http.StatusTooManyRequests},
		faultproxy.Fault{Kind: faultproxy.Reset, Rate: 0.05},
		faultproxy.Fault{Kind: faultproxy.Cut, Rate: 0.2, Match: get},
	)
	to, warned := c.FreeName(t), 0
	for _, args := range [][]string{
		chunkedInto(db), {"verify"}, {"restore", "single", db, "--target-db", to},
	} {
		before := sum(proxy.Fired())
		got := r.run(t, c, args...).must(t, exitOK)
		if n := sum(proxy.Fired()) - before; n < 10 {
			t.Errorf("%d requests failed while it ran %s: the test proves nothing", n, args[0])
		}
		warned += strings.Count(got.stderr, "the next follows in")
	}
	proxy.WantFired(t)
	fired := sum(proxy.Fired())
	t.Logf("%d requests, faults %v, %d warnings", len(proxy.Requests()), proxy.Fired(), warned)
	if warned == 0 || warned > fired {
		t.Errorf("%d warnings for %d faults", warned, fired)
	}
	zoo.Compare(t, c, db, c, to)
	proxy.Set()
	if ids := r.sets(t); len(ids) != 1 {
		t.Errorf("list shows %q", ids)
	}
	r.run(t, nil, "verify").must(t, exitOK)
	before := withoutCatalog(r.keys(t))
	r.run(t, nil, "gc").must(t, exitOK)
	if after := withoutCatalog(r.keys(t)); !slices.Equal(after, before) {
		t.Errorf("gc left %q, want %q", after, before)
	}
	wantUploads(t, s)
}

func sum(numbers []int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}

// withoutCatalog leaves out what runs and gc write about the others.
func withoutCatalog(keys []string) []string {
	return slices.DeleteFunc(keys, func(key string) bool { return strings.HasPrefix(key, "catalog/") })
}

// wantUploads checks which unfinished uploads the service holds, by their keys.
func wantUploads(t testing.TB, s *storeserver.S3, want ...string) {
	t.Helper()
	if got := uploads(t, s); !slices.Equal(got, want) {
		t.Errorf("unfinished uploads: %q, want %q", got, want)
	}
}

func uploads(t testing.TB, s *storeserver.S3) (keys []string) {
	t.Helper()
	bucket := "backups"
	out, err := s.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, upload := range out.Uploads {
		keys = append(keys, *upload.Key)
	}
	return keys
}

// T26: a service that only fails is given up after a bounded number of requests, by
// every command, and also in the middle of a run.
func TestT26ServiceOnlyFails(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	r, db := at(s, proxy.URL, "pre", "&attempts=3"), smallDatabase(t, c)
	r.run(t, c, "backup", "single", db, "--mode", "chunked").must(t, exitOK)
	before := r.keys(t)
	to := c.FreeName(t)
	for name, dead := range map[string]faultproxy.Fault{
		"throttled": {Kind: faultproxy.Status, Status: http.StatusServiceUnavailable, Body: faultproxy.S3Error("SlowDown")},
		"reset":     {Kind: faultproxy.Reset},
	} {
		for _, args := range [][]string{
			{"backup", "single", db, "--mode", "chunked"}, {"list"}, {"verify"}, {"gc"}, {"prune", "--keep-last", "1"},
			{"restore", "single", db, "--target-db", to},
		} {
			proxy.Set(dead)
			r.run(t, c, args...).want(t, exitFailed, "given up after 3 attempts", "s3://backups/pre", "hint: see whether the service can be reached")
			if n := len(proxy.Requests()); n != 3 {
				t.Errorf("%s while the service is %s: %d requests, want 3", args[0], name, n)
			}
			proxy.WantFired(t)
		}
		dead.Match = func(q *http.Request) bool { return !strings.Contains(q.URL.Path, "/.lock/") }
		dead.After = 25
		proxy.Set(dead)
		r.run(t, c, "backup", "single", db, "--mode", "chunked", "--attempts", "1").want(t, exitFailed, "given up after 3 attempts", "hint: see whether the service can be reached")
		proxy.WantFired(t)
		if n := sum(proxy.Fired()); n > 100 {
			t.Errorf("%d requests of a run whose service is %s", n, name)
		}
		proxy.Set()
		if ids := r.sets(t); len(ids) != 1 {
			t.Errorf("list shows %q", ids)
		}
		r.run(t, nil, "gc").must(t, exitOK)
		if after := r.keys(t); !slices.Equal(after, before) {
			t.Errorf("left: %q, want %q", after, before)
		}
	}
	if hasDatabase(t, c, to) {
		t.Errorf("database %s was made of nothing", to)
	}
}

// T27: the credential expires in the middle of a run. Without another one the run
// ends at once and can be gone on with; with one it looks for it and finishes.
func TestT27CredentialExpiresInTheMiddleOfARun(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	s.User(t, "backups", "other", "s3:*")
	file := filepath.Join(t.TempDir(), "credentials")
	write := func(key, secret string) error {
		return os.WriteFile(file, []byte("[default]\naws_access_key_id="+key+"\naws_secret_access_key="+secret+"\n"), 0o600)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	expired := func(when func()) faultproxy.Fault {
		return faultproxy.Fault{
			Kind: faultproxy.Status, After: 60, Status: http.StatusBadRequest, Body: faultproxy.S3Error("ExpiredToken"),
			Match: func(q *http.Request) bool {
				if !strings.Contains(q.Header.Get("Authorization"), "Credential="+s.Key+"/") {
					return false
				}
				when()
				return true
			},
		}
	}
	db := family(t, c)
	env := []string{
		"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_SHARED_CREDENTIALS_FILE=" + file, "AWS_REGION=" + s.Region, "AWS_EC2_METADATA_DISABLED=true",
	}

	r := at(s, proxy.URL, "stops", "")
	direct := at(s, s.Endpoint, "stops", "")
	r.env = env
	must(write(s.Key, s.Secret))
	proxy.Set(expired(func() {}))
	r.run(t, c, chunkedInto(db)...).want(t, exitPrecondition, "ExpiredToken", "s3://backups/stops", "hint: renew the credential of the store")
	proxy.WantFired(t)
	if n := sum(proxy.Fired()); n > 30 {
		t.Errorf("%d requests with a credential that had expired", n)
	}
	if ids := direct.sets(t); len(ids) > 0 {
		t.Errorf("list shows %q", ids)
	}
	must(write("other", "other-secret"))
	proxy.Set(expired(func() {}))
	got := r.run(t, c, "resume")
	got.want(t, exitOK)
	got.wantStdout(t, "proven unchanged")
	direct.run(t, nil, "verify").must(t, exitOK)

	r, direct = at(s, proxy.URL, "renews", ""), at(s, s.Endpoint, "renews", "")
	r.env = env
	must(write(s.Key, s.Secret))
	var asked atomic.Int32
	proxy.Set(expired(func() {
		if asked.Add(1) == 60 {
			must(write("other", "other-secret")) // as a daemon renews it
		}
	}))
	r.run(t, c, chunkedInto(db)...).want(t, exitOK, "the credential had expired and was renewed")
	proxy.WantFired(t)
	if ids := direct.sets(t); len(ids) != 1 {
		t.Errorf("list shows %q", ids)
	}
	direct.run(t, nil, "verify").must(t, exitOK)
}

// T30, T34: what arrives of an object is cut, shorter than it is and said to be whole,
// or another bit. A cut is gone on from; the others are never taken for the object.
func TestT30ObjectArrivesDamaged(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	db, proxy := smallDatabase(t, c), startFaultproxy(t, s)
	for mode, suffix := range map[string]string{"custom": ".dump", "plain": ".sql.gz", "chunked": ".copy.zst"} {
		t.Run(mode, func(t *testing.T) {
			r := at(s, proxy.URL, mode, "")
			r.run(t, c, "backup", "single", db, "--mode", mode).must(t, exitOK)
			_, name := chunkFile(t, s, r, mode, suffix)
			gets := func(q *http.Request) bool {
				return q.Method == http.MethodGet && strings.HasSuffix(q.URL.Path, name)
			}
			proxy.Set(faultproxy.Fault{Kind: faultproxy.Cut, Match: gets, Times: 5})
			r.run(t, nil, "verify").want(t, exitOK, "the transfer was cut at byte")
			proxy.WantFired(t)
			proxy.Set(faultproxy.Fault{Kind: faultproxy.Cut, Match: gets, Times: 5})
			to := c.FreeName(t)
			r.run(t, c, "restore", "single", db, "--target-db", to).want(t, exitOK, "the transfer was cut at byte")
			proxy.WantFired(t)
			zoo.Compare(t, c, db, c, to)

			// A bit that flips on the way is another one the next time. pg_restore and
			// psql are fed but once.
			flipped := map[string]func(*http.Request) bool{name: gets}
			if mode == "chunked" { // what else there is, is read the same in all of them
				for _, part := range []string{"/manifest.json", "/SHA256SUMS", "/contents.json", ".properties.json"} {
					flipped[part] = func(q *http.Request) bool { return q.Method == http.MethodGet && strings.HasSuffix(q.URL.Path, part) }
				}
			}
			for _, match := range flipped {
				proxy.Set(faultproxy.Fault{Kind: faultproxy.FlipDown, Match: match, Times: 1})
				r.run(t, nil, "verify").want(t, exitOK)
				proxy.WantFired(t)
				if mode == "chunked" {
					proxy.Set(faultproxy.Fault{Kind: faultproxy.FlipDown, Match: match, Times: 1})
					r.run(t, c, "restore", "single", db, "--target-db", c.FreeName(t)).want(t, exitOK)
					proxy.WantFired(t)
				}
			}

			r = at(s, proxy.URL, mode, "&attempts=3")
			for _, kind := range []faultproxy.Kind{faultproxy.Short, faultproxy.FlipDown} {
				wantDamageFound(t, c, r, db, name, func() {
					proxy.Set(faultproxy.Fault{Kind: kind, Match: gets})
				})
				proxy.WantFired(t)
			}
			proxy.Set()
			r.run(t, nil, "verify").must(t, exitOK)
		})
	}
}

// T34: bits flip on the way to the service. What arrived is refused by it, and sent again.
func TestT34BitsFlipOnTheWayUp(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	db, proxy := smallDatabase(t, c), startFaultproxy(t, s)
	for _, mode := range []string{"custom", "plain", "chunked"} {
		r := at(s, proxy.URL, mode, "")
		puts := func(q *http.Request) bool {
			return q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/databases/")
		}
		proxy.Set(faultproxy.Fault{Kind: faultproxy.FlipUp, Match: puts, Every: 2}, faultproxy.Fault{Kind: faultproxy.FlipUp, Match: putting("/manifest.json"), Times: 1})
		r.run(t, c, "backup", "single", db, "--mode", mode).want(t, exitOK, "the next follows in", "manifest.json")
		proxy.WantFired(t)
		proxy.Set()
		r.run(t, nil, "verify").must(t, exitOK)
	}
}

// T31: a run is killed while it sends an object in parts. What the service holds of it
// is no object, counts for nothing, and goes with gc; another store's upload stays.
func TestT31KilledWhileItSendsParts(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	r, db := at(s, proxy.URL, "pre", ""), smallDatabase(t, c)
	r.run(t, c, "backup", "single", db, "--mode", "custom").must(t, exitOK)
	r.run(t, nil, "verify").must(t, exitOK)
	before, ids := r.keys(t), r.sets(t)
	bucket, other := "backups", "pre2/set/object"
	if _, err := s.Client().CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &other}); err != nil {
		t.Fatal(err)
	}

	c.Exec(t, db, `CREATE TABLE large AS SELECT g AS id, decode(`+unlike("g * 100000", 16000)+`, 'hex') AS bytes FROM generate_series(1, 20) g`)
	var sent atomic.Int32
	proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusServiceUnavailable, Match: func(q *http.Request) bool {
		if !q.URL.Query().Has("partNumber") {
			return false
		}
		return sent.Add(1) > 1 // one part arrives, and the others are tried until the end
	}})
	run := start(t, append(slices.Clone(r.env), c.Env()...), "backup", "single", db, "--mode", "custom", "--store", r.url)
	eventually(t, "parts are sent", func() bool { return sum(proxy.Fired()) >= 2 })
	run.kill(t)
	proxy.WantFired(t)
	proxy.Set()
	left := uploads(t, s)
	if len(left) != 2 || !strings.HasPrefix(left[0], "pre/") || left[1] != other {
		t.Fatalf("unfinished uploads: %q", left)
	}
	for _, key := range r.keys(t) {
		if "pre/"+key == left[0] {
			t.Errorf("%s is listed as an object", key)
		}
	}
	if after := r.sets(t); !slices.Equal(after, ids) {
		t.Errorf("list shows %q, want %q", after, ids)
	}
	r.run(t, nil, "verify").must(t, exitOK) // the latest is the one before
	gc := r.run(t, nil, "gc")
	gc.want(t, exitOK)
	gc.wantStdout(t, "Removed 2 leftovers") // the upload, and the unfinished set
	wantUploads(t, s, other)
	if after := r.keys(t); !slices.Equal(after, before) {
		t.Errorf("after gc: %q, want %q", after, before)
	}
}

// T33: a listing fails in the middle. Nothing is removed by what was seen of it, and
// neither a restore nor the commit of a run depends on it.
func TestT33ListingFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	r, direct, db := at(s, proxy.URL, "pre", "&attempts=2"), at(s, s.Endpoint, "pre", ""), smallDatabase(t, c)
	for range 3 {
		direct.run(t, c, "backup", "single", db, "--mode", "custom").must(t, exitOK)
	}
	ids := direct.sets(t)
	filler := filepath.Join(s.Data, "backups", "pre", "aside") // before the sets, which the first page then does not all hold
	if err := os.Mkdir(filler, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 990 {
		writeFile(t, filepath.Join(filler, fmt.Sprintf("%04d", i)), []byte("x"), 0o600)
	}
	before := direct.keys(t)
	second := func(q *http.Request) bool {
		return q.URL.Query().Has("continuation-token") && q.URL.Query().Get("prefix") == "pre/"
	}
	for _, f := range []faultproxy.Fault{
		{Kind: faultproxy.Status, Match: second, Status: http.StatusInternalServerError},
		{Kind: faultproxy.Status, Match: second, Status: http.StatusForbidden, Body: faultproxy.S3Error("AccessDenied")},
		{Kind: faultproxy.Short, Match: second},
		{Kind: faultproxy.Cut, Match: second},
	} {
		code := exitFailed
		if f.Status == http.StatusForbidden {
			code = exitPrecondition
		}
		for _, args := range [][]string{{"prune", "--keep-last", "1"}, {"gc"}, {"list"}} {
			proxy.Set(f)
			r.run(t, nil, args...).want(t, code, "list store s3://backups/pre", "hint: ")
			proxy.WantFired(t)
			if after := direct.keys(t); !slices.Equal(after, before) {
				t.Fatalf("%s with a listing that fails (%s %d): %q is left, want %q", args[0], f.Kind, f.Status, after, before)
			}
		}
		proxy.Set(f)
		to := c.FreeName(t)
		r.run(t, c, "restore", "single", db, "--set", ids[1], "--target-db", to).must(t, exitOK)
		zoo.Compare(t, c, db, c, to)
		c.DropDatabase(t, to)
	}
	// Every listing fails from when the run writes its set.
	var writes atomic.Bool
	proxy.Set(faultproxy.Fault{Kind: faultproxy.Status, Status: http.StatusInternalServerError, Match: func(q *http.Request) bool {
		if q.Method == http.MethodPut && strings.HasSuffix(q.URL.Path, ".dump") {
			writes.Store(true)
		}
		return writes.Load() && q.URL.Query().Has("list-type")
	}})
	got := r.run(t, c, "backup", "single", db, "--mode", "custom", "--keep-last", "1")
	proxy.WantFired(t)
	got.want(t, exitFailed, "list store s3://backups/pre") // the set is made; pruning did not happen
	if after := direct.sets(t); len(after) != len(ids)+1 || !slices.Equal(after[:len(ids)], ids) {
		t.Errorf("list shows %q, want %q and a new one", after, ids)
	}
	direct.run(t, nil, "verify").must(t, exitOK)
}
