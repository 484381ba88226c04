package main

import (
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
	"dbbackup/internal/store"
	"dbbackup/internal/stores"
	"dbbackup/internal/storeserver"
)

// remote is a store on a server, and what its credentials are.
type remote struct {
	url string
	env []string
	tmp string // where temporary files of the program lie; empty: wherever
}

// remotes starts a server of each kind, by the name of the kind.
var remotes = map[string]func(t *testing.T) remote{
	"s3": func(t *testing.T) remote {
		s := storeserver.StartS3(t)
		s.Bucket(t, "backups", false)
		return remote{
			url: "s3://backups/pre/fix?path-style=true&endpoint=" + s.Endpoint,
			env: []string{"AWS_ACCESS_KEY_ID=" + s.Key, "AWS_SECRET_ACCESS_KEY=" + s.Secret, "AWS_REGION=" + s.Region, "AWS_EC2_METADATA_DISABLED=true"},
		}
	},
	"gcs": func(t *testing.T) remote {
		s := storeserver.StartGCS(t)
		s.Bucket(t, "backups")
		return remote{url: "gs://backups/pre/fix?endpoint=" + s.Endpoint}
	},
	"azure": func(t *testing.T) remote {
		s := storeserver.StartAzure(t)
		s.Container(t, "backups")
		return remote{
			url: "azblob://backups/pre/fix?endpoint=" + s.Endpoint,
			env: []string{"AZURE_STORAGE_ACCOUNT=" + s.Account, "AZURE_STORAGE_KEY=" + s.Key},
		}
	},
	"sftp": func(t *testing.T) remote {
		s := storeserver.StartSSHD(t, "")
		return remote{
			url: s.URL(t.TempDir()).String(), // there before the first backup: tests look into it
			env: []string{"DBBACKUP_SFTP_IDENTITY=" + s.Identity, "DBBACKUP_SFTP_KNOWN_HOSTS=" + s.KnownHosts},
		}
	},
}

func (r remote) run(t testing.TB, c *pgtest.Cluster, args ...string) result {
	t.Helper()
	env := slices.Clone(r.env)
	if r.tmp != "" {
		env = append(env, "TMPDIR="+r.tmp)
	}
	if c != nil {
		env = append(env, c.Env()...)
	}
	return dbbackup(t, env, append(args, "--store", r.url)...)
}

// keys lists what lies in the store.
func (r remote) keys(t testing.TB) []string {
	t.Helper()
	place, err := stores.Open(t.Context(), r.url, stores.Options{Env: append(os.Environ(), r.env...)})
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close() //nolint:errcheck // only read
	var keys []string
	if err := place.List(t.Context(), "", func(info store.Info) error { keys = append(keys, info.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	return keys
}

// sets are the ids that list shows as complete, oldest first.
func (r remote) sets(t testing.TB) (ids []string) {
	t.Helper()
	for line := range strings.Lines(r.run(t, nil, "list", "--json").must(t, exitOK).stdout) {
		var l listed
		(result{stdout: line}).decode(t, &l)
		if l.Status == "complete" {
			ids = append(ids, l.ID)
		}
	}
	return ids
}

// Whatever a set is captured with, and wherever it is, it is listed, sound, comes
// back, and goes when its time has come.
func TestEveryKindOfStore(t *testing.T) {
	t.Parallel()
	for name, start := range remotes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, r := shared.Cluster(t), start(t)
			r.tmp = t.TempDir()
			db := settledDatabase(t, c)
			c.Exec(t, db, "SELECT lo_from_bytea(0, 'large'); CREATE INDEX ON accounts (word); ALTER TABLE branches ADD PRIMARY KEY (id)")
			for _, flags := range [][]string{{"--mode", "custom"}, {"--mode", "plain"}, {"--mode", "chunked"}, {"--incremental"}} {
				r.run(t, c, append([]string{"backup", "single", db}, flags...)...).must(t, exitOK)
			}
			r.run(t, c, "backup", "single", db, "--mode", "directory").want(t, exitUsage, "needs a store that is a folder", "hint: use --mode chunked")
			ids := r.sets(t)
			if len(ids) != 4 {
				t.Fatalf("list shows %q", ids)
			}
			r.run(t, nil, "show", ids[3]).must(t, exitOK)
			for i, id := range ids {
				r.run(t, nil, "verify", id).must(t, exitOK)
				if i == 2 {
					continue // all that it has comes back with the next one, which refers to it
				}
				to := c.FreeName(t)
				r.run(t, c, "restore", "single", db, "--set", id, "--target-db", to).must(t, exitOK)
				zoo.Compare(t, c, db, c, to)
			}
			to := c.FreeName(t)
			r.run(t, c, "restore", "single", db, "--set", ids[0], "--table", "branches", "--target-db", to).must(t, exitOK)
			wantTables(t, c, to, "branches 200")
			r.run(t, nil, "verify", "--drill", "--drill-target", c.URI("postgres")).must(t, exitOK)

			folder := newStore(t)
			dbbackup(t, r.env, "copy", "--all", "--from", r.url, "--to", folder).must(t, exitOK)
			wantSound(t, folder, 4)
			r.run(t, nil, "prune", "--keep-last", "1").must(t, exitOK)
			if left := r.sets(t); !slices.Equal(left, ids[2:]) { // the newest refers to the one before
				t.Errorf("left: %q, want %q", left, ids[2:])
			}
			for _, key := range r.keys(t) {
				if strings.HasPrefix(key, ids[0]+"/") || strings.HasPrefix(key, ids[1]+"/") {
					t.Errorf("%s is left", key)
				}
			}
			wantNothingFetched(t, r.tmp)
		})
	}
}

