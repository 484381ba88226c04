package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// quick makes a dead holder noticed within half a second. A loaded machine may
// be slower, and then takes longer; no test depends on it.
var quick = Options{Beat: 80 * time.Millisecond, Missed: 12}

// TestMain lets the test binary be the process that dies or is stopped.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "hold" {
		if err := hold(context.Background(), folder{os.Args[2]}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// hold takes the lock, says so, and ends when it lost it or its input ends.
func hold(ctx context.Context, objects Objects) error {
	held, release, err := Lock(ctx, objects, quick, store.Holder{Host: "child", PID: os.Getpid()})
	if err != nil {
		return err
	}
	fmt.Println("locked")
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	select {
	case <-held.Done():
		fmt.Println("lost:", context.Cause(held))
		return release()
	case err := <-ended:
		return errors.Join(err, release())
	}
}

// folder keeps objects in files, as several processes can share them: created
// by a link, replaced by a rename.
type folder struct{ path string }

func (f folder) temporary(data []byte) (string, error) {
	file, err := os.CreateTemp(f.path, "temp-*")
	if err != nil {
		return "", err
	}
	_, err = file.Write(data)
	return file.Name(), errors.Join(err, file.Close())
}

func (f folder) Create(ctx context.Context, name string, data []byte) error {
	temp, err := f.temporary(data)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	if err := os.Link(temp, filepath.Join(f.path, name)); errors.Is(err, fs.ErrExist) {
		return store.ErrExist
	} else if err != nil {
		return err
	}
	return ctx.Err()
}

func (f folder) Put(ctx context.Context, name string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	temp, err := f.temporary(data)
	if err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(f.path, name))
}

func (f folder) Read(ctx context.Context, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(f.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, store.ErrNotExist
	}
	return data, errors.Join(ctx.Err(), err)
}

func (f folder) Names(ctx context.Context) ([]string, error) {
	entries, err := os.ReadDir(f.path)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, errors.Join(ctx.Err(), err)
}

func (f folder) Delete(_ context.Context, name string) error {
	return os.Remove(filepath.Join(f.path, name))
}

// child is a process that holds the lock.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   io.Reader
}

