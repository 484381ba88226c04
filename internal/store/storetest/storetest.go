package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/store"
)

// Run tests the stores that open returns: each empty, and open until the test
// that it was given ends. Tests named in without are left out: what a kind does
// not promise, and says so in its doc.go.
func Run(t *testing.T, open func(t *testing.T) store.Store, without ...string) {
	tests := []struct {
		name string
		test func(*testing.T, store.Store)
	}{
		{"RoundTrip", testRoundTrip},
		{"InvisibleBeforeCommit", testInvisibleBeforeCommit},
		{"AbortLeavesNothing", testAbort},
		{"EndedWriterRefuses", testEndedWriter},
		{"NeverReplaces", testNeverReplaces},
		{"OneOfManyWritersWins", testOneWins},
		{"ParallelWriters", testParallel},
		{"MissingIsErrNotExist", testMissing},
		{"Range", testRange},
		{"ListOrderAndPrefix", testList},
		{"ListStops", testListStops},
		{"Delete", testDelete},
		{"RefusesBadKeys", testBadKeys},
		{"ObjectIsNoFolder", testObjectIsNoFolder},
		{"HonoursContext", testContext},
		{"Lock", testLock},
	}
	for _, tt := range tests {
		if !slices.Contains(without, tt.name) {
			t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
		}
	}
	runLocal(t, open)
}

