package child

import (
	"fmt"
	"strings"
	"syscall"
)

const (
	shownLines = 8    // lines of standard error in an error's text
	shownBytes = 4096 // and at most so many bytes of them
)

// ExitError is a child that ran and did not succeed, or that was ended.
type ExitError struct {
	Name   string
	Code   int            // exit status; 0 when a signal ended it
	Signal syscall.Signal // 0: none
	Stderr string         // the last 64 kB of standard error
	Bytes  int64          // via Pipe: bytes read from it
	Cause  error          // why this side ended it; nil when it failed by itself
	piped  bool
}

// Error says how the child ended, or why it was ended, and its last words.
func (e *ExitError) Error() string {
	var b strings.Builder
	switch {
	case e.Cause != nil:
		fmt.Fprintf(&b, "%s was stopped", e.Name)
	case e.Signal != 0:
		fmt.Fprintf(&b, "%s killed by signal %d (%s)", e.Name, int(e.Signal), e.Signal)
	default:
		fmt.Fprintf(&b, "%s exited with status %d", e.Name, e.Code)
	}
	if e.piped {
		fmt.Fprintf(&b, " after %d bytes", e.Bytes)
	}
	if e.Cause != nil {
		fmt.Fprintf(&b, ": %v", e.Cause)
	}
	if words := lastLines(e.Stderr); words != "" {
		fmt.Fprintf(&b, ": %s", words)
	}
	return b.String()
}

// Unwrap returns why the child was ended, if this side ended it.
func (e *ExitError) Unwrap() error { return e.Cause }

// lastLines joins the last lines that are not empty into one.
func lastLines(stderr string) string {
	stderr = strings.TrimSpace(stderr)
	if len(stderr) > shownBytes {
		stderr = strings.ToValidUTF8(stderr[len(stderr)-shownBytes:], "")
	}
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-shownLines):], "; ")
}
