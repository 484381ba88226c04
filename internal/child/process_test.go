package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asExit returns err as an *ExitError.
func asExit(t *testing.T, err error) *ExitError {
	t.Helper()
	var e *ExitError
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want an *ExitError", err)
	}
	return e
}

// lineChan makes OnStderrLine send each line to the returned channel.
func lineChan(c *Command) <-chan string {
	lines := make(chan string, 64)
	c.OnStderrLine = func(line string) { lines <- line }
	return lines
}

// number is the number at the end of a fake's line ("ready 12").
func number(t *testing.T, line string) int {
	t.Helper()
	n, err := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1:])
	if err != nil {
		t.Fatalf("line %q: %v", line, err)
	}
	return n
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: did not happen within 10 s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// ended reports whether a process is gone or a zombie that its parent (init)
// has not collected yet.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	rest := string(stat[bytes.LastIndexByte(stat, ')')+1:])
	return strings.HasPrefix(strings.TrimSpace(rest), "Z")
}

func TestRunReportsHowTheChildEnded(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"status", []string{"7"}, "exit exited with status 7"},
		{"status and words", []string{"1", "error: a", "", "detail: b"}, "exit exited with status 1: error: a; detail: b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Run(t.Context(), fake(t, "exit", tt.args...))
			if got := asExit(t, err).Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRunHandsOverExactlyTheGivenEnvironment(t *testing.T) {
	t.Setenv("CHILD_TEST_SECRET", "x")
	var out bytes.Buffer
	c := fake(t, "env")
	c.Env = append(c.Env, "A=b")
	c.Stdout = &out
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), roleVar+"=env\n"+quickExit+"\nA=b\n"; got != want {
		t.Errorf("got environment %q, want %q", got, want)
	}
}

func TestRunCopiesStdinAndStdout(t *testing.T) {
	const size = 5<<20 + 17
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c := fake(t, "cat")
	c.Stdin, c.Stdout = io.LimitReader(endless{}, size), file
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.Stdin, c.Stdout = file, &out
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if out.Len() != size {
		t.Errorf("got %d bytes, want %d", out.Len(), size)
	}
}

func TestStartNamesWhatIsWrongWithTheProgram(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path string
		want       error
	}{
		{"missing", filepath.Join(dir, "none"), fs.ErrNotExist},
		{"not executable", plain, fs.ErrPermission},
		{"a folder", dir, fs.ErrPermission},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Start(t.Context(), Command{Name: "pg_dump", Path: tt.path})
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.path) {
				t.Errorf("got %v, want %v and the path", err, tt.want)
			}
		})
	}
	if _, err := Start(t.Context(), Command{Name: "pg_dump", Path: "pg_dump"}); err == nil {
		t.Error("a relative path was accepted")
	}
}

// T11
func TestFloodOnStderrIsReadInBoundedMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := Run(t.Context(), fake(t, "flood", strconv.Itoa(100<<20)))
	runtime.ReadMemStats(&after)
	e := asExit(t, err)
	if e.Code != 3 || !strings.HasSuffix(e.Stderr, "the last line\n") {
		t.Errorf("got status %d and a tail that ends in %q", e.Code, e.Stderr[max(0, len(e.Stderr)-40):])
	}
	if len(e.Stderr) > tailBytes {
		t.Errorf("kept %d bytes, want at most %d", len(e.Stderr), tailBytes)
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("allocated %d bytes for 100 MB of standard error", grown)
	}
}

func TestLastLinesOfStderrAreNeverLost(t *testing.T) {
	t.Parallel()
	const lines = 5000
	for run := range 60 {
		var got []string
		c := fake(t, "words", strconv.Itoa(lines))
		c.OnStderrLine = func(line string) { got = append(got, line) }
		_, err := Run(t.Context(), c)
		if e := asExit(t, err); !strings.HasSuffix(e.Stderr, fmt.Sprintf("line %d\n", lines-1)) {
			t.Fatalf("run %d: the tail ends in %q", run, e.Stderr[max(0, len(e.Stderr)-40):])
		}
		if len(got) != lines {
			t.Fatalf("run %d: got %d lines, want %d", run, len(got), lines)
		}
		for i, line := range got {
			if want := fmt.Sprintf("line %d", i); line != want {
				t.Fatalf("run %d: got line %q, want %q", run, line, want)
			}
		}
	}
}

