package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lingerTime is how long a group may take to end by itself after its leader,
// and again after Command.EndSignal.
const lingerTime = time.Second

// Process is a started child. Its Wait must be called.
type Process struct {
	command Command
	cmd     *exec.Cmd
	pid     int
	started time.Time
	wall    time.Duration

	cancel context.CancelCauseFunc // ends the child
	exited chan struct{}           // closed when the leader has exited, before it is reaped
	tasks  sync.WaitGroup
	wait   func() (Usage, error)

	stdin   *os.File    // our end, when Stdin is copied
	stdout  *pipe       // our end, when Stdout is copied or piped
	stderr  *pipe       // our end
	closing []io.Closer // the child's ends, closed once it is started
	tail    tail

	mu     sync.Mutex // orders signals and reads of /proc before the reaping
	reaped bool

	forkedWith int64 // peak memory of this process when it had forked, in bytes
	peak       int64 // of the child, as far as it was read; see watchMemory

	cause   error // why we ended it; set before exited is closed
	held    bool  // stdout was held open after the leader's exit
	copyErr errorOnce
}

// Start starts c. The child is ended when ctx is. An error that wraps
// fs.ErrNotExist or fs.ErrPermission is about the program (or Dir) itself.
func Start(ctx context.Context, c Command) (*Process, error) {
	return start(ctx, c, false)
}

func start(ctx context.Context, c Command, piped bool) (*Process, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, context.Cause(ctx))
	}
	p := &Process{command: c, exited: make(chan struct{})}
	if err := p.wire(piped); err != nil {
		p.closeAll()
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	runCtx, cancel := context.WithCancelCause(ctx)
	p.cancel = cancel
	started := make(chan error)
	p.tasks.Go(func() { p.own(runCtx, started) })
	if err := <-started; err != nil {
		cancel(nil)
		p.tasks.Wait()
		p.closeAll()
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	p.closeChildEnds()
	p.tasks.Go(func() { p.endOnCancel(runCtx) })
	p.tasks.Go(func() { p.readStderr() })
	p.tasks.Go(func() { p.watchMemory() })
	if p.stdin != nil {
		p.tasks.Go(func() { p.feed() })
	}
	if p.stdout != nil && !piped {
		p.tasks.Go(func() { p.collect() })
	}
	p.wait = sync.OnceValues(func() (Usage, error) { return p.join(piped) })
	return p, nil
}

// PID is the child's process id, and that of its process group.
func (p *Process) PID() int { return p.pid }

// Exited is closed when the child itself has ended, whatever became of its
// group. How it ended is for Wait to say.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Wait waits until the child and its group have ended and everything it wrote
// was handled. The error is an *ExitError when the child ended with anything
// but status 0, or was ended. Wait may be called more than once.
func (p *Process) Wait() (Usage, error) { return p.wait() }

// own starts the child, waits for its exit and reaps it, all on one thread.
// PDEATHSIG is sent when the *thread* that forked ends. This one is locked to
// this goroutine until the child is gone, so it only ends with the process;
// it would spend that time blocked in waitid in any case.
//
// The leader is reaped last: until then its pid, which is the group's id, is
// not given to another process, and signals to the group cannot go astray.
func (p *Process) own(ctx context.Context, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	p.pid, p.forkedWith = p.cmd.Process.Pid, ownPeak()
	started <- nil

	awaitExit(p.pid)
	p.wall = time.Since(p.started)
	if ctx.Err() != nil {
		p.cause = context.Cause(ctx)
	}
	close(p.exited)
	p.endGroup()
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.cmd.Wait() // its error is read from ProcessState by join
}

// awaitExit waits until the process has exited and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// endGroup ends what is left of the group after its leader's exit. Those that
// hold the outputs open may finish first (a tee behind a script). Those that
// do not are asked to end, then made to; a group that was told to end because
// the context did is not asked twice.
func (p *Process) endGroup() {
	p.held = p.stdout != nil && !p.stdout.hungUp(lingerTime)
	if (p.held || !p.stderr.hungUp(lingerTime)) && p.cause == nil {
		p.signal(p.command.endSignal())
		p.stderr.hungUp(lingerTime)
	}
	p.signal(syscall.SIGKILL)
	p.stderr.writersGone()
	if p.stdout != nil {
		p.stdout.writersGone()
	}
	if p.stdin != nil {
		p.stdin.Close()
	}
}

// endOnCancel asks the group to end when ctx does, and then makes it.
func (p *Process) endOnCancel(ctx context.Context) {
	select {
	case <-p.exited:
		return
	case <-ctx.Done():
	}
	p.signal(p.command.endSignal())
	grace := time.NewTimer(p.command.grace())
	defer grace.Stop()
	select {
	case <-p.exited:
	case <-grace.C:
		p.signal(syscall.SIGKILL)
	}
}

// signal sends sig to the group. That none of it is left is no error.
func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.pid, sig)
	}
}

func (p *Process) join(piped bool) (Usage, error) {
	p.tasks.Wait()
	p.cancel(nil)
	p.stderr.Close()
	if p.stdout != nil && !piped {
		p.stdout.Close()
	}
	return p.usage(), p.outcome(piped)
}

func (p *Process) outcome(piped bool) error {
	state := p.cmd.ProcessState
	status, _ := state.Sys().(syscall.WaitStatus)
	if !state.Success() || p.cause != nil {
		e := &ExitError{Name: p.command.Name, Stderr: p.tail.String(), Cause: p.cause, piped: piped}
		if status.Signaled() {
			e.Signal = status.Signal()
		} else {
			e.Code = state.ExitCode()
		}
		if piped {
			e.Bytes = p.stdout.read.Load()
		}
		return e
	}
	if err := p.copyErr.load(); err != nil {
		return err
	}
	if p.held {
		return fmt.Errorf("%s exited with status 0, but %w", p.command.Name, ErrOutputHeld)
	}
	return nil
}

func (p *Process) usage() Usage {
	state := p.cmd.ProcessState
	u := Usage{Wall: p.wall, UserCPU: state.UserTime(), SystemCPU: state.SystemTime()}
	if r, ok := state.SysUsage().(*syscall.Rusage); ok {
		u.PeakRSSBytes = p.peakRSS(r.Maxrss * 1024)
		u.BlockReadBytes = r.Inblock * 512
		u.BlockWriteBytes = r.Oublock * 512
	}
	return u
}
