package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pipeBytes = 1 << 20 // what an unprivileged process may ask for by default
	// idleTime is how long a read waits for more once every process that was
	// to write is gone: only a stranger can still hold the other end.
	idleTime = 200 * time.Millisecond
)

// Pipe runs c and hands its standard output to consume as it is written. c's
// own Stdout is not used.
//
// r reports io.EOF only after the child exited with status 0 (B6). When it did
// not, r's last Read returns the *ExitError that Pipe returns. So consume may
// commit what it wrote when it has seen EOF.
//
// When consume fails the child is ended, so that it never blocks on a pipe
// that nobody reads, and consume's error is returned. A consume that returns
// nil must have read everything, up to EOF or to the byte before it.
func Pipe(ctx context.Context, c Command, consume func(r io.Reader) error) (Usage, error) {
	p, err := start(ctx, c, true)
	if err != nil {
		return Usage{}, err
	}
	consumed := p.consume(consume)
	if consumed != nil {
		p.cancel(consumed)
	}
	p.stdout.Close()
	usage, err := p.Wait()
	return usage, pipeError(err, consumed)
}

// consume runs fn, and makes sure that it neither stopped early nor leaves the
// child running when it panics.
func (p *Process) consume(fn func(r io.Reader) error) error {
	finished := false
	defer func() {
		if !finished { // fn panicked
			p.cancel(errors.New("its consumer panicked"))
			p.stdout.Close()
			p.Wait()
		}
	}()
	r := &outputReader{p: p}
	err := fn(r)
	if err == nil {
		var probe [1]byte
		n, readErr := r.Read(probe[:])
		if n > 0 {
			err = fmt.Errorf("consume the output of %s: stopped before its end", p.command.Name)
		} else if readErr != io.EOF {
			err = readErr
		}
	}
	finished = true
	return err
}

// pipeError chooses between the two sides: the one that failed first is the
// one that explains the other.
func pipeError(exit, consumed error) error {
	if exit == nil || consumed == nil {
		return errors.Join(exit, consumed)
	}
	var e *ExitError
	if errors.As(exit, &e) && e.Cause == consumed {
		return consumed
	}
	if errors.Is(consumed, exit) || (e != nil && e.Cause != nil && errors.Is(consumed, e.Cause)) {
		return exit
	}
	return fmt.Errorf("%w; %w", exit, consumed)
}

// outputReader reads a child's output; its EOF is the child's success.
type outputReader struct {
	p   *Process
	err error
}

func (r *outputReader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.p.stdout.Read(b)
	if err == io.EOF {
		if _, waitErr := r.p.Wait(); waitErr != nil {
			err = waitErr
		}
	}
	r.err = err
	return n, err
}

// pipe is our end of a pipe that a child writes into. It ends when the child's
// group has ended, even if a process that left the group holds the other end.
type pipe struct {
	file   *os.File
	read   atomic.Int64
	gone   atomic.Bool  // every process that was to write has ended
	budget atomic.Int64 // once gone: what the pipe could still hold then
}

func newPipe(r *os.File) *pipe { return &pipe{file: r} }

func (p *pipe) Close() error { return p.file.Close() }

// Read returns io.EOF at the end of the pipe, or when nothing that the group
// wrote can be left in it.
func (p *pipe) Read(b []byte) (int, error) {
	if p.gone.Load() {
		left := p.budget.Load()
		if left <= 0 {
			return 0, io.EOF
		}
		b = b[:min(int64(len(b)), left)]
		_ = p.file.SetReadDeadline(time.Now().Add(idleTime))
	}
	n, err := p.file.Read(b)
	p.read.Add(int64(n))
	p.budget.Add(int64(-n))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF
	}
	return n, err
}

// writersGone says that the group has ended. If the other end is still open,
// a stranger holds it: a pending Read is woken when it finds nothing, and what
// is read from now on is at most what the group can have left in the pipe (one
// filling, and one that a Read just now may have been taking out).
func (p *pipe) writersGone() {
	if p.hungUp(0) {
		return
	}
	p.budget.Store(2 * p.capacity())
	p.gone.Store(true)
	_ = p.file.SetReadDeadline(time.Now().Add(idleTime))
}

// hungUp waits until no process holds the other end, at most for limit.
// What is still unread does not matter.
func (p *pipe) hungUp(limit time.Duration) bool {
	hungUp := true // closed by ourselves: nothing to wait for
	deadline := time.Now().Add(limit)
	_ = p.control(func(fd uintptr) {
		for {
			fds := []unix.PollFd{{Fd: int32(fd)}}
			left := max(0, time.Until(deadline))
			n, err := unix.Poll(fds, int(left.Milliseconds()))
			if err != nil && errors.Is(err, unix.EINTR) {
				continue
			}
			hungUp = n > 0
			return
		}
	})
	return hungUp
}

func (p *pipe) capacity() int64 {
	bytes := int64(pipeBytes)
	_ = p.control(func(fd uintptr) {
		if n, err := unix.FcntlInt(fd, unix.F_GETPIPE_SZ, 0); err == nil {
			bytes = int64(n)
		}
	})
	return bytes
}

func (p *pipe) control(fn func(fd uintptr)) error {
	raw, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(fn)
}

// enlarge lets the pipe hold more, so that child and parent take turns less
// often. The kernel may refuse (a user's pipe quota); the pipe works all the
// same.
func enlarge(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeBytes)
	})
}