func TestLastWordsWithoutNewlineAreDelivered(t *testing.T) {
	var got []string
	c := fake(t, "lastwords")
	c.OnStderrLine = func(line string) { got = append(got, line) }
	_, err := Run(t.Context(), c)
	want := "lastwords killed by signal 9 (killed): first; out of mem"
	if e := asExit(t, err); e.Error() != want || e.Signal != syscall.SIGKILL {
		t.Errorf("got %q, want %q", e.Error(), want)
	}
	if strings.Join(got, "|") != "first||out of mem" {
		t.Errorf("got lines %q", got)
	}
}

func TestCancelEndsTheChildAndNamesTheCause(t *testing.T) {
	cause := errors.New("the night is over")
	for _, role := range []string{"sleep", "polite"} {
		t.Run(role, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			c := fake(t, role)
			lines := lineChan(&c)
			p, err := Start(ctx, c)
			if err != nil {
				t.Fatal(err)
			}
			<-lines
			cancel(cause)
			_, err = p.Wait()
			if !errors.Is(err, cause) || !strings.Contains(err.Error(), role+" was stopped: the night is over") {
				t.Errorf("got %v, want the cause", err)
			}
		})
	}
}

func TestCancelKillsAChildThatIgnoresSIGTERM(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := fake(t, "stubborn")
	c.Grace = 50 * time.Millisecond
	lines := lineChan(&c)
	p, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	<-lines
	cancel()
	_, err = p.Wait()
	if e := asExit(t, err); e.Signal != syscall.SIGKILL || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v (signal %d), want SIGKILL and context.Canceled", err, e.Signal)
	}
}

func TestStartWithAnEndedContextStartsNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := fake(t, "commit", file)
	if _, err := Run(ctx, c); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the child ran")
	}
}

// The workers of a killed pg_dump leader live on unless the group is ended.
func TestNothingOfTheGroupOutlivesTheLeader(t *testing.T) {
	for _, end := range []string{"kill", "1", "0"} {
		for _, member := range []string{"sleep", "stubborn", "sleep:quiet"} {
			t.Run(end+" "+member, func(t *testing.T) {
				t.Parallel()
				c := fake(t, "leader", end, member)
				lines := lineChan(&c)
				_, err := Run(t.Context(), c)
				if (err == nil) != (end == "0") {
					t.Errorf("got error %v", err)
				}
				for line := range drained(lines) {
					if strings.HasPrefix(line, "member") {
						pid := number(t, line)
						eventually(t, "the member's end", func() bool { return ended(pid) })
						return
					}
				}
				t.Error("the leader named no member")
			})
		}
	}
}

// drained is what is in lines now.
func drained(lines <-chan string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			select {
			case line := <-lines:
				if !yield(line) {
					return
				}
			default:
				return
			}
		}
	}
}

func TestCancelEndsTheWholeGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := fake(t, "leader", "wait", "stubborn")
	c.Grace = 50 * time.Millisecond
	lines := lineChan(&c)
	p, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	member := number(t, <-lines)
	<-lines // the member is ready
	cancel()
	if _, err := p.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	eventually(t, "the member's end", func() bool { return ended(member) })
}

// A daemon that left the group keeps running, and its hold on the outputs
// keeps nobody waiting.
func TestDetachedGrandchildDoesNotHangWait(t *testing.T) {
	tests := []struct {
		name   string
		stdout io.Writer
		held   bool
	}{
		{"holds standard error", nil, false},
		{"holds both", new(bytes.Buffer), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := fake(t, "leader", "0", "sleep:detached")
			c.Stdout = tt.stdout
			lines := lineChan(&c)
			_, err := Run(t.Context(), c)
			if got := errors.Is(err, ErrOutputHeld); got != tt.held {
				t.Errorf("got error %v, want ErrOutputHeld: %t", err, tt.held)
			}
			daemon := number(t, <-lines)
			if ended(daemon) {
				t.Error("the daemon was ended")
			}
			if err := syscall.Kill(daemon, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		})
	}
}

// psql takes the end of its input for the end of the data and commits.
func TestABrokenInputIsNeverShownAsItsEnd(t *testing.T) {
	broken := errors.New("digest does not match")
	file := filepath.Join(t.TempDir(), "committed")
	c := fake(t, "commit", file)
	c.Grace = 50 * time.Millisecond
	lines := lineChan(&c)
	c.Stdin = io.MultiReader(strings.NewReader("rows"), errorReader{broken, lines})
	_, err := Run(t.Context(), c)
	if e := asExit(t, err); !errors.Is(err, broken) || e.Signal != syscall.SIGKILL {
		t.Errorf("got %v (signal %d), want the reader's error and SIGKILL", err, e.Signal)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the child saw the end of its input")
	}
	c.Stdin = strings.NewReader("rows")
	if _, err := Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "4" {
		t.Errorf("a whole input: got %q, %v", got, err)
	}
}

