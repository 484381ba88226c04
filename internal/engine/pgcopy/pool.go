package pgcopy

import (
	"container/heap"
	"context"
	"sync"
)

// Pool bounds how many chunks are read at a time, over all databases of a run.
// A slot that becomes free goes to the largest chunk that waits.
type Pool struct {
	mu      sync.Mutex
	free    int
	waiting waiters
}

// NewPool returns a pool of so many slots.
func NewPool(slots int) *Pool { return &Pool{free: slots} }

// take waits for a slot. The caller gives it back.
func (p *Pool) take(ctx context.Context, bytes int64) (release func(), err error) {
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return p.give, nil
	}
	w := &waiter{bytes: bytes, granted: make(chan struct{})}
	heap.Push(&p.waiting, w)
	p.mu.Unlock()
	select {
	case <-w.granted:
		return p.give, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.index < 0 { // granted meanwhile
		p.giveLocked()
	} else {
		heap.Remove(&p.waiting, w.index)
	}
	return nil, context.Cause(ctx)
}

func (p *Pool) give() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.giveLocked()
}

func (p *Pool) giveLocked() {
	if p.waiting.Len() == 0 {
		p.free++
		return
	}
	w := heap.Pop(&p.waiting).(*waiter) //nolint:forcetypeassert // nothing else is in it
	close(w.granted)
}

type waiter struct {
	bytes   int64
	index   int // in the heap; -1: out of it
	granted chan struct{}
}

// waiters is a heap with the largest first.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].bytes > w[j].bytes }
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].index, w[j].index = i, j
}
func (w *waiters) Push(x any) {
	one := x.(*waiter) //nolint:forcetypeassert // as above
	one.index = len(*w)
	*w = append(*w, one)
}
func (w *waiters) Pop() any {
	old := *w
	last := old[len(old)-1]
	last.index = -1
	*w = old[:len(old)-1]
	return last
}
