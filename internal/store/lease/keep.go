package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// errReleased ends the context of a lock that was given back.
var errReleased = errors.New("the lock was released")

// keep beats until release is called, ctx ends or the lock is lost. release
// waits for the goroutine that beats.
func (l *lock) keep(ctx context.Context) (held context.Context, release func() error) {
	held, lose := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	done := make(chan uint64, 1)
	go func() { done <- l.beatUntil(held, lose, stop) }()
	return held, sync.OnceValue(func() error {
		close(stop)
		count := <-done
		lost := held.Err() != nil && ctx.Err() == nil
		lose(errReleased)
		if lost {
			return nil // it is another run's by now, and held has said so
		}
		return l.release(ctx, count)
	})
}

// beatUntil returns how often it beat. It beats at once: contenders wait for a
// first change.
func (l *lock) beatUntil(held context.Context, lose context.CancelCauseFunc, stop <-chan struct{}) (count uint64) {
	tick := time.NewTicker(l.options.Beat)
	defer tick.Stop()
	alive := l.since // before the last request that is known to have arrived
	for {
		started := time.Now()
		deadline := alive.Add(l.options.giveUp())
		err := l.beat(held, deadline, count+1)
		var loss *lossError
		switch {
		case err == nil:
			alive, count = started, count+1
		case errors.As(err, &loss):
			lose(l.lost(loss.Error()))
			return count
		case held.Err() != nil:
			return count
		}
		if !time.Now().Before(deadline) && err != nil {
			lose(l.lost(fmt.Sprintf("no heartbeat reached the store for %s, and another run may have taken over: %v", l.options.giveUp(), err)))
			return count
		}
		select {
		case <-stop:
			return count
		case <-held.Done():
			return count
		case <-tick.C:
		}
	}
}

// lossError says that this process does not hold the lock any more.
type lossError struct{ why string }

func (e *lossError) Error() string { return e.why }

// beat looks who holds the lock, then rewrites the heartbeat.
func (l *lock) beat(ctx context.Context, deadline time.Time, count uint64) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := l.check(ctx); err != nil {
		return err
	}
	return l.put(ctx, beat{Count: count})
}

// check says whether the newest epoch is the one that this process created:
// somebody may also have removed the lock by hand, and another run begun anew.
func (l *lock) check(ctx context.Context) error {
	highest, err := l.highest(ctx)
	if err != nil {
		return err
	}
	if highest > l.epoch {
		return &lossError{fmt.Sprintf("another run took it over (epoch %d)", highest)}
	}
	text, err := l.objects.Read(ctx, epochName(l.epoch))
	if errors.Is(err, store.ErrNotExist) {
		return &lossError{"somebody removed it"}
	}
	if err != nil {
		return fmt.Errorf("read the store's lock: %w", err)
	}
	var e epoch
	if err := json.Unmarshal(text, &e); err != nil || e.Token != l.token {
		return &lossError{"somebody replaced it"}
	}
	return nil
}

func (l *lock) put(ctx context.Context, b beat) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return l.objects.Put(ctx, beatName(l.epoch), text)
}

func (l *lock) lost(why string) error {
	return fault.New(fault.Locked, "see whether another run works on the store, then run again",
		"the lock of the store was lost: %s", why)
}

// release says so in the heartbeat, also when the run was interrupted.
func (l *lock) release(ctx context.Context, count uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.options.giveUp())
	defer cancel()
	if err := l.put(ctx, beat{Count: count + 1, Released: true}); err != nil {
		return fmt.Errorf("release the store's lock: %w", err)
	}
	return nil
}
