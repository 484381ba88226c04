package storeserver

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// patience bounds how long a server may take to listen or to end.
const patience = time.Minute

// poll is how often a server that starts is asked whether it listens.
const poll = 10 * time.Millisecond

// process is a server that this process started. It dies with this process.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it was reaped
}

// program returns the path of a server's program.
func program(tb testing.TB, name string) string {
	tb.Helper()
	if path := inTools(name); path != "" {
		return path
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		tb.Fatalf("this test needs %s, and CI is set: run make tools", name)
	}
	tb.Skipf("this test needs %s: run make tools", name)
	return ""
}

// inTools looks in bin/tools of the module that the test belongs to.
func inTools(name string) string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
	for _, path := range []string{filepath.Join(dir, "bin/tools", name), filepath.Join(dir, "bin/tools/azurite/node_modules/.bin", name)} {
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// startAttempts bounds how many ports are tried: one that was free may be taken
// by somebody else before the server binds it.
const startAttempts = 5

// start runs a program on a free port until the test is over. args returns its
// arguments for a port.
func start(tb testing.TB, path, dir string, args func(port int) []string) (*process, int) {
	tb.Helper()
	var failures error
	for range startAttempts {
		port, err := freePort()
		if err != nil {
			tb.Fatal(err)
		}
		p, err := run(path, dir, args(port))
		if err != nil {
			tb.Fatal(err)
		}
		if err = p.await(port); err == nil {
			tb.Cleanup(p.stop)
			return p, port
		}
		p.stop()
		failures = errors.Join(failures, err)
	}
	tb.Fatalf("start %s: %v", path, failures)
	return nil, 0
}

// run starts the program in a session of its own. Its goroutine keeps the thread
// that forked, since the kernel sends the parent-death signal when that thread
// ends; it ends when the process was reaped, for which stop waits.
func run(path, dir string, args []string) (*process, error) {
	log, err := os.CreateTemp(dir, filepath.Base(path)+"-*.log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own descriptor
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	p := &process{cmd: cmd, log: log.Name(), done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer close(p.done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in the log
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return p, nil
}

// await returns when the port accepts connections.
func (p *process) await(port int) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return fmt.Errorf("it ended: %s", p.text())
		case <-deadline.C:
			return fmt.Errorf("it does not listen: %s", p.text())
		case <-tick.C:
			conn, err := net.DialTimeout("tcp", address(port), time.Second)
			if err == nil {
				return conn.Close()
			}
		}
	}
}

// stop kills the server's whole session and waits for its end.
func (p *process) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
	<-p.done
}

// text is the end of what the server said.
func (p *process) text() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-4000):]))
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort returns a port that nobody listened on a moment ago.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}
