package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"dbbackup/internal/pgtest"
)

// shared is the cluster of tests that need nothing special of their server.
// Tests that change roles, settings or databases of a fixed name start their
// own with shared.Start.
var shared pgtest.Shared

// runLimit ends a process that hangs, long before the tests' own time limit.
const runLimit = 2 * time.Minute

// result is what a process of dbbackup left.
type result struct {
	stdout, stderr string
	code           int
}

// dbbackup runs the program to its end. env is added to a hermetic environment; use
// Cluster.Env for the server.
func dbbackup(t testing.TB, env []string, args ...string) result {
	t.Helper()
	return start(t, env, args...).wait(t)
}

// running is a process of dbbackup, in a process group of its own.
type running struct {
	cmd            *exec.Cmd
	stdout, stderr *bytes.Buffer
}

// start starts dbbackup. Whoever does not call wait has it killed when the
// test is over.
func start(t testing.TB, env []string, args ...string) *running {
	t.Helper()
	return startUnder(t, env, nil, args...)
}

// startUnder is start by another program, such as prlimit, that is given
// dbbackup's command line after its own.
func startUnder(t testing.TB, env, wrapper []string, args ...string) *running {
	t.Helper()
	argv := append(append(slices.Clone(wrapper), "dbbackup"), args...)
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	r := &running{exec.CommandContext(ctx, argv[0], argv[1:]...), &bytes.Buffer{}, &bytes.Buffer{}}
	r.cmd.Env = append(hermeticEnv(t), env...)
	r.cmd.Dir = t.TempDir()
	r.cmd.Stdout, r.cmd.Stderr = r.stdout, r.stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Wait()
		}
	})
	return r
}

// wait waits for the end of the process. What it printed is logged, for tests
// that fail.
func (r *running) wait(t testing.TB) result {
	t.Helper()
	err := r.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %q: %v", r.cmd.Args, err)
	}
	got := result{r.stdout.String(), r.stderr.String(), r.cmd.ProcessState.ExitCode()}
	t.Logf("%q exited with %d\n%s%s", r.cmd.Args, got.code, got.stdout, got.stderr)
	return got
}

// kill ends the process, and nothing but it, at once.
func (r *running) kill(t testing.TB) {
	t.Helper()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
}

// hermeticEnv is all that tests take from the environment: where programs are.
func hermeticEnv(t testing.TB) []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir(), "LC_ALL=C.UTF-8",
		"DBBACKUP_CONFIG=/dev/null",
		"GORACE=atexit_sleep_ms=0", // a second after each process else
	}
}

// want checks the exit code, and that each text stands in standard error.
func (r result) want(t testing.TB, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code: got %d, want %d\n%s", r.code, code, r.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(r.stderr, text) {
			t.Errorf("standard error: got %s\nwant %q in it", r.stderr, text)
		}
	}
}

// must is want for a step that the test cannot go on without.
func (r result) must(t testing.TB, codes ...int) result {
	t.Helper()
	for _, code := range codes {
		if r.code == code {
			return r
		}
	}
	t.Fatalf("exit code: got %d, want one of %v\n%s", r.code, codes, r.stderr)
	return r
}

// decode reads standard output as one JSON object.
func (r result) decode(t testing.TB, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.stdout), into); err != nil {
		t.Fatalf("standard output is not JSON: %v\n%s", err, r.stdout)
	}
}

// modes are those that a database can be captured in; in all but the last one
// pg_dump writes the rows.
var (
	modes     = []string{"custom", "plain", "directory", "chunked"}
	dumpModes = modes[:3]
)

// newStore returns the path of a store that a backup will make.
func newStore(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "store")
}

// patience is for how long a test waits for what must come: much longer than it takes
// on a machine that has other work, too.
const patience = 2 * time.Minute

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if holds() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

// onlySet returns the id of the store's only set.
func onlySet(t testing.TB, store string) string {
	t.Helper()
	var listed struct {
		ID string `json:"id"`
	}
	inProcess(t, nil, "list", "--json", "--store", store).must(t, 0).decode(t, &listed)
	return listed.ID
}
