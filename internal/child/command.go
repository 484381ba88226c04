package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"
)

// DefaultGrace is how long a child has between Command.EndSignal and SIGKILL.
const DefaultGrace = 5 * time.Second

// ErrOutputHeld means that a child exited with status 0 while a process that it
// left behind still held its output open, so that what was read may lack
// something.
var ErrOutputHeld = errors.New("its output is still held open by a process that it left behind")

// Command is a program to run.
type Command struct {
	Name string   // what errors call it: "pg_dump"
	Path string   // absolute path of the program
	Args []string // without argv[0]; never a secret, every user of the machine can read them
	Env  []string // the complete environment; nothing is inherited
	Dir  string   // working directory; empty: this process's own
	// Credential is the user that the child runs as, in Dir as that user may
	// enter it; nil: this process's own. Only root may choose.
	Credential *syscall.Credential

	// Stdin is what the child reads; nil is /dev/null. An *os.File is handed
	// to the child itself. Anything else is copied; an error of its Read ends
	// the child and is returned by Wait. That a child does not read all of it
	// is no error.
	Stdin io.Reader
	// Stdout receives what the child writes; nil discards it. An *os.File is
	// handed to the child itself. Anything else is copied; an error of its
	// Write ends the child and is returned by Wait.
	Stdout io.Writer
	// OnStderrLine is called for every line of standard error, in order and
	// without its newline, from one goroutine that has ended when Wait
	// returns. A line is cut after 64 kB. While it runs the child may block.
	OnStderrLine func(line string)

	// EndSignal asks the child to end, also when this process dies. Zero is
	// SIGTERM.
	EndSignal syscall.Signal
	// Grace is the time between EndSignal and SIGKILL. Zero is DefaultGrace.
	Grace time.Duration
}

// Usage is what a child cost, as the kernel accounts it: the leader and those
// of its descendants that were waited for.
type Usage struct {
	Wall, UserCPU, SystemCPU time.Duration
	// PeakRSSBytes is that of the largest process among them; where none was
	// larger than this process, that of the leader, which is read every 250 ms.
	PeakRSSBytes                    int64
	BlockReadBytes, BlockWriteBytes int64 // from and to block devices, page cache hits excluded
}

// Run starts c and waits for it.
func Run(ctx context.Context, c Command) (Usage, error) {
	p, err := Start(ctx, c)
	if err != nil {
		return Usage{}, err
	}
	return p.Wait()
}

func (c Command) validate() error {
	switch {
	case c.Name == "":
		return fmt.Errorf("start %s: the command has no name", c.Path)
	case !filepath.IsAbs(c.Path):
		return fmt.Errorf("start %s: %q is not an absolute path", c.Name, c.Path)
	case c.Grace < 0:
		return fmt.Errorf("start %s: negative grace %s", c.Name, c.Grace)
	}
	return nil
}

func (c Command) endSignal() syscall.Signal {
	if c.EndSignal == 0 {
		return syscall.SIGTERM
	}
	return c.EndSignal
}

func (c Command) grace() time.Duration {
	if c.Grace == 0 {
		return DefaultGrace
	}
	return c.Grace
}
