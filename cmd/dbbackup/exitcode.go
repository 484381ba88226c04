package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"dbbackup/internal/child"
	"dbbackup/internal/fault"
)

// Exit codes. They are an interface for scripts and never change their
// meaning; the README lists them.
const (
	exitOK           = 0
	exitFailed       = 1
	exitUsage        = 2
	exitOmissions    = 3
	exitNotFound     = 10
	exitLocked       = 11
	exitWrongKey     = 12
	exitIntegrity    = 13
	exitPrecondition = 14
	exitInterrupted  = 130 // 128 + SIGINT
	exitTerminated   = 143 // 128 + SIGTERM
)

// errOmissions means that all went well, and that the set declares omissions.
var errOmissions = errors.New("finished with declared omissions")

// isDeclared reports whether nothing else went wrong than what was declared.
func isDeclared(err error) bool {
	return err == errOmissions || err == errBehind || err == errKept //nolint:errorlint // joined with another error it is a failure
}

// signalError is the cause that ends a run when a signal comes.
type signalError struct{ signal syscall.Signal }

func (e *signalError) Error() string { return "interrupted by " + unix.SignalName(e.signal) }

func exitCode(err error) int {
	var bySignal *signalError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &bySignal):
		return 128 + int(bySignal.signal)
	case errors.Is(err, context.Canceled) && !outOfTime(err):
		return exitInterrupted
	case isDeclared(err):
		return exitOmissions
	}
	switch fault.KindOf(err) {
	case fault.Usage:
		return exitUsage
	case fault.NotFound:
		return exitNotFound
	case fault.Locked:
		return exitLocked
	case fault.WrongKey:
		return exitWrongKey
	case fault.Integrity:
		return exitIntegrity
	case fault.Precondition:
		return exitPrecondition
	default:
		return exitFailed
	}
}

// outOfTime reports whether it was a time limit that ended the work, and not
// somebody.
func outOfTime(err error) bool {
	var stall *child.StallError
	var limit *child.LimitError
	return errors.As(err, &stall) || errors.As(err, &limit)
}

// withSignals ends the context at the first SIGINT or SIGTERM, so that the run
// ends its children and cleans up, and the process at the second.
func withSignals(parent context.Context, exit func(int)) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		seen := false
		for {
			select {
			case s := <-signals:
				number, _ := s.(syscall.Signal)
				if seen {
					exit(128 + int(number))
				}
				seen = true
				cancel(&signalError{number})
			case <-done:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-ended
		cancel(nil)
	}
}
