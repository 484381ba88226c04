package child

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// quickExit stops the race detector from sleeping a second at each exit.
const quickExit = "GORACE=atexit_sleep_ms=0"

// roleVar makes the test binary behave as the named fake program.
const roleVar = "CHILD_TEST_ROLE"

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		os.Exit(roles[role](os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// fake is a Command that runs this binary in a role.
func fake(t *testing.T, role string, args ...string) Command {
	t.Helper()
	if roles[role] == nil {
		t.Fatalf("no role %s", role)
	}
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Command{Name: role, Path: path, Args: args, Env: []string{roleVar + "=" + role, quickExit}}
}

// roles are the fake programs. Each returns its exit status.
var roles = map[string]func(args []string) int{
	"exit":        exitRole,
	"words":       wordsRole,
	"write":       writeRole,
	"flood":       floodRole,
	"cat":         catRole,
	"env":         envRole,
	"sleep":       sleepRole,
	"stubborn":    stubbornRole,
	"leader":      leaderRole,
	"burn":        burnRole,
	"commit":      commitRole,
	"parent":      parentRole,
	"lastwords":   lastWordsRole,
	"polite":      politeRole,
	"waitforfile": waitForFileRole,
}

// exit STATUS [LINE...]: says the lines on standard error and exits.
func exitRole(args []string) int {
	for _, line := range args[1:] {
		fmt.Fprintln(os.Stderr, line)
	}
	status, _ := strconv.Atoi(args[0])
	return status
}

// words N: numbered lines on standard error, then status 1.
func wordsRole(args []string) int {
	n, _ := strconv.Atoi(args[0])
	w := bufio.NewWriter(os.Stderr)
	for i := range n {
		fmt.Fprintf(w, "line %d\n", i)
	}
	w.Flush()
	return 1
}

// lastwords: a line without its newline, then a signal.
func lastWordsRole([]string) int {
	fmt.Fprint(os.Stderr, "first\r\n\nout of mem")
	return killSelf()
}

func killSelf() int {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	return forever()
}

// write BYTES [kill|STATUS]: bytes on standard output, then an end.
func writeRole(args []string) int {
	n, _ := strconv.ParseInt(args[0], 10, 64)
	if _, err := io.CopyN(os.Stdout, endless{}, n); err != nil {
		return 9
	}
	if len(args) == 1 {
		return 0
	}
	if args[1] == "kill" {
		return killSelf()
	}
	status, _ := strconv.Atoi(args[1])
	return status
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

// flood BYTES: so much on standard error, a last line, then status 3.
func floodRole(args []string) int {
	n, _ := strconv.Atoi(args[0])
	line := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
	for written := 0; written < n; written += len(line) {
		if _, err := os.Stderr.Write(line); err != nil {
			return 9
		}
	}
	fmt.Fprintln(os.Stderr, "the last line")
	return 3
}

func catRole([]string) int {
	if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
		return 1
	}
	return 0
}

func envRole([]string) int {
	fmt.Println(strings.Join(os.Environ(), "\n"))
	return 0
}

// forever does nothing. A bare select would be a deadlock to the runtime.
func forever() int {
	for {
		time.Sleep(time.Hour)
	}
}

// ready tells the test that the signal dispositions are in place.
func ready() { fmt.Fprintln(os.Stderr, "ready", os.Getpid()) }

func sleepRole([]string) int {
	ready()
	return forever()
}

func stubbornRole([]string) int {
	signal.Ignore(syscall.SIGTERM)
	ready()
	return forever()
}

// polite: exits 0 when it is asked to end.
func politeRole([]string) int {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	ready()
	<-asked
	return 0
}

// leader END MEMBER: starts a member and ends, as END says: "0", "1", "kill",
// "write" half a megabyte and 0, or "wait" for the member. Members are roles; "sleep:detached" makes one with a
// session of its own, "sleep:quiet" one that holds no output.
func leaderRole(args []string) int {
	role, how, _ := strings.Cut(args[1], ":")
	cmd := exec.Command("/proc/self/exe", args[2:]...)
	cmd.Env = []string{roleVar + "=" + role, quickExit}
	if how != "quiet" {
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	}
	if how == "detached" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	if err := cmd.Start(); err != nil {
		return 9
	}
	fmt.Fprintf(os.Stderr, "member %d\n", cmd.Process.Pid)
	switch args[0] {
	case "kill":
		return killSelf()
	case "write":
		return writeRole([]string{"500000"})
	case "wait":
		_ = cmd.Wait()
		return 0
	}
	status, _ := strconv.Atoi(args[0])
	return status
}

// burn: uses the processor until it is ended.
func burnRole([]string) int {
	for i := 0; ; i++ {
		if i == 1<<20 {
			ready()
		}
	}
}

// commit FILE: writes FILE if and only if its input ended, as psql commits. It
// ignores SIGTERM, so that only its input decides.
func commitRole(args []string) int {
	signal.Ignore(syscall.SIGTERM)
	ready()
	n, err := io.Copy(io.Discard, os.Stdin)
	if err != nil {
		return 1
	}
	if err := os.WriteFile(args[0], fmt.Append(nil, n), 0o600); err != nil {
		return 1
	}
	return 0
}

// parent: starts a child through this package and is then killed.
func parentRole([]string) int {
	path, _ := os.Executable()
	up := make(chan struct{})
	c := Command{
		Name: "sleep", Path: path, Env: []string{roleVar + "=sleep"},
		OnStderrLine: func(line string) { fmt.Println(line); close(up) },
	}
	if _, err := Start(context.Background(), c); err != nil {
		return 9
	}
	<-up
	return killSelf()
}

// waitforfile FILE: exits 0 once FILE exists.
func waitForFileRole(args []string) int {
	ready()
	for {
		if _, err := os.Stat(args[0]); err == nil {
			return 0
		} else if !errors.Is(err, os.ErrNotExist) {
			return 1
		}
		time.Sleep(time.Millisecond)
	}
}
