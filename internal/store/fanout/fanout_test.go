package fanout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
	"dbbackup/internal/store/storetest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func folder(t *testing.T) *dir.Dir {
	t.Helper()
	d, err := dir.Open(filepath.Join(t.TempDir(), "store"), true)
	must(t, err)
	return d
}

func of(t *testing.T, o Options, places ...store.Place) *Stores {
	t.Helper()
	s, err := New(places, o)
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestIsAStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return of(t, Options{Quorum: 2}, folder(t), folder(t)) }, "OneOfManyWritersWins")
}

// faulty is a folder of which one operation fails from some call on.
type faulty struct {
	store.Place
	create, write, commit, list func() error
}

func (f *faulty) Create(ctx context.Context, key string, expect int64) (store.Writer, error) {
	if f.create != nil {
		if err := f.create(); err != nil {
			return nil, err
		}
	}
	w, err := f.Place.Create(ctx, key, expect)
	return &faultyWriter{w, f}, err
}

func (f *faulty) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	if f.list == nil {
		return f.Place.List(ctx, prefix, fn)
	}
	return errors.Join(f.Place.List(ctx, prefix, fn), f.list())
}

type faultyWriter struct {
	store.Writer
	f *faulty
}

func (w *faultyWriter) Write(p []byte) (int, error) {
	if w.f.write != nil {
		if err := w.f.write(); err != nil {
			return 0, err
		}
	}
	return w.Writer.Write(p)
}

func (w *faultyWriter) Commit() error {
	if w.f.commit != nil {
		if err := w.f.commit(); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Writer.Commit()
}

var errBroken = errors.New("broken")

func broken() error { return errBroken }

func put(ctx context.Context, st store.Store, key, data string) error {
	w, err := st.Create(ctx, key, 0)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, data); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}

func keys(t *testing.T, st store.Store) []string {
	t.Helper()
	list := []string{}
	must(t, st.List(t.Context(), "", func(info store.Info) error {
		list = append(list, info.Key)
		return nil
	}))
	return list
}

// A store that fails, at whatever point, gets nothing more: not the object, not
// what comes after it. The others have everything.
func TestFailingStoreFallsBehind(t *testing.T) {
	for name, f := range map[string]*faulty{
		"create": {create: broken}, "write": {write: broken}, "commit": {commit: broken},
	} {
		t.Run(name, func(t *testing.T) {
			good, bad := folder(t), folder(t)
			f.Place = bad
			var warned []string
			s := of(t, Options{Warn: func(p store.Place, err error) { warned = append(warned, fmt.Sprint(p, err)) }}, f, good)
			must(t, put(t.Context(), s, "set/one", "1"))
			must(t, put(t.Context(), s, "set/two", "2"))
			if got := keys(t, good); !slices.Equal(got, []string{"set/one", "set/two"}) {
				t.Errorf("the good store has %q", got)
			}
			if got := keys(t, bad); len(got) != 0 {
				t.Errorf("the store that fell behind has %q", got)
			}
			behind := s.Behind()
			if len(behind) != 1 || behind[0].Store != store.Place(f) || !errors.Is(behind[0].Reason, errBroken) || len(warned) != 1 {
				t.Errorf("behind: %v, warned %q", behind, warned)
			}
			if got := s.Places(); len(got) != 1 || got[0] != store.Place(good) {
				t.Errorf("up to date: %v", got)
			}
		})
	}
}

func TestQuorumThatCannotBeReachedFails(t *testing.T) {
	s := of(t, Options{Quorum: 2}, &faulty{Place: folder(t), commit: broken}, folder(t))
	err := put(t.Context(), s, "set/one", "1")
	if !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "1 of 2 stores are left, and the quorum is 2") {
		t.Errorf("error %v", err)
	}
}

// An object that is there already is nobody's failure.
func TestTakenKeyLeavesNobodyBehind(t *testing.T) {
	a, b := folder(t), folder(t)
	must(t, put(t.Context(), b, "set/one", "theirs"))
	s := of(t, Options{}, a, b)
	if err := put(t.Context(), s, "set/one", "ours"); !errors.Is(err, store.ErrExist) {
		t.Errorf("error %v", err)
	}
	if got := s.Behind(); len(got) > 0 {
		t.Errorf("behind: %v", got)
	}
}

// A store that does not answer is waited for as long as the patience lasts, and
// costs the others no more.
func TestHangingStoreFallsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, f := range []*faulty{
			{write: func() error { time.Sleep(time.Hour); return nil }},
			{commit: func() error { time.Sleep(time.Hour); return nil }},
		} {
			good, bad := &memory{objects: map[string][]byte{}}, &memory{objects: map[string][]byte{}}
			f.Place = bad
			s, err := New([]store.Place{f, good}, Options{Patience: time.Minute})
			must(t, err)
			began := time.Now()
			w, err := s.Create(t.Context(), "set/one", 0)
			must(t, err)
			for range 100 {
				_, err := w.Write([]byte("0123456789"))
				must(t, err)
			}
			must(t, w.Commit())
			if took := time.Since(began); took > 2*time.Minute {
				t.Errorf("the others waited for %s", took)
			}
			if len(good.objects["set/one"]) != 1000 || len(s.Behind()) != 1 {
				t.Errorf("the good store has %d bytes; behind: %v", len(good.objects["set/one"]), s.Behind())
			}
			time.Sleep(200 * time.Hour) // what hangs ends, so that the bubble can
		}
	})
}

// memory is a store that does nothing that a clock of a test cannot see.
type memory struct {
	store.Place
	objects map[string][]byte
}

