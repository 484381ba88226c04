package pgdump

import (
	"context"
	"sync"
	"time"

	"dbbackup/internal/child"
	"dbbackup/internal/report"
)

// progress answers how far a capture or replay is. It is asked by the
// watchdog and by the display while the work runs.
type progress struct {
	mu    sync.Mutex
	bytes func() int64
	signs func() int64
}

// watch says where the bytes so far can be read, and a number that grows with
// every sign of life, bytes or not.
func (p *progress) watch(bytes, signs func() int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes, p.signs = bytes, signs
}

func (p *progress) moved() int64 { return p.ask(func() func() int64 { return p.bytes }) }
func (p *progress) alive() int64 { return p.ask(func() func() int64 { return p.signs }) }

func (p *progress) ask(which func() func() int64) int64 {
	p.mu.Lock()
	f := which()
	p.mu.Unlock()
	if f == nil {
		return 0
	}
	return f()
}

// signsOf adds a child's processor time, in hundredths of a second, to the
// bytes it moved: while it reads the catalog, or builds an index, it moves none.
func signsOf(p *child.Process, bytes func() int64) func() int64 {
	return func() int64 {
		used, _ := p.CPUTime()
		return bytes() + used.Milliseconds()/10
	}
}

// remembered asks f at most once a second: counting the files of a directory
// dump with thousands of tables costs.
func remembered(f func() int64) func() int64 {
	var mu sync.Mutex
	var asked time.Time
	var last int64
	return func() int64 {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(asked) >= time.Second {
			last, asked = f(), time.Now()
		}
		return last
	}
}

const reportEvery = 200 * time.Millisecond

// report tells the task the progress until the returned function is called,
// which waits for the last word.
func (p *progress) report(ctx context.Context, task report.Task) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(reportEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				task.Progress(p.moved())
				return
			case <-ticker.C:
				task.Progress(p.moved())
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
