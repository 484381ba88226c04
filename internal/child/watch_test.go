package child

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestWatchEndsWorkThatStalls(t *testing.T) {
	opt := WatchOptions{Stall: 30 * time.Millisecond, Limit: time.Hour, Progress: func() int64 { return 42 }}
	err := Watch(t.Context(), opt, wait)
	var stall *StallError
	if !errors.As(err, &stall) || stall.Bytes != 42 || stall.Stall != opt.Stall {
		t.Fatalf("got %v", err)
	}
	if want := "no progress for 30ms (42 bytes so far)"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %q, want %q", err, want)
	}
	if !errors.Is(err, context.Canceled) {
		t.Error("work's own error is lost")
	}
}

func TestWatchEndsWorkAtItsLimit(t *testing.T) {
	var moved atomic.Int64
	opt := WatchOptions{
		Limit: 50 * time.Millisecond, Stall: 20 * time.Millisecond,
		Progress: func() int64 { return moved.Add(1) },
	}
	err := Watch(t.Context(), opt, wait)
	var limit *LimitError
	if !errors.As(err, &limit) || limit.Limit != opt.Limit {
		t.Errorf("got %v, want a *LimitError", err)
	}
	opt.Progress, opt.Stall = nil, 0
	err = Watch(t.Context(), opt, wait)
	if want := "time limit of 50ms reached: "; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// T12: slow but moving, for many times the stall limit.
func TestWatchNeverEndsWorkThatMoves(t *testing.T) {
	const stall = 50 * time.Millisecond
	var moved atomic.Int64
	opt := WatchOptions{Stall: stall, Progress: moved.Load}
	err := Watch(t.Context(), opt, func(ctx context.Context) error {
		tick := time.NewTicker(stall / 5)
		defer tick.Stop()
		for begun := time.Now(); time.Since(begun) < 6*stall; {
			select {
			case <-tick.C:
				moved.Add(1)
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWatchReturnsWorksOwnResult(t *testing.T) {
	own := errors.New("its own")
	for _, want := range []error{nil, own} {
		got := Watch(t.Context(), WatchOptions{Limit: time.Hour}, func(context.Context) error { return want })
		if got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	late := Watch(t.Context(), WatchOptions{Limit: time.Millisecond}, func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	})
	if late != nil {
		t.Errorf("work that succeeded after its limit: got %v", late)
	}
}

func TestWatchRefusesAStallLimitWithoutProgress(t *testing.T) {
	err := Watch(t.Context(), WatchOptions{Stall: time.Second}, func(context.Context) error { return nil })
	if err == nil {
		t.Error("accepted")
	}
}

func TestWatchPollsFinerForShorterLimits(t *testing.T) {
	tests := []struct {
		limit, stall, want time.Duration
	}{
		{2 * time.Hour, 10 * time.Minute, time.Second},
		{2 * time.Hour, 0, time.Second},
		{0, 2 * time.Second, 100 * time.Millisecond},
		{time.Second, time.Hour, 50 * time.Millisecond},
		{time.Microsecond, 0, time.Millisecond},
	}
	for _, tt := range tests {
		if got := (WatchOptions{Limit: tt.limit, Stall: tt.stall}).poll(); got != tt.want {
			t.Errorf("limit %s, stall %s: got %s, want %s", tt.limit, tt.stall, got, tt.want)
		}
	}
}

// The watch, a child and a pipe together: the child's error carries the stall.
func TestWatchEndsAStalledChild(t *testing.T) {
	var read atomic.Int64
	opt := WatchOptions{Stall: 100 * time.Millisecond, Progress: read.Load}
	never := filepath.Join(t.TempDir(), "never")
	err := Watch(t.Context(), opt, func(ctx context.Context) error {
		_, err := Pipe(ctx, fake(t, "waitforfile", never), func(r io.Reader) error {
			n, err := io.Copy(io.Discard, r)
			read.Add(n)
			return err
		})
		return err
	})
	e := asExit(t, err)
	if _, ok := e.Cause.(*StallError); !ok {
		t.Errorf("got cause %v, want a *StallError", e.Cause)
	}
	if _, err := os.Stat(never); err == nil {
		t.Error("the file appeared")
	}
}
