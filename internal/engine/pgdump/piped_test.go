package pgdump

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pgarchive"
	"dbbackup/internal/report"
	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
)

// far is a folder that no child process can write to, as a bucket is.
type far struct{ store.Store }

func newFarSet(t *testing.T) (*backupset.Writer, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	st, err := dir.Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	set, err := backupset.Create(t.Context(), far{st}, backupset.NewID("test", time.Now(), nil))
	if err != nil {
		t.Fatal(err)
	}
	return set, filepath.Join(path, set.ID())
}

// What pg_dump cannot write into the store itself goes through a pipe, and is
// what it would have written.
func TestPipedArchiveHoldsTheRows(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE t (word text); INSERT INTO t VALUES ('there'); SELECT lo_from_bytea(0, 'large')")
	set, folder := newFarSet(t)
	got, err := captureInto(t.Context(), source(t, c), set, Request{Database: db, Mode: backupset.Custom})
	if err != nil {
		t.Fatal(err)
	}
	if sql := dumped(t, c, folder, got); !strings.Contains(sql, "there\n") || !strings.Contains(sql, "lo_open") {
		t.Errorf("the dump holds:\n%s", sql)
	}
	if got.StoredBytes == 0 || got.Usage.Wall == 0 {
		t.Errorf("captured %+v", got)
	}
}

// Exit status 0 proves nothing: an archive that ends early is no capture, and
// leaves nothing of itself.
func TestPipedArchiveThatIsCutFails(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE t AS SELECT repeat(md5(g::text), 20) AS v FROM generate_series(1, 2000) g")
	for _, script := range []string{`"$real" "$@" | head -c 20000; exit 0`, `"$real" "$@"; echo more; exit 0`, "exit 0", `"$real" "$@"; exit 1`} {
		set, folder := newFarSet(t)
		_, err := captureInto(t.Context(), source(t, c).shim(t, script), set, Request{Database: db, Mode: backupset.Custom})
		if err == nil || !strings.Contains(err.Error(), "not whole") && !strings.Contains(err.Error(), "status 1") {
			t.Errorf("%s: error %v", script, err)
		}
		if left, _ := filepath.Glob(filepath.Join(folder, "databases", "*")); len(left) != 0 {
			t.Errorf("%s: left: %v", script, left)
		}
	}
}

func TestDirectoryNeedsFilesOfThisMachine(t *testing.T) {
	c := shared.Cluster(t)
	set, _ := newFarSet(t)
	_, err := captureInto(t.Context(), source(t, c), set, Request{Database: "postgres", Mode: backupset.Directory})
	if err == nil || !strings.Contains(err.Error(), backupset.ErrNotLocal.Error()) {
		t.Errorf("error %v", err)
	}
}

// A piped archive restores from a stream, in one session, and by its head.
func TestPipedArchiveReplays(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE t (a int PRIMARY KEY, b text); INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 5000) g; CREATE INDEX i ON t (b)")
	set, folder := newFarSet(t)
	got, err := captureInto(t.Context(), source(t, c), set, Request{Database: db, Mode: backupset.Custom})
	if err != nil {
		t.Fatal(err)
	}
	whole := filepath.Join(folder, got.Dump)
	head := cutAfterTOC(t, whole)
	toc, err := pgarchive.Open(head, pgarchive.WithoutSQL())
	if err != nil {
		t.Fatal(err)
	}
	to := c.Database(t)
	src := source(t, c)
	problems, err := Replay(t.Context(), Target{Endpoint: src.Endpoint, Tools: src.Tools, Superuser: true, VersionNum: c.VersionNum}, Load{
		Database: to, Mode: backupset.Custom, Path: head, TOC: toc, Jobs: 2, Stream: opener(whole),
	}, report.Discard{})
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v %v", problems, err)
	}
	const digest = "SELECT count(*) || md5(string_agg(a || b, ',' ORDER BY a)) || count(DISTINCT b) FROM t"
	if got, want := c.QueryString(t, to, digest), c.QueryString(t, db, digest); got != want {
		t.Errorf("restored %s, want %s", got, want)
	}
}

// cutAfterTOC copies what comes before an archive's rows.
func cutAfterTOC(t *testing.T, archive string) string {
	t.Helper()
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	n := sort.Search(len(data), func(n int) bool { // the shortest beginning that has a table of contents
		_, err := pgarchive.Read(bytes.NewReader(data[:n]))
		return err == nil
	})
	head := filepath.Join(t.TempDir(), "head")
	if err := os.WriteFile(head, data[:n], 0o600); err != nil {
		t.Fatal(err)
	}
	return head
}

func opener(path string) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return os.Open(path) }
}
