package pgcopy

import (
	"container/heap"
	"sync"

	"dbbackup/internal/backupset"
)

// loadJob is a chunk to load.
type loadJob struct {
	table *backupset.ChunkedTable
	chunk *backupset.Chunk
	step  string
}

// loadQueue hands out chunks to the sessions that load. Sessions that fill one
// table wait for each other whenever it grows, so they are spread over the tables;
// what is left when there are fewer tables than sessions, several of them share.
type loadQueue struct {
	mu     sync.Mutex
	tables tableLoads
}

// newLoadQueue takes jobs in the order in which those of one table are wanted.
func newLoadQueue(jobs []loadJob) *loadQueue {
	q := &loadQueue{}
	of := map[*backupset.ChunkedTable]*tableLoad{}
	for _, j := range jobs {
		t := of[j.table]
		if t == nil {
			t = &tableLoad{index: len(q.tables)}
			of[j.table] = t
			q.tables = append(q.tables, t)
		}
		t.jobs = append(t.jobs, j)
		t.bytes += j.chunk.RawBytes
	}
	heap.Init(&q.tables)
	return q
}

// next returns a chunk of the table that the fewest sessions load, and among such
// tables of the one of which most is left; false when all are handed out. The
// caller calls done when it is over.
func (q *loadQueue) next() (j loadJob, done func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.tables) == 0 {
		return loadJob{}, nil, false
	}
	t := q.tables[0]
	j, t.jobs = t.jobs[0], t.jobs[1:]
	t.bytes -= j.chunk.RawBytes
	t.sessions++
	if len(t.jobs) == 0 {
		heap.Pop(&q.tables)
	} else {
		heap.Fix(&q.tables, 0)
	}
	return j, func() { q.done(t) }, true
}

func (q *loadQueue) done(t *tableLoad) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t.sessions--
	if t.index >= 0 {
		heap.Fix(&q.tables, t.index)
	}
}

// tableLoad is what of one table is still to be handed out.
type tableLoad struct {
	jobs     []loadJob
	bytes    int64
	sessions int // that load it now
	index    int // in the heap; -1: out of it
}

// tableLoads is a heap with the table on top whose chunk comes next.
type tableLoads []*tableLoad

func (t tableLoads) Len() int { return len(t) }
func (t tableLoads) Less(i, j int) bool {
	if t[i].sessions != t[j].sessions {
		return t[i].sessions < t[j].sessions
	}
	return t[i].bytes > t[j].bytes
}
func (t tableLoads) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}
func (t *tableLoads) Push(x any) {
	one := x.(*tableLoad) //nolint:forcetypeassert // nothing else is in it
	one.index = len(*t)
	*t = append(*t, one)
}
func (t *tableLoads) Pop() any {
	old := *t
	last := old[len(old)-1]
	last.index = -1
	*t = old[:len(old)-1]
	return last
}
