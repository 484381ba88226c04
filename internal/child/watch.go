package child

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	slowestPoll = time.Second
	fastestPoll = time.Millisecond
)

// WatchOptions say when work has taken too long.
type WatchOptions struct {
	Limit time.Duration // for all of it; 0: none
	Stall time.Duration // without a change of Progress; 0: none
	// Progress is a number that changes while work moves, such as the bytes
	// so far. It is called from another goroutine than work's. Stall needs it.
	Progress func() int64
}

// LimitError is the cause that ends work when its time limit has passed.
type LimitError struct {
	Limit time.Duration
	Bytes int64 // Progress at that time; -1 when there is none
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("time limit of %s reached%s", e.Limit, soFar(e.Bytes))
}

// StallError is the cause that ends work when it did not move.
type StallError struct {
	Stall time.Duration
	Bytes int64 // Progress at that time
}

func (e *StallError) Error() string {
	return fmt.Sprintf("no progress for %s%s", e.Stall, soFar(e.Bytes))
}

func soFar(bytes int64) string {
	if bytes < 0 {
		return ""
	}
	return fmt.Sprintf(" (%d bytes so far)", bytes)
}

// Watch runs work and ends its context, with a *StallError or *LimitError as
// the cause, when it stalls or takes too long. Work that moves, however
// slowly, never stalls. When work fails after that, the returned error wraps
// the cause as well as work's own; work that succeeds nevertheless succeeded.
//
// Time in which this process did not run (suspended, stopped) does not count
// as a stall.
func Watch(ctx context.Context, opt WatchOptions, work func(ctx context.Context) error) error {
	if opt.Stall > 0 && opt.Progress == nil {
		return errors.New("watch: a stall limit needs a measure of progress")
	}
	watched, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := beside(
		func(done <-chan struct{}) { opt.watch(done, cancel) },
		func() error { return work(watched) },
	)
	if err == nil {
		return nil
	}
	cause := context.Cause(watched)
	if !isWatchError(cause) || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// beside runs watcher while work runs, and waits for both.
func beside(watcher func(done <-chan struct{}), work func() error) error {
	var running sync.WaitGroup
	done := make(chan struct{})
	defer running.Wait()
	defer close(done)
	running.Go(func() { watcher(done) })
	return work()
}

func isWatchError(err error) bool {
	switch err.(type) {
	case *StallError, *LimitError:
		return true
	}
	return false
}

// watch polls until done is closed or work must end.
func (opt WatchOptions) watch(done <-chan struct{}, cancel context.CancelCauseFunc) {
	if opt.Limit <= 0 && opt.Stall <= 0 {
		return
	}
	poll := opt.poll()
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	begun := time.Now()
	last, lastTick, still := opt.progress(), begun, time.Duration(0)
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		now, bytes := time.Now(), opt.progress()
		still += min(now.Sub(lastTick), 2*poll)
		lastTick = now
		if bytes != last {
			last, still = bytes, 0
		}
		switch {
		case opt.Limit > 0 && now.Sub(begun) >= opt.Limit:
			cancel(&LimitError{Limit: opt.Limit, Bytes: bytes})
			return
		case opt.Stall > 0 && still >= opt.Stall:
			cancel(&StallError{Stall: opt.Stall, Bytes: bytes})
			return
		}
	}
}

// poll is a twentieth of the shorter limit, within bounds.
func (opt WatchOptions) poll() time.Duration {
	shorter := opt.Limit
	if shorter <= 0 || (opt.Stall > 0 && opt.Stall < shorter) {
		shorter = opt.Stall
	}
	return min(slowestPoll, max(fastestPoll, shorter/20))
}

func (opt WatchOptions) progress() int64 {
	if opt.Progress == nil {
		return -1
	}
	return opt.Progress()
}