// wantNothingFetched checks that no copy of anything that was read from a store is
// left on this machine.
func wantNothingFetched(t testing.TB, tmp string) {
	t.Helper()
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q (%v)", left, err)
	}
}

// A run that is killed leaves nothing that is listed as a set; what it has finished
// serves the next one, and gc removes what nobody goes on with.
func TestKilledRunIntoEveryKindOfStore(t *testing.T) {
	t.Parallel()
	for name, start := range remotes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, r := shared.Cluster(t), start(t)
			db := family(t, c)
			kill := func() {
				running := startUnder(t, append(slices.Clone(r.env), c.Env()...), nil, chunking(r.url, db, slow...)...)
				eventually(t, "some chunks are finished", func() bool {
					return strings.Count(strings.Join(r.keys(t), "\n"), "/journal/") >= 8
				})
				running.kill(t)
			}
			kill()
			if ids := r.sets(t); len(ids) > 0 {
				t.Errorf("the killed run is listed: %q", ids)
			}
			r.run(t, c, "resume").must(t, exitOK) // also takes the lock of the dead
			id := r.sets(t)
			if len(id) != 1 {
				t.Fatalf("list shows %q", id)
			}
			r.run(t, nil, "verify").must(t, exitOK)
			to := c.FreeName(t)
			r.run(t, c, "restore", "single", db, "--target-db", to).must(t, exitOK)
			zoo.Compare(t, c, db, c, to)
			before := r.keys(t)
			kill()
			r.run(t, nil, "gc").must(t, exitOK)
			if after := r.keys(t); !slices.Equal(after, before) {
				t.Errorf("after gc: %q, want %q", after, before)
			}
		})
	}
}

// T93: a writer that may not delete makes sets, one after the other, and goes on
// after a kill; pruning says that it was refused, changes nothing, and is done by
// somebody who may.
func TestT93WriterThatMayNotDelete(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), storeserver.StartS3(t)
	s.Bucket(t, "backups", false)
	url := "s3://backups/pre?path-style=true&endpoint=" + s.Endpoint
	writer := remote{url: url, env: s.User(t, "backups", "writer", "s3:GetObject", "s3:PutObject", "s3:ListBucket")}
	owner := remote{url: url, env: []string{"AWS_ACCESS_KEY_ID=" + s.Key, "AWS_SECRET_ACCESS_KEY=" + s.Secret, "AWS_REGION=" + s.Region}}
	db := settledDatabase(t, c)
	writer.run(t, c, "backup", "single", db, "--mode", "custom").must(t, exitOK)
	writer.run(t, c, "backup", "single", db, "--mode", "chunked").must(t, exitOK)
	writer.run(t, c, "backup", "single", db, "--incremental", "--keep-last", "1").want(t, exitOmissions, "the store refuses to delete")
	writer.run(t, nil, "verify").must(t, exitOK)
	ids, before := writer.sets(t), writer.keys(t)
	if len(ids) != 3 {
		t.Fatalf("list shows %q", ids)
	}
	writer.run(t, nil, "prune", "--keep-last", "1").want(t, exitOmissions, "the next prune tries again")
	if after := writer.keys(t); !slices.Equal(after, before) {
		t.Errorf("the refused prune left %q, want %q", after, before)
	}
	to := c.FreeName(t)
	writer.run(t, c, "restore", "single", db, "--target-db", to).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
	copies := remote{url: strings.Replace(url, "/pre", "/copies", 1), env: writer.env}
	for _, says := range []string{"Copied 3 sets", "Nothing to copy"} {
		if r := writer.run(t, nil, "copy", "--all", "--to", copies.url).must(t, exitOK); !strings.Contains(r.stdout, says) {
			t.Errorf("copy printed %q, want %q in it", r.stdout, says)
		}
	}
	copies.run(t, nil, "verify").must(t, exitOK)

	owner.run(t, nil, "prune", "--keep-last", "1").must(t, exitOK)
	if left := owner.sets(t); !slices.Equal(left, ids[1:]) {
		t.Errorf("left: %q, want %q", left, ids[1:])
	}
	for _, key := range owner.keys(t) {
		if strings.Contains(key, "UNFINISHED") || strings.Contains(key, "/journal/") || strings.HasSuffix(key, "run.json") || strings.HasSuffix(key, "deletable") {
			t.Errorf("%s is left", key)
		}
	}
	owner.run(t, nil, "verify").must(t, exitOK)

	// Of sets that bear no mark a refused prune leaves none either.
	owner.run(t, c, "backup", "single", db, "--mode", "custom").must(t, exitOK)
	owner.run(t, nil, "verify").must(t, exitOK)
	before = owner.keys(t)
	writer.run(t, nil, "prune", "--keep-last", "1").want(t, exitOmissions, "the next prune tries again")
	after := slices.DeleteFunc(owner.keys(t), func(key string) bool { return strings.HasSuffix(key, "/deletable") })
	if !slices.Equal(after, before) {
		t.Errorf("the refused prune left %q, want %q", after, before)
	}
}

