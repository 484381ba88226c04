package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "dev"

func main() {
	// A file that may not grow is an error of the write that meets the limit,
	// here and in children, which inherit this, and not the end of the process.
	signal.Ignore(syscall.SIGXFSZ)
	ctx, stop := withSignals(context.Background(), os.Exit)
	code := run(ctx, process{
		args: os.Args, env: os.Environ(), stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
	})
	stop()
	os.Exit(code)
}

// process is what the command line needs of the world, so that tests can give
// it another one.
type process struct {
	args   []string
	env    []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// run runs one command and returns its exit code. Errors have been printed.
func run(ctx context.Context, p process) int {
	a := newApplication(p)
	err := interrupted(ctx, a.run(ctx))
	a.printError(err)
	return exitCode(err)
}

// interrupted puts the signal that ended ctx in front of an error that came
// of it: what was interrupted may only know that its context was cancelled.
func interrupted(ctx context.Context, err error) error {
	var bySignal *signalError
	if err == nil || errors.Is(err, errOmissions) || errors.As(err, &bySignal) || !errors.As(context.Cause(ctx), &bySignal) {
		return err
	}
	return errors.Join(bySignal, err)
}