func write(t *testing.T, st store.Store, key string, data []byte) {
	t.Helper()
	w, err := st.Create(t.Context(), key, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, st store.Store, key string) []byte {
	t.Helper()
	r, err := st.Open(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func list(t *testing.T, st store.Store, prefix string) []string {
	t.Helper()
	keys := []string{}
	err := st.List(t.Context(), prefix, func(info store.Info) error {
		keys = append(keys, info.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func wantKeys(t *testing.T, st store.Store, prefix string, want ...string) {
	t.Helper()
	if got := list(t, st, prefix); !slices.Equal(got, want) {
		t.Errorf("keys with prefix %q: got %q, want %q", prefix, got, want)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func testRoundTrip(t *testing.T, st store.Store) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 300_000)
	for key, data := range map[string][]byte{"empty": {}, "a/b/c/small": []byte("x"), "a/big%2F+.dump": big} {
		write(t, st, key, data)
		if got := read(t, st, key); !bytes.Equal(got, data) {
			t.Errorf("%s: read %d bytes that differ from the %d written", key, len(got), len(data))
		}
		err := st.List(t.Context(), key, func(info store.Info) error {
			if info.Bytes != int64(len(data)) || info.Modified.IsZero() {
				t.Errorf("%s: listed as %+v, has %d bytes", key, info, len(data))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	wantKeys(t, st, "", "a/b/c/small", "a/big%2F+.dump", "empty")
}

func testInvisibleBeforeCommit(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "set/object", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, st, "")
	_, err = st.Open(t.Context(), "set/object")
	wantErr(t, "open before commit", err, store.ErrNotExist)
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, st, "", "set/object")
}

func testAbort(t *testing.T, st store.Store) {
	w, err := st.Create(t.Context(), "set/object", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Abort(), w.Abort()); err != nil {
		t.Error(err)
	}
	wantKeys(t, st, "")
	write(t, st, "set/object", []byte("whole"))
	if got := read(t, st, "set/object"); string(got) != "whole" {
		t.Errorf("got %q after an aborted attempt", got)
	}
}

func testEndedWriter(t *testing.T, st store.Store) {
	ends := map[string]func(store.Writer) error{"committed": store.Writer.Commit, "aborted": store.Writer.Abort}
	for name, end := range ends {
		w, err := st.Create(t.Context(), name, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(w); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("x")); err == nil {
			t.Errorf("write to a writer that was %s succeeded", name)
		}
		if err := w.Commit(); err == nil {
			t.Errorf("commit of a writer that was %s succeeded", name)
		}
		if err := w.Abort(); err != nil {
			t.Errorf("abort of a writer that was %s: %v", name, err)
		}
	}
	wantKeys(t, st, "", "committed")
}

func testNeverReplaces(t *testing.T, st store.Store) {
	late, err := st.Create(t.Context(), "key", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Abort()
	write(t, st, "key", []byte("first"))
	if _, err := late.Write([]byte("second")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "commit of a taken key", late.Commit(), store.ErrExist)
	w, err := st.Create(t.Context(), "key", 0)
	if err == nil {
		err = w.Commit()
	}
	wantErr(t, "create of a taken key", err, store.ErrExist)
	if got := read(t, st, "key"); string(got) != "first" {
		t.Errorf("the object became %q", got)
	}
	wantKeys(t, st, "", "key")
}

func testOneWins(t *testing.T, st store.Store) {
	const writers = 8
	var group errgroup.Group
	won := make(chan string, writers)
	for i := range writers {
		group.Go(func() error {
			data := strings.Repeat(fmt.Sprint(i), 1000)
			err := tryWrite(t.Context(), st, "deep/key", data)
			if err == nil {
				won <- data
			} else if errors.Is(err, store.ErrExist) {
				err = nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if len(won) != 1 {
		t.Fatalf("%d of %d writers of one key won", len(won), writers)
	}
	if got, want := string(read(t, st, "deep/key")), <-won; got != want {
		t.Errorf("stored %.10q, the winner wrote %.10q", got, want)
	}
	wantKeys(t, st, "", "deep/key")
}

func tryWrite(ctx context.Context, st store.Store, key, data string) error {
	w, err := st.Create(ctx, key, 0)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.WriteString(w, data); err != nil {
		return err
	}
	return w.Commit()
}

// testParallel also deletes the only object of shared folders, so that making
// and pruning folders meet.
func testParallel(t *testing.T, st store.Store) {
	var group errgroup.Group
	for i := range 8 {
		group.Go(func() error {
			for range 20 {
				gone := fmt.Sprintf("set/shared/%d", i)
				if err := tryWrite(t.Context(), st, gone, "x"); err != nil {
					return err
				}
				if err := st.Delete(t.Context(), gone); err != nil {
					return err
				}
			}
			return tryWrite(t.Context(), st, fmt.Sprintf("set/kept/%d", i), "x")
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := len(list(t, st, "set/kept/")); got != 8 {
		t.Errorf("%d of 8 objects are there", got)
	}
	wantKeys(t, st, "set/shared/")
}

func testMissing(t *testing.T, st store.Store) {
	write(t, st, "a/b", nil)
	for _, key := range []string{"x", "a/x", "x/y/z", "a/b/c"} {
		_, err := st.Open(t.Context(), key)
		if err == nil {
			t.Errorf("open %s succeeded", key)
		}
		if key != "a/b/c" { // lies in an object: a store with real folders may say so
			wantErr(t, "open "+key, err, store.ErrNotExist)
		}
	}
}

func testRange(t *testing.T, st store.Store) {
	write(t, st, "set/object", []byte("0123456789"))
	write(t, st, "set/empty", nil)
	tests := []struct {
		key            string
		offset, length int64
		want           string
	}{
		{"set/object", 0, -1, "0123456789"},
		{"set/object", 0, 3, "012"},
		{"set/object", 3, 4, "3456"},
		{"set/object", 7, -1, "789"},
		{"set/object", 7, 100, "789"},
		{"set/object", 4, 0, ""},
		{"set/empty", 0, -1, ""},
	}
	for _, tt := range tests {
		r, err := st.OpenRange(t.Context(), tt.key, tt.offset, tt.length)
		if err != nil {
			t.Fatalf("%s, %d bytes from %d on: %v", tt.key, tt.length, tt.offset, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s, %d bytes from %d on: read %q (%v), want %q", tt.key, tt.length, tt.offset, got, err, tt.want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := st.OpenRange(t.Context(), "set/none", 1, 1)
	wantErr(t, "open a range of what is not there", err, store.ErrNotExist)
}

func testList(t *testing.T, st store.Store) {
	wantKeys(t, st, "")
	wantKeys(t, st, "nothing/here/")
	all := []string{"db-x/1", "db/1", "db/a-b", "db/a/b", "db/a/c", "db0", "db1/1", "db10/1", "db10/2", "db1x"}
	for _, i := range []int{3, 9, 0, 7, 5, 2, 8, 1, 6, 4} {
		write(t, st, all[i], []byte(all[i]))
	}
	prefixes := []string{"", "d", "db", "db/", "db/a", "db/a/", "db/a/b", "db1", "db1/", "db10", "db10/", "x", "db/a-b/", "db2/"}
	for _, prefix := range prefixes {
		want := slices.Clone(all)
		want = slices.DeleteFunc(want, func(key string) bool { return !strings.HasPrefix(key, prefix) })
		wantKeys(t, st, prefix, want...)
	}
}

func testListStops(t *testing.T, st store.Store) {
	write(t, st, "a", nil)
	write(t, st, "b", nil)
	stop, calls := errors.New("stop"), 0
	err := st.List(t.Context(), "", func(store.Info) error { calls++; return stop })
	wantErr(t, "list", err, stop)
	if calls != 1 {
		t.Errorf("fn was called %d times, want 1", calls)
	}
}

func testDelete(t *testing.T, st store.Store) {
	write(t, st, "db1/a/b", nil)
	write(t, st, "db10/a/b", nil)
	for range 2 {
		if err := st.Delete(t.Context(), "db1/a/b"); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Delete(t.Context(), "never/was"); err != nil {
		t.Error(err)
	}
	wantKeys(t, st, "", "db10/a/b")
	if err := st.Delete(t.Context(), "db10/a"); err == nil {
		t.Log("deleting a folder's key was no error; nothing may be lost by it")
	}
	wantKeys(t, st, "", "db10/a/b")
	write(t, st, "db1/a", []byte("a folder before"))
}

func testBadKeys(t *testing.T, st store.Store) {
	for _, key := range []string{"", "/", "/abs", "a//b", "a/", ".", "..", "../x", "a/../../x", "a/./b", ".lock", "a/.hidden", "a\x00b", "lost+found/x"} {
		if w, err := st.Create(t.Context(), key, 0); err == nil {
			t.Errorf("create %q succeeded: %v", key, w.Abort())
		}
		if r, err := st.Open(t.Context(), key); err == nil {
			t.Errorf("open %q succeeded: %v", key, r.Close())
		}
		if err := st.Delete(t.Context(), key); err == nil {
			t.Errorf("delete %q succeeded", key)
		}
	}
	if err := st.List(t.Context(), "../", func(store.Info) error { return nil }); err == nil {
		t.Error(`list "../" succeeded`)
	}
	wantKeys(t, st, "")
}

// testObjectIsNoFolder is about stores with real folders: a key below an object
// may be refused, and the object survives the attempt.
func testObjectIsNoFolder(t *testing.T, st store.Store) {
	write(t, st, "set/object", []byte("content"))
	if err := tryWrite(t.Context(), st, "set/object/below", "x"); err == nil {
		if err := st.Delete(t.Context(), "set/object/below"); err != nil {
			t.Error(err)
		}
	}
	if got := read(t, st, "set/object"); string(got) != "content" {
		t.Errorf("the object became %q", got)
	}
	wantKeys(t, st, "", "set/object")
}

func testContext(t *testing.T, st store.Store) {
	write(t, st, "a", nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := st.Create(ctx, "b", 0)
	wantErr(t, "create", err, context.Canceled)
	_, err = st.Open(ctx, "a")
	wantErr(t, "open", err, context.Canceled)
	wantErr(t, "delete", st.Delete(ctx, "a"), context.Canceled)
	wantErr(t, "list", st.List(ctx, "", func(store.Info) error { return nil }), context.Canceled)
	_, _, err = st.Lock(ctx, store.Holder{})
	wantErr(t, "lock", err, context.Canceled)
	wantKeys(t, st, "", "a")
}
