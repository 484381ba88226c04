package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dbbackup/internal/store"
)

// Lock takes the locks of all stores. A lock that another run holds, in any of
// them, is returned; a store that cannot be locked for another reason falls
// behind, and so does one whose lock is lost later. held ends when so many locks
// were lost that the quorum cannot be reached.
func (s *Stores) Lock(ctx context.Context, holder store.Holder) (held context.Context, release func() error, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("lock the stores: %w", err)
	}
	held, lose := context.WithCancelCause(ctx)
	var locks []memberLock
	free := func() error {
		err := s.free(locks)
		lose(nil)
		return err
	}
	for _, m := range s.current() {
		own, release, err := m.Lock(ctx, holder)
		var locked *store.LockedError
		switch {
		case err == nil:
			locks = append(locks, memberLock{m, release, s.watch(ctx, m, own, lose)})
		case errors.As(err, &locked), ctx.Err() != nil:
			return nil, nil, errors.Join(err, free())
		default:
			s.leave(m, err)
		}
	}
	if err := s.enough(); err != nil {
		return nil, nil, errors.Join(err, free())
	}
	return held, sync.OnceValue(free), nil
}

// memberLock is the lock of one store.
type memberLock struct {
	member  *member
	release func() error
	unwatch func() bool
}

// watch lets a store fall behind when its lock, whose context is own, is lost: it
// is out of reach, or another run's.
func (s *Stores) watch(ctx context.Context, m *member, own context.Context, lose context.CancelCauseFunc) (unwatch func() bool) {
	return context.AfterFunc(own, func() {
		if ctx.Err() != nil {
			return // the run ends; no store is to blame
		}
		s.leave(m, context.Cause(own))
		if err := s.enough(); err != nil {
			lose(err)
		}
	})
}

// free gives back all locks at once.
func (s *Stores) free(locks []memberLock) error {
	errs := make([]error, len(locks))
	var wg sync.WaitGroup
	for i, l := range locks {
		l.unwatch()
		wg.Go(func() { errs[i] = s.freeOne(l) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// freeOne gives back one lock. That of a store which fell behind is tried for no
// longer than the patience, and that it failed is no news: without a heartbeat it
// is taken over by the next run.
func (s *Stores) freeOne(l memberLock) error {
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = l.release()
	}()
	if s.has(l.member) {
		<-done
		return err
	}
	patience := time.NewTimer(s.o.Patience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
	return nil
}
