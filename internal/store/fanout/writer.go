package fanout

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dbbackup/internal/store"
)

// queued is how many writes of one object may wait for a store that is slower
// than the others for a moment.
const queued = 8

// Create begins the object in all stores.
func (s *Stores) Create(ctx context.Context, key string, expect int64) (store.Writer, error) {
	w := &writer{stores: s, ctx: ctx}
	var mu sync.Mutex
	taken := func(err error) bool { return errors.Is(err, store.ErrExist) || store.CheckKey(key) != nil }
	err := s.each(ctx, taken, func(m *member) error {
		out, err := m.Create(ctx, key, expect)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		w.branches = append(w.branches, newBranch(m, out))
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

// writer is one object on its way to several stores.
type writer struct {
	stores   *Stores
	ctx      context.Context //nolint:containedctx // a store.Writer's methods have none; it holds until the object has ended
	branches []*branch
	err      error // final
	ended    bool
}

// branch is the object on its way to one store: a goroutine that writes what is
// queued, so that a store which stops answering can be left behind.
type branch struct {
	member *member
	out    store.Writer
	queue  chan []byte
	done   chan struct{}
	err    error // of the writes; valid when done is closed
}

func newBranch(m *member, out store.Writer) *branch {
	b := &branch{member: m, out: out, queue: make(chan []byte, queued), done: make(chan struct{})}
	go b.run()
	return b
}

func (b *branch) run() {
	defer close(b.done)
	for p := range b.queue {
		if b.err == nil {
			_, b.err = b.out.Write(p)
		}
	}
}

// Write hands p to all stores. What a store says against it is found out by a
// later call.
func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil || w.ended {
		return 0, errors.Join(w.err, w.endedError("write"))
	}
	copied := append([]byte(nil), p...) // the caller uses p again
	patience := time.NewTimer(w.stores.o.Patience)
	defer patience.Stop()
	for _, b := range w.branches {
		if !w.stores.has(b.member) {
			continue
		}
		select {
		case b.queue <- copied:
			continue
		default:
		}
		select {
		case b.queue <- copied:
		case <-patience.C:
			w.stores.leave(b.member, fmt.Errorf("it kept the other stores waiting for %s", w.stores.o.Patience))
			patience.Reset(w.stores.o.Patience)
		case <-w.ctx.Done():
			w.err = context.Cause(w.ctx)
			return 0, w.err
		}
	}
	if w.err = w.stores.enough(); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

func (w *writer) endedError(step string) error {
	if w.ended {
		return fmt.Errorf("%s: the object has ended", step)
	}
	return nil
}

// Commit commits in all stores that have every byte. One that fails falls behind.
func (w *writer) Commit() error {
	if w.err != nil || w.ended {
		return errors.Join(w.err, w.endedError("commit"))
	}
	w.ended = true
	exists := func(err error) bool { return errors.Is(err, store.ErrExist) }
	w.err = w.finish(exists, func(b *branch) error {
		close(b.queue)
		<-b.done
		if b.err != nil {
			return errors.Join(b.err, b.out.Abort())
		}
		return b.out.Commit()
	})
	return w.err
}

// finish ends all branches at once. Whoever needs longer than the patience after the
// quorum is reached falls behind.
func (w *writer) finish(tell func(error) bool, do func(*branch) error) error {
	type result struct {
		b   *branch
		err error
	}
	results := make(chan result, len(w.branches))
	waiting := map[*branch]bool{}
	for _, b := range w.branches {
		if !w.stores.has(b.member) {
			w.abandon(b)
			continue
		}
		waiting[b] = true
		go func() { results <- result{b, do(b)} }()
	}
	var patience <-chan time.Time
	var told error
	good := 0
	for len(waiting) > 0 {
		select {
		case r := <-results:
			delete(waiting, r.b)
			switch {
			case r.err == nil:
				good++
			case w.ctx.Err() != nil, tell(r.err):
				told = errors.Join(told, r.err)
			default:
				w.stores.leave(r.b.member, r.err)
			}
			if patience == nil && good >= w.stores.o.Quorum {
				patience = time.After(w.stores.o.Patience)
			}
		case <-patience:
			for b := range waiting {
				w.stores.leave(b.member, fmt.Errorf("it kept the other stores waiting for %s", w.stores.o.Patience))
				delete(waiting, b)
			}
		}
	}
	if told != nil {
		return told
	}
	return w.stores.enough()
}

// abandon ends the object in a store that fell behind, without waiting for it.
func (w *writer) abandon(b *branch) {
	go func() {
		close(b.queue)
		<-b.done
		_ = b.out.Abort() // gc finds what stays
	}()
}

// Abort discards the object in all stores.
func (w *writer) Abort() error {
	if w.ended {
		return nil
	}
	w.ended = true
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	for _, b := range w.branches {
		if !w.stores.has(b.member) {
			w.abandon(b)
			continue
		}
		wg.Go(func() {
			close(b.queue)
			<-b.done
			err := b.out.Abort()
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
