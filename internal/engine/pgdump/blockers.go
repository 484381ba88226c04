package pgdump

import (
	"context"
	"sync"
	"time"

	"dbbackup/internal/pg"
	"dbbackup/internal/report"
)

// Blockers remembers who stood in the way of a capture: pg_dump itself only
// says that a lock timed out.
type Blockers struct {
	mu   sync.Mutex
	text string
	seen time.Time
}

const lookForBlockersEvery = time.Second

// watch looks for lock waits until the returned function is called, which
// waits for the watch to end. A watch that cannot connect watches nothing: it
// must not fail a capture that works.
func (b *Blockers) watch(ctx context.Context, e *pg.Endpoint, application string, r report.Reporter, database string) (stop func()) {
	return b.look(ctx, e, r, database, func(ctx context.Context, conn *pg.Conn) ([]pg.Blocker, error) {
		return conn.Blockers(ctx, application)
	})
}

// WatchPID is watch for one backend.
func (b *Blockers) WatchPID(ctx context.Context, e *pg.Endpoint, pid uint32, r report.Reporter, database string) (stop func()) {
	return b.look(ctx, e, r, database, func(ctx context.Context, conn *pg.Conn) ([]pg.Blocker, error) {
		return conn.BlockersOf(ctx, pid)
	})
}

func (b *Blockers) look(ctx context.Context, e *pg.Endpoint, r report.Reporter, database string, ask func(context.Context, *pg.Conn) ([]pg.Blocker, error)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		conn, err := e.Connect(ctx, e.Database)
		if err != nil {
			return
		}
		defer conn.Close(ctx) //nolint:errcheck // read-only
		ticker := time.NewTicker(lookForBlockersEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			found, err := ask(ctx, conn)
			if err != nil {
				return
			}
			b.remember(found, r, database)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// remember keeps the first of those found, and tells when there was none
// before.
func (b *Blockers) remember(found []pg.Blocker, r report.Reporter, database string) {
	if len(found) == 0 {
		return
	}
	b.mu.Lock()
	first := b.text == ""
	b.text, b.seen = found[0].String(), time.Now()
	text := b.text
	b.mu.Unlock()
	if first {
		r.Warn("waiting for a lock that another session holds", report.F("database", database), report.F("holder", text))
	}
}

// Recent returns who stood in the way just now, or nothing.
func (b *Blockers) Recent() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.seen) > 5*lookForBlockersEvery {
		return ""
	}
	return b.text
}