// errorReader fails once a line came.
type errorReader struct {
	err   error
	after <-chan string
}

func (r errorReader) Read([]byte) (int, error) {
	<-r.after
	return 0, r.err
}

type errorWriter struct{ err error }

func (w errorWriter) Write([]byte) (int, error) { return 0, w.err }

func TestAFailingStdoutEndsTheChild(t *testing.T) {
	full := errors.New("no space left")
	c := fake(t, "write", strconv.FormatInt(1<<40, 10))
	c.Stdout = errorWriter{full}
	if _, err := Run(t.Context(), c); !errors.Is(err, full) {
		t.Errorf("got %v, want the writer's error", err)
	}
}

func TestUsageAndCPUTimeOfTheGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := fake(t, "leader", "wait", "burn")
	lines := lineChan(&c)
	p, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	<-lines
	<-lines // the member burns
	var used time.Duration
	eventually(t, "100 ms of processor time", func() bool {
		used, _ = p.CPUTime()
		return used > 100*time.Millisecond
	})
	cancel()
	usage, _ := p.Wait()
	if _, running := p.CPUTime(); running {
		t.Error("CPUTime reports an ended child as running")
	}
	if usage.Wall < 50*time.Millisecond || usage.PeakRSSBytes < 1<<20 {
		t.Errorf("got usage %+v", usage)
	}
}

// A child that is smaller than this process is not counted as large as it.
func TestPeakOfASmallChild(t *testing.T) {
	big := make([]byte, 256<<20)
	for i := 0; i < len(big); i += 4096 {
		big[i] = 1
	}
	usage, err := Run(t.Context(), Command{Name: "sleep", Path: "/bin/sleep", Args: []string{"0.3"}})
	runtime.KeepAlive(big)
	if err != nil || usage.PeakRSSBytes < 64<<10 || usage.PeakRSSBytes > 64<<20 {
		t.Errorf("peak memory %d, %v", usage.PeakRSSBytes, err)
	}
}

func TestTheLeaderEndsWithThisProcess(t *testing.T) {
	var out bytes.Buffer
	c := fake(t, "parent")
	c.Stdout = &out
	_, err := Run(t.Context(), c)
	if e := asExit(t, err); e.Signal != syscall.SIGKILL {
		t.Fatalf("got %v", err)
	}
	pid := number(t, strings.TrimSpace(out.String()))
	eventually(t, "the orphan's end", func() bool { return ended(pid) })
}

func TestParseStatReadsHostileNames(t *testing.T) {
	stat := "42 (a) R 1 (b) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5\n"
	group, cpu, ok := parseStat([]byte(stat))
	if !ok || group != 42 || cpu != 1240*time.Millisecond {
		t.Errorf("got group %d, %s, %t", group, cpu, ok)
	}
	for _, broken := range []string{"", "1", "1 (x", "1 (x) S 1 2", "1 (x) S 7 x 42 0 -1 4194560 1 2 3 4 100 20 3 1 20"} {
		if _, _, ok := parseStat([]byte(broken)); ok {
			t.Errorf("parsed %q", broken)
		}
	}
}

func TestEndSignalReplacesSIGTERM(t *testing.T) {
	c := fake(t, "stubborn")
	c.EndSignal, c.Grace = syscall.SIGINT, time.Hour
	lines := lineChan(&c)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p, err := Start(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	<-lines // ready
	select {
	case <-p.Exited():
		t.Error("Exited is closed while the child runs")
	default:
	}
	cancel()
	<-p.Exited()
	_, err = p.Wait()
	if e := asExit(t, err); !errors.Is(e, context.Canceled) || e.Signal != syscall.SIGINT && e.Code != 2 {
		t.Errorf("got %v", err)
	}
}

func TestTheChildRunsAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may choose a user")
	}
	const nobody = 65534
	var out bytes.Buffer
	c := Command{Name: "id", Path: "/usr/bin/id", Args: []string{"-u"}, Dir: "/", Stdout: &out}
	c.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	if _, err := Run(t.Context(), c); err != nil || strings.TrimSpace(out.String()) != "65534" {
		t.Errorf("got %q, %v", out.String(), err)
	}
}