func startChild(t *testing.T, path string) *child {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	c := &child{cmd: exec.CommandContext(t.Context(), self, "hold", path)}
	c.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	c.stdin, err = c.cmd.StdinPipe()
	must(t, err)
	c.out, err = c.cmd.StdoutPipe()
	must(t, err)
	must(t, c.cmd.Start())
	line := make([]byte, len("locked\n"))
	if _, err := io.ReadFull(c.out, line); err != nil || string(line) != "locked\n" {
		t.Fatalf("the child said %q (%v)", line, err)
	}
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantLocked(t *testing.T, err error, host string) {
	t.Helper()
	var locked *store.LockedError
	if !errors.As(err, &locked) || !fault.Is(err, fault.Locked) || locked.Holder.Host != host {
		t.Fatalf("got %v, want a lock held by %s", err, host)
	}
}

func take(t *testing.T, objects Objects, host string) (context.Context, func() error) {
	t.Helper()
	held, release, err := Lock(t.Context(), objects, quick, store.Holder{Host: host})
	must(t, err)
	return held, release
}

func names(t *testing.T, objects Objects) []string {
	t.Helper()
	all, err := objects.Names(t.Context())
	must(t, err)
	slices.Sort(all)
	return all
}

func TestReleaseLeavesOneEpoch(t *testing.T) {
	f := folder{t.TempDir()}
	for n := range 3 {
		held, release := take(t, f, "a")
		if held.Err() != nil {
			t.Fatal(context.Cause(held))
		}
		_, _, err := Lock(t.Context(), f, quick, store.Holder{Host: "b"})
		wantLocked(t, err, "a")
		must(t, release())
		must(t, release())
		want := []string{epochName(uint64(n + 1)), beatName(uint64(n + 1))}
		if got := names(t, f); !slices.Equal(got, want) {
			t.Errorf("after round %d: %q, want %q", n, got, want)
		}
	}
}

// T24: killed at any instruction, the lock is free at once on the same machine.
func TestKilledHolder(t *testing.T) {
	f := folder{t.TempDir()}
	c := startChild(t, f.path)
	_, _, err := Lock(t.Context(), f, quick, store.Holder{Host: "b"})
	wantLocked(t, err, "child")
	must(t, c.cmd.Process.Kill())
	_ = c.cmd.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// Who waits for heartbeats of an hour waits in vain.
	held, release, err := Lock(ctx, f, Options{Beat: time.Hour}, store.Holder{Host: "b"})
	must(t, err)
	if held.Err() != nil {
		t.Error(context.Cause(held))
	}
	must(t, release())
}

// T24: a holder of another machine is only known by its heartbeat, and so is one of
// this machine before it was started anew, or in another namespace: that there is no
// such process here says nothing. The clock of the one who left the epoch is a hundred
// years ahead, and nobody looks at it.
func TestDeadHolderElsewhere(t *testing.T) {
	here := thisProcess()
	const nobody = 999_999_999
	for name, elsewhere := range map[string]process{
		"another machine": {"x", "y", nobody}, "before a start": {"x", here.Namespace, nobody}, "another namespace": {here.Boot, "y", nobody},
		"it does not say": {"", "", nobody},
	} {
		f := folder{t.TempDir()}
		text, err := json.Marshal(epoch{Holder: store.Holder{Host: "elsewhere", PID: nobody, Since: time.Now().AddDate(100, 0, 0)}, Process: elsewhere})
		must(t, err)
		must(t, f.Create(t.Context(), epochName(41), text))
		must(t, f.Put(t.Context(), beatName(41), []byte(`{"count":9}`)))
		began := time.Now()
		held, release := take(t, f, "b")
		if waited := time.Since(began); waited < quick.takeover() {
			t.Errorf("%s: taken over after %s, the holder may live until %s", name, waited, quick.takeover())
		}
		if held.Err() != nil {
			t.Error(context.Cause(held))
		}
		must(t, release())
		if got, want := names(t, f), []string{epochName(42), beatName(42)}; !slices.Equal(got, want) {
			t.Errorf("left is %q, want %q", got, want)
		}
	}
}

// A holder that is stopped as long as it likes learns that it lost the lock.
func TestPausedHolder(t *testing.T) {
	f := folder{t.TempDir()}
	c := startChild(t, f.path)
	must(t, c.cmd.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus // until it has stopped it may beat once more
	if _, err := syscall.Wait4(c.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("the child did not stop: %v, %v", status, err)
	}
	held, release := take(t, f, "b")
	must(t, c.cmd.Process.Signal(syscall.SIGCONT))
	said, err := io.ReadAll(c.out)
	must(t, err)
	if !strings.HasPrefix(string(said), "lost: the lock of the store was lost") {
		t.Errorf("the child said %q", said)
	}
	must(t, c.cmd.Wait())
	if held.Err() != nil {
		t.Errorf("the new holder lost the lock: %v", context.Cause(held))
	}
	must(t, release())
}

// Of many contenders exactly one works at any time, over releases and deaths.
func TestContenders(t *testing.T) {
	f := folder{t.TempDir()}
	var inside, rounds atomic.Int64
	var group errgroup.Group
	for i := range 6 {
		group.Go(func() error {
			for range 4 {
				_, release, err := Lock(t.Context(), f, quick, store.Holder{Host: fmt.Sprint(i)})
				if fault.Is(err, fault.Locked) {
					continue
				}
				if err != nil {
					return err
				}
				if n := inside.Add(1); n != 1 {
					return fmt.Errorf("%d holders at once", n)
				}
				rounds.Add(1)
				time.Sleep(quick.Beat / 8)
				inside.Add(-1)
				if err := release(); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
	if rounds.Load() == 0 {
		t.Error("nobody ever held the lock")
	}
}

// Several processes find a dead lock, and one of them takes it over.
func TestContendersOfADeadLock(t *testing.T) {
	f := folder{t.TempDir()}
	must(t, f.Create(t.Context(), epochName(7), []byte(`{"holder":{"host":"elsewhere"}}`)))
	type result struct {
		release func() error
		err     error
	}
	results := make(chan result)
	const contenders = 5
	for i := range contenders {
		go func() {
			_, release, err := Lock(t.Context(), f, quick, store.Holder{Host: fmt.Sprint(i)})
			results <- result{release, err}
		}()
	}
	var releases []func() error
	for range contenders {
		r := <-results
		if r.err != nil && !fault.Is(r.err, fault.Locked) {
			t.Error(r.err)
		}
		if r.err == nil {
			releases = append(releases, r.release)
		}
	}
	if len(releases) != 1 {
		t.Errorf("%d of %d hold the lock", len(releases), contenders)
	}
	for _, release := range releases {
		must(t, release())
	}
}

// overtaken is a contender's store in which others take the lock, give it back and
// sweep, twice, between the contender's look and its attempt.
type overtaken struct {
	folder
	done *atomic.Bool
}

func (o overtaken) Create(ctx context.Context, name string, data []byte) error {
	if !o.done.Swap(true) {
		for range 2 {
			_, release, err := Lock(ctx, o.folder, quick, store.Holder{Host: "other"})
			if err == nil {
				err = release()
			}
			if err != nil {
				return err
			}
		}
	}
	return o.folder.Create(ctx, name, data)
}

// A number that was given away and swept is not the lock: it can be created again, and
// whoever does is told that there is a higher one.
func TestOvertakenContender(t *testing.T) {
	f := folder{t.TempDir()}
	held, release := take(t, overtaken{f, new(atomic.Bool)}, "a")
	if held.Err() != nil {
		t.Fatal(context.Cause(held))
	}
	_, _, err := Lock(t.Context(), f, quick, store.Holder{Host: "b"})
	wantLocked(t, err, "a")
	must(t, release())
	if got, want := names(t, f), []string{epochName(3), beatName(3)}; !slices.Equal(got, want) {
		t.Errorf("left is %q, want %q", got, want)
	}
}

// cut is a store that is out of reach from some moment on.
type cut struct {
	folder
	off *atomic.Bool
}

var errCut = errors.New("out of reach")

func (c cut) Names(ctx context.Context) ([]string, error) {
	if c.off.Load() {
		return nil, errCut
	}
	return c.folder.Names(ctx)
}

// A holder that cannot reach the store has given up before a contender that can
// takes over.
func TestCutOffHolder(t *testing.T) {
	f := folder{t.TempDir()}
	c := cut{f, new(atomic.Bool)}
	held, release := take(t, c, "a")
	// The holder must be one whose death cannot be told from its process.
	e, err := f.Read(t.Context(), epochName(1))
	must(t, err)
	if !strings.Contains(string(e), `"token"`) {
		t.Fatalf("the epoch is %s", e)
	}
	c.off.Store(true)
	other, releaseOther := take(t, f, "b")
	if held.Err() == nil {
		t.Error("two hold the lock")
	}
	cause := context.Cause(held)
	if !fault.Is(cause, fault.Locked) || !strings.Contains(cause.Error(), "no heartbeat reached") {
		t.Errorf("the cause is %v", cause)
	}
	if other.Err() != nil {
		t.Error(context.Cause(other))
	}
	must(t, release())
	must(t, releaseOther())
}

// cutAfterCreate is a store that cannot be listed once the lock was created.
type cutAfterCreate struct{ cut }

func (c cutAfterCreate) Create(ctx context.Context, name string, data []byte) error {
	defer c.off.Store(true)
	return c.folder.Create(ctx, name, data)
}

// Who has created the lock, and cannot see whether it is the newest, gives it back:
// nobody waits for heartbeats that never come.
func TestLockThatCannotBeHeld(t *testing.T) {
	f := folder{t.TempDir()}
	_, _, err := Lock(t.Context(), cutAfterCreate{cut{f, new(atomic.Bool)}}, quick, store.Holder{Host: "a"})
	if !errors.Is(err, errCut) {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, release, err := Lock(ctx, f, Options{Beat: time.Hour}, store.Holder{Host: "b"})
	must(t, err)
	must(t, release())
}

// wantLost waits until a lock is lost, and checks that the cause says why.
func wantLost(t *testing.T, held context.Context, texts ...string) {
	t.Helper()
	select {
	case <-held.Done():
	case <-time.After(time.Minute):
		t.Fatal("the holder does not notice that it lost the lock")
	}
	cause := context.Cause(held)
	if !fault.Is(cause, fault.Locked) || !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(cause.Error(), text) }) {
		t.Errorf("the cause is %v, want one of %q", cause, texts)
	}
}

// Whoever removes the lock's objects by hand takes the lock from its holder.
func TestRemovedByHand(t *testing.T) {
	f := folder{t.TempDir()}
	held, release := take(t, f, "a")
	must(t, f.Delete(t.Context(), epochName(1)))
	must(t, f.Create(t.Context(), epochName(1), []byte(`{"token":"another"}`)))
	wantLost(t, held, "replaced", "removed")
	must(t, release())
}

// Who takes over may not be allowed to delete what was before: the holder sees it by
// the higher number alone.
func TestTakenOverByAWriterThatMayNotDelete(t *testing.T) {
	f := folder{t.TempDir()}
	held, release := take(t, f, "a")
	must(t, f.Create(t.Context(), epochName(2), []byte(`{"token":"another"}`)))
	wantLost(t, held, "took it over")
	must(t, release())
	if text, err := f.Read(t.Context(), beatName(1)); err == nil && strings.Contains(string(text), "released") {
		t.Errorf("the lost lock was given back: %s", text)
	}
}

// An interrupted run gives the lock back.
func TestInterruptedHolder(t *testing.T) {
	f := folder{t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	held, release, err := Lock(ctx, f, quick, store.Holder{Host: "a"})
	must(t, err)
	cancel()
	<-held.Done()
	must(t, release())
	began := time.Now()
	_, release = take(t, f, "b")
	if waited := time.Since(began); waited >= quick.takeover() {
		t.Errorf("a released lock was waited for: %s", waited)
	}
	must(t, release())
}
