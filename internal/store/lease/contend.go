package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"dbbackup/internal/store"
)

// isFree waits until it is known whether the lock whose newest epoch is n is
// free. A living holder is a LockedError; false without an error means that the
// lock changed hands without anybody living being seen.
func (l *lock) isFree(ctx context.Context, n uint64) (bool, error) {
	if n == 0 {
		return true, nil
	}
	text, err := l.objects.Read(ctx, epochName(n))
	if errors.Is(err, store.ErrNotExist) {
		return false, nil // swept by a newer epoch
	}
	if err != nil {
		return false, fmt.Errorf("read the store's lock: %w", err)
	}
	var e epoch
	if err := json.Unmarshal(text, &e); err != nil {
		e = epoch{} // somebody wrote there by hand; the heartbeat decides
	}
	return l.watch(ctx, n, e)
}

// watch looks at a heartbeat until it changes, or did not for so long that its
// holder has given up.
func (l *lock) watch(ctx context.Context, n uint64, e epoch) (free bool, err error) {
	first, err := l.readBeat(ctx, n)
	if err != nil {
		return false, err
	}
	if released(first) || e.Process.isDead() {
		return true, nil
	}
	seen := time.Now() // after the reading: the holder's last beat is older
	tick := time.NewTicker(l.options.Beat / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("lock the store: %w", context.Cause(ctx))
		case <-tick.C:
		}
		// Taken before the reading: a heartbeat that is the same after this time
		// was not rewritten in between.
		waited := time.Since(seen)
		now, err := l.readBeat(ctx, n)
		if err != nil {
			return false, err
		}
		switch {
		case released(now):
			return true, nil
		case !bytes.Equal(first, now):
			return false, lockedBy(e.Holder)
		case waited > l.options.takeover():
			return l.stillHighest(ctx, n)
		}
	}
}

// stillHighest makes sure that nobody else took over meanwhile.
func (l *lock) stillHighest(ctx context.Context, n uint64) (bool, error) {
	highest, err := l.highest(ctx)
	return err == nil && highest == n, err
}

// readBeat returns nil where the holder has not beaten yet.
func (l *lock) readBeat(ctx context.Context, n uint64) ([]byte, error) {
	text, err := l.objects.Read(ctx, beatName(n))
	if errors.Is(err, store.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the heartbeat of the store's lock: %w", err)
	}
	return text, nil
}

func released(text []byte) bool {
	var b beat
	return json.Unmarshal(text, &b) == nil && b.Released
}
