package pgcopy

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"dbbackup/internal/bytesize"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/report"
)

// Manners say how much of the server a capture may take, and when it steps back.
type Manners struct {
	Rate       *rate.Limiter // bytes of COPY streams per second, over all captures; nil: no limit
	MaxLag     int64         // bytes of WAL a standby may lag behind before reading pauses; 0: no limit
	YieldToDDL bool          // give up the locks when somebody waits for them
}

// NewRate returns a limiter of so many bytes per second; nil for 0.
func NewRate(bytesPerSecond int64) *rate.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytesPerSecond), int(max(bytesPerSecond, copyPiece)))
}

// copyPiece is the largest piece that passes a gate at once.
const copyPiece = 256 << 10

// gate is what every piece of a stream passes before it is taken from the
// server.
type gate struct {
	rate *rate.Limiter

	mu     sync.Mutex
	opened chan struct{} // closed while the gate is open
	shut   bool
}

func newGate(limiter *rate.Limiter) *gate {
	g := &gate{rate: limiter, opened: make(chan struct{})}
	close(g.opened)
	return g
}

// pass waits until bytes may pass.
func (g *gate) pass(ctx context.Context, bytes int) error {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	select {
	case <-opened:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if g.rate == nil {
		return nil
	}
	return g.rate.WaitN(ctx, bytes)
}

// set shuts or opens the gate, and reports whether that changed something.
func (g *gate) set(shut bool) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut == shut {
		return false
	}
	g.shut = shut
	if shut {
		g.opened = make(chan struct{})
	} else {
		close(g.opened)
	}
	return true
}

// behaveEvery is how often the server is asked whether somebody suffers.
const behaveEvery = time.Second

// ErrYielded ends an attempt whose locks somebody waits for.
var ErrYielded = fault.New(fault.Unavailable, "", "gave way to a session that waited for our locks (--yield-to-ddl)")

// behave looks, until ctx ends, for sessions that wait for this capture and for
// standbys that fall behind. A watch that cannot connect watches nothing: it must not fail
// a capture that works.
func (c *capture) behave(ctx context.Context) error {
	ticker := time.NewTicker(behaveEvery)
	defer ticker.Stop()
	var conn *pg.Conn // from the first look on: most captures are over before
	defer func() {
		if conn != nil {
			conn.Close(ctx) //nolint:errcheck // read-only
		}
	}()
	told := map[int]bool{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if conn == nil {
			var err error
			if conn, err = c.src.Endpoint.Connect(ctx, c.src.Endpoint.Database); err != nil {
				return nil
			}
		}
		if err := c.lookForBlocked(ctx, conn, told); err != nil {
			return err
		}
		if c.req.Manners.MaxLag > 0 {
			c.lookForLag(ctx, conn)
		}
	}
}

func (c *capture) lookForBlocked(ctx context.Context, conn *pg.Conn, told map[int]bool) error {
	blocked, err := conn.BlockedByUs(ctx, c.snapshot.pids())
	if err != nil {
		return nil // as above
	}
	for _, b := range blocked {
		if !told[b.PID] {
			told[b.PID] = true
			c.report.Warn("a session waits for a lock of this backup, and others may wait behind it",
				report.F("database", c.req.Database), report.F("waiting", b.String()))
		}
		if c.req.Manners.YieldToDDL {
			return ErrYielded
		}
	}
	if len(blocked) == 0 {
		return nil
	}
	// pg_dump behind one of them would wait for ever for the leader.
	if waits, err := conn.WaitsForLock(ctx, c.application, c.snapshot.pids()); err == nil && waits {
		return errQueued
	}
	return nil
}

func (c *capture) lookForLag(ctx context.Context, conn *pg.Conn) {
	lag, err := conn.ReplicationLag(ctx)
	if err != nil {
		return
	}
	shut := lag > c.req.Manners.MaxLag
	if shut {
		c.signs.Add(1) // waiting is no stall
	}
	if !c.manners.set(shut) {
		return
	}
	message := "replication has caught up; reading goes on"
	if shut {
		message = "reading pauses, because replication lags behind"
	}
	c.report.Info(message, report.F("database", c.req.Database), report.F("lag", bytesize.Format(lag)))
}
