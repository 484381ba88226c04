package pgcopy

import (
	"fmt"
	"sync"
	"testing"

	"dbbackup/internal/backupset"
)

// chunksOf are the jobs of tables whose chunks have so many bytes.
func chunksOf(tables ...[]int64) []loadJob {
	var jobs []loadJob
	for i, chunks := range tables {
		t := &backupset.ChunkedTable{Name: fmt.Sprint(i)}
		for j, bytes := range chunks {
			jobs = append(jobs, loadJob{t, &backupset.Chunk{Piece: backupset.Piece{RawBytes: bytes}}, fmt.Sprint(i, " ", j)})
		}
	}
	return jobs
}

// Sessions begin with a table each, that of which most is left first, and share
// what is left in the end.
func TestLoadQueueSpreads(t *testing.T) {
	q := newLoadQueue(chunksOf([]int64{10}, []int64{50, 40, 30}, []int64{60}))
	want := func(step string) (done func()) {
		t.Helper()
		j, done, ok := q.next()
		if !ok || j.step != step {
			t.Fatalf("got %q, %t, want %q", j.step, ok, step)
		}
		return done
	}
	first := want("1 0")  // 120 bytes
	second := want("2 0") // 60, and nobody at it
	first()
	third := want("1 1")
	second()
	fourth := want("0 0") // less than what is left of 1, where a session is at work
	fifth := want("1 2")  // nothing else is left
	for _, done := range []func(){third, fourth, fifth} {
		done()
	}
	if j, _, ok := q.next(); ok {
		t.Errorf("%q is left", j.step)
	}
}

// Every chunk is handed out once, whatever the sessions.
func TestLoadQueueHandsOutOnce(t *testing.T) {
	var tables [][]int64
	total := 0
	for i := range 100 {
		chunks := make([]int64, 1+i%7)
		for j := range chunks {
			chunks[j] = int64(i * 1000 / (j + 1))
		}
		tables, total = append(tables, chunks), total+len(chunks)
	}
	q := newLoadQueue(chunksOf(tables...))
	var mu sync.Mutex
	times := map[string]int{}
	var sessions sync.WaitGroup
	for range 8 {
		sessions.Go(func() {
			for {
				j, done, ok := q.next()
				if !ok {
					return
				}
				mu.Lock()
				times[j.step]++
				mu.Unlock()
				done()
			}
		})
	}
	sessions.Wait()
	if len(times) != total {
		t.Errorf("%d chunks were handed out, want %d", len(times), total)
	}
	for step, n := range times {
		if n != 1 {
			t.Errorf("chunk %s was handed out %d times", step, n)
		}
	}
}
