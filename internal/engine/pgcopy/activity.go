package pgcopy

import (
	"context"
	"sync"
	"time"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/report"
)

// activity is what the workers are at, for lines in the log.
type activity struct {
	mu      sync.Mutex
	streams map[*sink]*streamed
}

type streamed struct {
	table      string
	began      time.Time
	rows, raw  int64
	toldMoment time.Time
}

func (a *activity) begin(table string, s *sink) (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.streams == nil {
		a.streams = map[*sink]*streamed{}
	}
	now := time.Now()
	a.streams[s] = &streamed{table: table, began: now, toldMoment: now}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.streams, s)
	}
}

func (a *activity) moved(s *sink, rows, raw int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if one, ok := a.streams[s]; ok {
		one.rows, one.raw = rows, raw
	}
}

// A stream is told of after so long, and then again after as long.
const tellEvery = 10 * time.Second

// due returns the streams to tell of now.
func (a *activity) due(now time.Time) []streamed {
	a.mu.Lock()
	defer a.mu.Unlock()
	var due []streamed
	for _, one := range a.streams {
		if now.Sub(one.toldMoment) >= tellEvery {
			one.toldMoment = now
			due = append(due, *one)
		}
	}
	return due
}

const progressEvery = 200 * time.Millisecond

// tell reports progress until ctx ends.
func (c *capture) tell(ctx context.Context) error {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			c.task.Progress(c.stored.Load())
			return nil
		case now := <-ticker.C:
			c.task.Progress(c.stored.Load())
			for _, one := range c.active.due(now) {
				rate := float64(one.raw) / now.Sub(one.began).Seconds()
				c.report.Info("reading table", report.F("database", c.req.Database), report.F("table", one.table),
					report.F("rows", one.rows), report.F("bytes", bytesize.Format(one.raw)), report.F("rate", bytesize.Format(int64(rate))+"/s"))
			}
		}
	}
}
