package pgcopy

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// A slot that becomes free goes to the largest that waits.
func TestPoolLargestFirst(t *testing.T) {
	p := NewPool(1)
	release, err := p.take(t.Context(), 1)
	must(t, err)
	order := make(chan int64, 10)
	var waiting sync.WaitGroup
	for _, bytes := range []int64{5, 50, 7, 500, 6} {
		waiting.Go(func() {
			release, err := p.take(t.Context(), bytes)
			if err != nil {
				t.Error(err)
				return
			}
			order <- bytes
			release()
		})
	}
	eventually(t, "all wait", func() bool { return p.waits() == 5 })
	release()
	waiting.Wait()
	for _, want := range []int64{500, 50, 7, 6, 5} {
		if got := <-order; got != want {
			t.Errorf("a slot was given to %d, want %d", got, want)
		}
	}
}

func (p *Pool) waits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting.Len()
}

// Whoever stops waiting takes no slot with him, however that falls together with
// getting one.
func TestPoolLosesNoSlot(t *testing.T) {
	const slots = 3
	p := NewPool(slots)
	var holding, most int
	var mu sync.Mutex
	var running sync.WaitGroup
	for i := range 40 {
		running.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1)) //nolint:gosec // not for secrets
			for range 60 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(400))*time.Microsecond)
				release, err := p.take(ctx, r.Int64N(1000))
				if err == nil {
					mu.Lock()
					holding++
					most = max(most, holding)
					mu.Unlock()
					pause(ctx, time.Duration(r.IntN(100))*time.Microsecond)
					mu.Lock()
					holding--
					mu.Unlock()
					release()
				}
				cancel()
			}
		})
	}
	running.Wait()
	if most > slots {
		t.Errorf("%d held one of %d slots at a time", most, slots)
	}
	if p.free != slots || p.waits() != 0 {
		t.Errorf("%d slots are free and %d wait, want %d and none", p.free, p.waits(), slots)
	}
}

// The queue gives the largest job first, takes jobs that jobs add, and ends when
// nothing is left and nobody works.
func TestQueue(t *testing.T) {
	q := newQueue()
	var mu sync.Mutex
	ran := map[string]int{}
	var add func(depth int, bytes int64)
	add = func(depth int, bytes int64) {
		q.add(&job{bytes: bytes, what: "job", run: func(context.Context, *worker) error {
			mu.Lock()
			ran["job"]++
			mu.Unlock()
			for i := range depth {
				add(depth-1, int64(i))
			}
			return nil
		}})
	}
	add(5, 1)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for j := q.next(); j != nil; j = q.next() {
				_ = j.run(t.Context(), nil)
				q.done()
			}
		})
	}
	workers.Wait()
	if want := 1 + 5*(1+4*(1+3*(1+2*(1+1)))); ran["job"] != want {
		t.Errorf("%d jobs ran, want %d", ran["job"], want)
	}
	for _, bytes := range []int64{3, 9, 1} {
		q.add(&job{bytes: bytes})
	}
	for _, want := range []int64{9, 3, 1} {
		if j := q.next(); j.bytes != want {
			t.Errorf("job of %d bytes, want %d", j.bytes, want)
		}
		q.done()
	}
	q.add(&job{})
	q.end()
	if q.next() != nil {
		t.Error("a queue that was ended gives a job")
	}
}
