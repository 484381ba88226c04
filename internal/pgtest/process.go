package pgtest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The ways to stop a server (manual: "Shutting Down the Server").
const (
	fast      = syscall.SIGINT
	immediate = syscall.SIGQUIT
)

// patience bounds how long a server may take to start or stop.
const patience = time.Minute

// poll is how often a file of the server is looked at while waiting for it.
const poll = 5 * time.Millisecond

// postmaster is a server process that this process started.
type postmaster struct {
	pid  int
	done chan struct{} // closed when the process was reaped
}

// Stop shuts the server down as for maintenance. Restart runs it again.
func (c *Cluster) Stop(tb testing.TB) {
	tb.Helper()
	if err := c.stop(fast); err != nil {
		tb.Fatal(err)
	}
}

// Kill ends the postmaster and all its backends with SIGKILL, as a crash of the
// machine would. Restart runs crash recovery.
func (c *Cluster) Kill(tb testing.TB) {
	tb.Helper()
	if c.server == nil {
		tb.Fatal("kill server: it does not run, or another process started it")
	}
	pids, err := processTree(c.server.pid)
	if err != nil {
		tb.Fatal(err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			tb.Fatalf("kill pid %d: %v", pid, err)
		}
	}
	<-c.server.done
	c.server = nil
	for _, pid := range pids { // a backend that is still dying holds the shared memory
		if err := awaitEnd(pid); err != nil {
			tb.Fatal(err)
		}
	}
}

// awaitEnd waits until a process is no more than a zombie.
func awaitEnd(pid int) error {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(poll) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return nil //nolint:nilerr // it is gone
		}
		// pid (name) state ..., where the name may hold anything
		if i := strings.LastIndexByte(string(text), ')'); i >= 0 && strings.HasPrefix(string(text[i:]), ") Z") {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}

// Restart stops the server when it runs, and starts it on the same port.
func (c *Cluster) Restart(tb testing.TB) {
	tb.Helper()
	if err := c.stop(fast); err != nil {
		tb.Fatal(err)
	}
	if err := c.start(false); err != nil {
		tb.Fatal(err)
	}
}

// start runs the postmaster and waits until it accepts connections.
func (c *Cluster) start(detached bool) error {
	server, err := c.spawn(detached)
	if err != nil {
		return err
	}
	if err := c.awaitReady(server); err != nil {
		return fmt.Errorf("start server on port %d: %w\n%s", c.Port, err, c.Log())
	}
	if !detached {
		c.server = server
	}
	return nil
}

// spawn starts the postmaster. Its goroutine keeps the thread that forked, since
// the kernel sends the parent-death signal when that thread ends; it ends when
// the process is reaped, for which stop and Kill wait.
func (c *Cluster) spawn(detached bool) (*postmaster, error) {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	cmd := exec.Command(filepath.Join(c.BinDir, "postgres"), "-D", c.DataDir)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, cleanEnv(), log, log
	cmd.SysProcAttr = c.owner.attributes()
	cmd.SysProcAttr.Setsid = true
	if !detached {
		cmd.SysProcAttr.Pdeathsig = immediate
	}
	server := &postmaster{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(server.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in the log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	server.pid = cmd.Process.Pid
	return server, nil
}

// awaitReady watches postmaster.pid, whose last line tells the server's state.
func (c *Cluster) awaitReady(server *postmaster) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-server.done:
			return errors.New("the server ended")
		case <-deadline.C:
			return errors.Join(errors.New("not ready in time"), syscall.Kill(server.pid, immediate))
		case <-tick.C:
			if pid, state := c.pidFile(); pid == server.pid && state == "ready" {
				return nil
			}
		}
	}
}

// stop sends the signal and waits until the server is gone. It does nothing
// where none runs.
func (c *Cluster) stop(sig syscall.Signal) error {
	gone, pid := c.running()
	if gone == nil {
		return nil
	}
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop server, pid %d: %w", pid, err)
	}
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for !gone() {
		select {
		case <-deadline.C:
			return fmt.Errorf("stop server, pid %d: still running after %v", pid, patience)
		case <-tick.C:
		}
	}
	c.server = nil
	return nil
}

// running returns the server's pid and a way to see that it is gone; nil where
// no server runs. A server of another process is known by its pid file only,
// which may be a stale one whose pid is somebody else's by now.
func (c *Cluster) running() (gone func() bool, pid int) {
	if c.server != nil {
		done := c.server.done
		return func() bool {
			select {
			case <-done:
				return true
			default:
				return false
			}
		}, c.server.pid
	}
	pid, _ = c.pidFile()
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if !c.detached || err != nil || !strings.Contains(string(command), c.DataDir) {
		return nil, 0
	}
	return func() bool { now, _ := c.pidFile(); return now == 0 }, pid
}

// pidFile reads the postmaster's pid and state; pid is 0 where none runs.
func (c *Cluster) pidFile() (pid int, state string) {
	text, err := os.ReadFile(filepath.Join(c.DataDir, "postmaster.pid"))
	if err != nil {
		return 0, ""
	}
	lines := strings.Split(string(text), "\n")
	pid, err = strconv.Atoi(lines[0])
	if err != nil || len(lines) < 8 {
		return 0, ""
	}
	return pid, strings.TrimSpace(lines[7])
}

// processTree returns a process and its children, the parent first, so that it
// starts no new ones while the others are killed.
func processTree(pid int) ([]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	pids := []int{pid}
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		// pid (command) state ppid ...: the command may hold spaces and brackets
		rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if parent, err := strconv.Atoi(rest[1]); err == nil && parent == pid {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(stat)))
			if err != nil {
				return nil, err
			}
			pids = append(pids, child)
		}
	}
	return pids, nil
}
