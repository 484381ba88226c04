package pgcopy

import (
	"container/heap"
	"context"
	"sync"
)

// job is a piece of work of one worker.
type job struct {
	bytes int64  // how much it is about, estimated
	what  string // for messages
	run   func(ctx context.Context, w *worker) error
}

// queue holds the jobs of one database, the largest first. A job may add
// others. It is over when it is empty and nobody works any more.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	jobs    jobs
	working int
	ended   bool // somebody failed
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

func (q *queue) add(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	heap.Push(&q.jobs, j)
	q.changed.Signal()
}

// next waits for a job; nil when there will be none. done must be called for
// each.
func (q *queue) next() *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.jobs.Len() == 0 && q.working > 0 && !q.ended {
		q.changed.Wait()
	}
	if q.jobs.Len() == 0 || q.ended {
		q.changed.Broadcast()
		return nil
	}
	q.working++
	return heap.Pop(&q.jobs).(*job) //nolint:forcetypeassert // nothing else is in it
}

func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.working--
	q.changed.Broadcast()
}

// end makes next return nil from now on.
func (q *queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.changed.Broadcast()
}

type jobs []*job

func (j jobs) Len() int           { return len(j) }
func (j jobs) Less(a, b int) bool { return j[a].bytes > j[b].bytes }
func (j jobs) Swap(a, b int)      { j[a], j[b] = j[b], j[a] }
func (j *jobs) Push(x any)        { *j = append(*j, x.(*job)) } //nolint:forcetypeassert // as above
func (j *jobs) Pop() any {
	old := *j
	last := old[len(old)-1]
	*j = old[:len(old)-1]
	return last
}