// T93: what a new set refers to is locked for as long as the new set is.
func TestT93LocksOfBasesAreExtended(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), storeserver.StartS3(t)
	s.Bucket(t, "locked", true)
	r := remote{
		url: "s3://locked?path-style=true&object-lock=GOVERNANCE&retain=1d&endpoint=" + s.Endpoint,
		env: []string{"AWS_ACCESS_KEY_ID=" + s.Key, "AWS_SECRET_ACCESS_KEY=" + s.Secret, "AWS_REGION=" + s.Region},
	}
	db := settledDatabase(t, c)
	r.run(t, c, "backup", "single", db, "--mode", "chunked").must(t, exitOK)
	var base string
	for _, key := range r.keys(t) {
		if strings.Contains(key, ".copy") {
			base = key
			break
		}
	}
	until := func() time.Time {
		bucket := "locked"
		out, err := s.Client().GetObjectRetention(t.Context(), &s3.GetObjectRetentionInput{Bucket: &bucket, Key: &base})
		if err != nil {
			t.Fatalf("%s: %v", base, err)
		}
		return *out.Retention.RetainUntilDate
	}
	first := until()
	time.Sleep(1100 * time.Millisecond) // the locks have whole seconds
	r.run(t, c, "backup", "single", db, "--incremental").want(t, exitOK, "extended the locks")
	if again := until(); !again.After(first) {
		t.Errorf("%s is locked until %s, as before; the set that refers to it is locked for longer", base, again)
	}
	r.run(t, nil, "verify").must(t, exitOK)
}

// Whatever refers to it, a set is opened once by copy, beside the listing.
func TestCopyOpensASetOnce(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	r, db, folder := at(s, proxy.URL, "pre", ""), settledDatabase(t, c), newStore(t)
	for range 3 {
		r.run(t, c, chunkedInto(db, "--incremental")...).must(t, exitOK)
	}
	for _, printed := range []string{"Copied 3 sets", "Nothing to copy"} {
		proxy.Set()
		if got := dbbackup(t, r.env, "copy", "--all", "--from", r.url, "--to", folder).must(t, exitOK).stdout; !strings.Contains(got, printed) {
			t.Errorf("printed %s", got)
		}
	}
	opened := map[string]int{}
	for _, request := range proxy.Requests() {
		if strings.HasPrefix(request, "GET ") && strings.Contains(request, "/manifest.json?") {
			opened[request]++
		}
	}
	if len(opened) != 3 {
		t.Fatalf("manifests that were opened: %v", opened)
	}
	for request, n := range opened {
		if n > 2 {
			t.Errorf("%d times %s", n, request)
		}
	}
}

// A run lists all that is in a bucket once, however many sets that is, and beside it
// a few folders: the lock's, the catalog's, its own and its bases'.
func TestRunListsABucketOnce(t *testing.T) {
	t.Parallel()
	c, s := shared.Cluster(t), startBucket(t)
	proxy := startFaultproxy(t, s)
	r, db := at(s, proxy.URL, "pre", ""), settledDatabase(t, c)
	for run := range 4 {
		proxy.Set()
		r.run(t, c, chunkedInto(db, "--incremental")...).must(t, exitOK)
		var pages, folders []string
		for _, request := range proxy.Requests() {
			_, query, _ := strings.Cut(request, "?")
			if q, err := url.ParseQuery(query); err != nil {
				t.Fatal(err)
			} else if q.Get("list-type") != "2" || q.Get("max-keys") == "1" { // whether the bucket is there
				continue
			} else if prefix := q.Get("prefix"); prefix == "pre/" {
				pages = append(pages, request)
			} else {
				folders = append(folders, prefix)
			}
		}
		if len(pages) != 1 || len(folders) > 8 {
			t.Errorf("run %d listed all of the store in %d pages, and %d folders: %q", run, len(pages), len(folders), folders)
		}
	}
}
