package child

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestPipeDeliversEverything(t *testing.T) {
	const size = 20<<20 + 3
	var got int64
	_, err := Pipe(t.Context(), fake(t, "write", strconv.Itoa(size)), func(r io.Reader) (err error) {
		got, err = io.Copy(io.Discard, r)
		return err
	})
	if err != nil || got != size {
		t.Errorf("got %d bytes and %v, want %d", got, err, size)
	}
}

// B6, T01, T02: EOF is the child's success.
func TestPipeShowsEOFOnlyAfterSuccess(t *testing.T) {
	tests := []struct {
		end, want string
	}{
		{"kill", "write killed by signal 9 (killed) after 3000000 bytes"},
		{"1", "write exited with status 1 after 3000000 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.end, func(t *testing.T) {
			var read bytes.Buffer
			var atEnd error
			_, err := Pipe(t.Context(), fake(t, "write", "3000000", tt.end), func(r io.Reader) error {
				_, atEnd = io.Copy(&read, r)
				return nil // a consumer that does not look is not believed
			})
			if e := asExit(t, err); e.Error() != tt.want || e.Bytes != 3000000 {
				t.Errorf("got %q (%d bytes), want %q", e.Error(), e.Bytes, tt.want)
			}
			if asExit(t, atEnd); read.Len() != 3000000 {
				t.Errorf("the consumer saw %d bytes", read.Len())
			}
		})
	}
}

// T10
func TestPipeEndsTheChildWhenItsConsumerFails(t *testing.T) {
	full := errors.New("no space left")
	for _, role := range []string{"write", "sleep", "stubborn"} {
		t.Run(role, func(t *testing.T) {
			c := fake(t, role, strconv.FormatInt(1<<40, 10))
			c.Grace = 1 // the shortest
			_, err := Pipe(t.Context(), c, func(r io.Reader) error {
				if role == "write" {
					if _, err := io.CopyN(io.Discard, r, 100); err != nil {
						return err
					}
				}
				return full
			})
			if err != full {
				t.Errorf("got %v, want the consumer's error alone", err)
			}
		})
	}
}

func TestPipeRefusesAConsumerThatStopsEarly(t *testing.T) {
	for _, size := range []string{"10", "100000000"} {
		_, err := Pipe(t.Context(), fake(t, "write", size), func(r io.Reader) error {
			_, err := io.CopyN(io.Discard, r, 5)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "stopped before its end") {
			t.Errorf("%s bytes, 5 of them read: got %v", size, err)
		}
	}
}

func TestPipeAcceptsAConsumerThatReadsToTheLastByte(t *testing.T) {
	_, err := Pipe(t.Context(), fake(t, "write", "10"), func(r io.Reader) error {
		_, err := io.ReadFull(r, make([]byte, 10))
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestPipeReturnsTheCauseOfTheContext(t *testing.T) {
	cause := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := Pipe(ctx, fake(t, "write", strconv.FormatInt(1<<40, 10)), func(r io.Reader) error {
		if _, err := io.CopyN(io.Discard, r, 1<<20); err != nil {
			return err
		}
		cancel(cause)
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if e := asExit(t, err); !errors.Is(err, cause) || e.Bytes < 1<<20 {
		t.Errorf("got %v", err)
	}
}

// A consumer that is still behind when the child is gone gets all of it, also
// when a stranger holds the other end.
func TestPipeWaitsForASlowConsumer(t *testing.T) {
	tests := []struct {
		role string
		args []string
		want error
	}{
		{"write", []string{"500000"}, nil},
		{"leader", []string{"write", "sleep:detached"}, ErrOutputHeld},
	}
	for _, tt := range tests {
		t.Run(tt.role, func(t *testing.T) {
			c := fake(t, tt.role, tt.args...)
			lines := lineChan(&c)
			var got int64
			_, err := Pipe(t.Context(), c, func(r io.Reader) (err error) {
				p := r.(*outputReader).p
				eventually(t, "the reaping", func() bool {
					p.mu.Lock()
					defer p.mu.Unlock()
					return p.reaped
				})
				got, err = io.Copy(io.Discard, r)
				return err
			})
			if !errors.Is(err, tt.want) || got != 500000 {
				t.Errorf("got %d bytes and %v, want 500000 and %v", got, err, tt.want)
			}
			if tt.role == "leader" {
				_ = syscall.Kill(number(t, <-lines), syscall.SIGKILL)
			}
		})
	}
}

// A leader that exits 0 while its own child still writes has not succeeded.
func TestPipeFailsWhenTheOutputIsHeldOpen(t *testing.T) {
	for _, member := range []string{"sleep", "sleep:detached"} {
		t.Run(member, func(t *testing.T) {
			t.Parallel()
			c := fake(t, "leader", "0", member)
			lines := lineChan(&c)
			_, err := Pipe(t.Context(), c, func(r io.Reader) error {
				_, err := io.Copy(io.Discard, r)
				return err
			})
			if !errors.Is(err, ErrOutputHeld) {
				t.Errorf("got %v, want ErrOutputHeld", err)
			}
			_ = syscall.Kill(number(t, <-lines), syscall.SIGKILL)
		})
	}
}

// A script that hands its output to a child of its own, and ends first.
func TestPipeLetsTheGroupFinishItsOutput(t *testing.T) {
	var got int64
	_, err := Pipe(t.Context(), fake(t, "leader", "0", "write", "1000000"), func(r io.Reader) (err error) {
		got, err = io.Copy(io.Discard, r)
		return err
	})
	if err != nil || got != 1000000 {
		t.Errorf("got %d bytes and %v", got, err)
	}
}

func TestPipeEndsTheChildOfAConsumerThatPanics(t *testing.T) {
	var pid int
	func() {
		defer func() { _ = recover() }()
		_, _ = Pipe(t.Context(), fake(t, "sleep"), func(r io.Reader) error {
			pid = r.(*outputReader).p.PID()
			panic("a bug")
		})
	}()
	if pid == 0 || !ended(pid) {
		t.Errorf("the child %d lives on", pid)
	}
}