func (m *memory) String() string { return "memory" }

func (m *memory) Create(_ context.Context, key string, _ int64) (store.Writer, error) {
	return &memoryWriter{m: m, key: key}, nil
}

type memoryWriter struct {
	bytes.Buffer
	m   *memory
	key string
}

func (w *memoryWriter) Commit() error { w.m.objects[w.key] = w.Bytes(); return nil }
func (w *memoryWriter) Abort() error  { return nil }

// What is listed and read is what any store has; what one of them cannot list is
// missing, and that store falls behind.
func TestReadsFromWhoeverHasIt(t *testing.T) {
	a, b := folder(t), folder(t)
	must(t, put(t.Context(), a, "a", "in a"))
	must(t, put(t.Context(), a, "both", "in a"))
	must(t, put(t.Context(), b, "b", "in b"))
	must(t, put(t.Context(), b, "both", "in b, too"))
	s := of(t, Options{}, a, b)
	if got := keys(t, s); !slices.Equal(got, []string{"a", "b", "both"}) {
		t.Errorf("listed %q", got)
	}
	for key, want := range map[string]string{"a": "in a", "b": "in b", "both": "in a"} {
		in, err := s.Open(t.Context(), key)
		must(t, err)
		got, err := io.ReadAll(in)
		must(t, errors.Join(err, in.Close()))
		if string(got) != want {
			t.Errorf("%s: read %q", key, got)
		}
	}
	must(t, s.Each(t.Context(), func(place store.Place) error {
		if place == store.Place(b) {
			return broken()
		}
		return nil
	}))
	if got := s.Places(); len(got) != 1 || got[0] != store.Place(a) {
		t.Errorf("left: %v, want the one where it did not fail", got)
	}
	s = of(t, Options{}, a, &faulty{Place: b, list: broken})
	if got := keys(t, s); !slices.Contains(got, "a") || len(s.Behind()) != 1 {
		t.Errorf("listed %q; behind: %v", got, s.Behind())
	}
}

// A run that goes on with what another began does so where all of it is.
func TestAlignLeavesTheIncompleteBehind(t *testing.T) {
	a, b, c := folder(t), folder(t), folder(t)
	for _, st := range []store.Store{a, b} {
		must(t, put(t.Context(), st, "set/one", "1"))
		must(t, put(t.Context(), st, "set/two", "2"))
	}
	must(t, put(t.Context(), c, "set/one", "1"))
	must(t, put(t.Context(), c, "set/two", "another size"))
	s := of(t, Options{}, a, b, c)
	must(t, s.Align(t.Context(), "set/"))
	if got := s.Behind(); len(got) != 1 || got[0].Store != store.Place(c) {
		t.Errorf("behind: %v", got)
	}
}

// One held lock is enough to be locked out, and leaves no other lock behind.
func TestLockOfAnyStoreCounts(t *testing.T) {
	a, b := folder(t), folder(t)
	_, release, err := b.Lock(t.Context(), store.Holder{PID: 7, Host: "other"})
	must(t, err)
	s := of(t, Options{}, a, b)
	var locked *store.LockedError
	if _, _, err := s.Lock(t.Context(), store.Holder{}); !errors.As(err, &locked) || locked.Holder.PID != 7 {
		t.Errorf("error %v", err)
	}
	_, releaseA, err := a.Lock(t.Context(), store.Holder{})
	must(t, err)
	must(t, releaseA())
	must(t, release())
	_, release, err = s.Lock(t.Context(), store.Holder{})
	must(t, err)
	must(t, release())
}

// losing is a store whose lock can be lost, and cannot be given back then.
type losing struct {
	store.Place
	lose context.CancelCauseFunc
}

var errOutOfReach = errors.New("out of reach")

func (l *losing) Lock(ctx context.Context, holder store.Holder) (context.Context, func() error, error) {
	held, release, err := l.Place.Lock(ctx, holder)
	if err != nil {
		return nil, nil, err
	}
	held, l.lose = context.WithCancelCause(held)
	return held, func() error { return errors.Join(errOutOfReach, release()) }, nil
}

// A store that dies takes its lock with it, and no more than that while the
// others suffice.
func TestLostLockLeavesOneStoreBehind(t *testing.T) {
	for quorum, ends := range map[int]bool{1: false, 2: true} {
		dying := &losing{Place: folder(t)}
		warned := make(chan error, 1)
		s := of(t, Options{Quorum: quorum, Warn: func(_ store.Place, reason error) { warned <- reason }}, folder(t), dying)
		held, release, err := s.Lock(t.Context(), store.Holder{})
		must(t, err)
		dying.lose(errOutOfReach)
		if reason := <-warned; !errors.Is(reason, errOutOfReach) {
			t.Errorf("it fell behind because %v", reason)
		}
		if ends {
			<-held.Done()
			if !errors.Is(context.Cause(held), errOutOfReach) {
				t.Errorf("the run ends because %v", context.Cause(held))
			}
		} else if must(t, held.Err()); len(s.Behind()) != 1 {
			t.Errorf("behind: %v", s.Behind())
		}
		must(t, release())
		if held.Err() == nil {
			t.Error("the lock was given back, and is still held")
		}
	}
}

// The lock of a store that works must be given back.
func TestLockThatIsNotGivenBack(t *testing.T) {
	s := of(t, Options{}, folder(t), &losing{Place: folder(t)})
	_, release, err := s.Lock(t.Context(), store.Holder{})
	must(t, err)
	if err := release(); !errors.Is(err, errOutOfReach) {
		t.Errorf("got %v", err)
	}
}
