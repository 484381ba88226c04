package pgcopy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
)

// exporter is a session that holds the snapshot and can export it once more.
type exporter interface {
	ExportSnapshot(ctx context.Context) (string, error)
	Ping(ctx context.Context) error
	Close(ctx context.Context) error
	PID() uint32
}

// snapshot is an exported snapshot and the sessions that hold it. A transaction
// that imported a snapshot can export it again, so that as long as one of them
// lives, a session that was lost is replaced under the same snapshot.
type snapshot struct {
	endpoint *pg.Endpoint
	database string
	pg.Snapshot

	mu      sync.Mutex
	changed *sync.Cond
	name    string // to import it by
	keepers []*keeper
	workers map[*pg.Stream]use
	wanted  bool // somebody waits for a worker to export it again
}

// use is what a worker's session is used for at the moment.
type use int

const (
	working   use = iota
	idle          // anybody may export the snapshot by it
	exporting     // somebody does
)

// keeper is a session that does nothing but hold the snapshot.
type keeper struct {
	pid atomic.Uint32

	mu      sync.Mutex // a session takes one statement at a time
	session exporter
	lost    bool
}

func newKeeper(session exporter) *keeper {
	k := &keeper{session: session}
	k.pid.Store(session.PID())
	return k
}

func newSnapshot(endpoint *pg.Endpoint, database string, s pg.Snapshot, first exporter) *snapshot {
	k := &snapshot{
		endpoint: endpoint, database: database, Snapshot: s, name: s.Name,
		keepers: []*keeper{newKeeper(first)}, workers: map[*pg.Stream]use{},
	}
	k.changed = sync.NewCond(&k.mu)
	return k
}

// close ends the sessions that keep the snapshot, but not its workers'.
func (s *snapshot) close(ctx context.Context) {
	s.mu.Lock()
	keepers := s.keepers
	s.keepers = nil
	s.mu.Unlock()
	for _, k := range keepers {
		_ = k.session.Close(ctx) // read-only: nothing is lost
	}
}

// pids are the backends that hold the snapshot.
func (s *snapshot) pids() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var pids []uint32
	for _, k := range s.keepers {
		pids = append(pids, k.pid.Load())
	}
	for w := range s.workers {
		pids = append(pids, w.PID())
	}
	return pids
}

// exported is the name to import the snapshot by.
func (s *snapshot) exported() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name
}

// join opens a session under the snapshot. The error is fault.Unavailable when
// nobody holds the snapshot any more.
func (s *snapshot) join(ctx context.Context) (*pg.Stream, error) {
	for {
		stream, err := s.endpoint.ConnectStream(ctx, s.database)
		if err != nil {
			return nil, err
		}
		name := s.exported()
		err = stream.ImportSnapshot(ctx, name)
		if err == nil {
			return stream, nil
		}
		_ = stream.Close(ctx) // it was never used
		if !pg.IsUnknownSnapshot(err) {
			return nil, err
		}
		if err := s.exportAgain(ctx, name); err != nil {
			return nil, err
		}
	}
}

// joinWorker is join for a session that reads. Between two chunks it exports the
// snapshot when no keeper is left.
func (s *snapshot) joinWorker(ctx context.Context) (*pg.Stream, error) {
	stream, err := s.join(ctx)
	if err != nil {
		return nil, err
	}
	if err := stream.WaitForLocks(ctx, queueWait); err != nil {
		return nil, errors.Join(err, stream.Close(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers[stream] = working
	return stream, nil
}

// claim takes a worker's session back from its rest.
func (s *snapshot) claim(stream *pg.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.await(stream)
	s.workers[stream] = working
}

// await waits until nobody exports by a session.
func (s *snapshot) await(stream *pg.Stream) {
	for s.workers[stream] == exporting {
		s.changed.Wait()
	}
}

// rest says that a worker's session has nothing to do until it is claimed. Its
// worker may have no further chunk, and then would never offer it.
func (s *snapshot) rest(stream *pg.Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.workers[stream] = idle
	s.changed.Broadcast()
}

// leave takes a worker's session away and closes it.
func (s *snapshot) leave(ctx context.Context, stream *pg.Stream) {
	s.mu.Lock()
	s.await(stream)
	delete(s.workers, stream)
	s.changed.Broadcast()
	s.mu.Unlock()
	_ = stream.Close(ctx) // read-only: nothing is lost
}

// exportAgain replaces the name that stale was, by asking those who still hold
// the snapshot.
func (s *snapshot) exportAgain(ctx context.Context, stale string) error {
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.name == stale {
		for _, k := range slices.Clone(s.keepers) {
			s.mu.Unlock()
			name, err := k.export(ctx)
			s.mu.Lock()
			if err == nil {
				s.name = name
				return nil
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.name != stale || s.exportIdle(ctx) {
			return nil
		}
		if len(s.workers) == 0 {
			return errSnapshotLost
		}
		s.wanted = true
		s.changed.Wait()
	}
	return nil
}

// exportIdle asks the sessions of workers that have nothing to do. Those that turn
// out to be lost hold nothing any more. s.mu is given up meanwhile.
func (s *snapshot) exportIdle(ctx context.Context) bool {
	for {
		var stream *pg.Stream
		for one, use := range s.workers {
			if use == idle {
				stream = one
			}
		}
		if stream == nil {
			return false
		}
		s.workers[stream] = exporting
		s.mu.Unlock()
		name, err := stream.ExportSnapshot(ctx)
		s.mu.Lock()
		delete(s.workers, stream)
		if err == nil {
			s.workers[stream] = idle
			s.name = name
		}
		s.changed.Broadcast()
		if err == nil {
			return true
		}
	}
}

var errSessionLost = errors.New("the session is lost")

var errSnapshotLost = fault.New(fault.Unavailable, "", "all sessions that held the snapshot are lost")

func (k *keeper) export(ctx context.Context) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.lost {
		return "", errSessionLost
	}
	name, err := k.session.ExportSnapshot(ctx)
	if err != nil && pg.Lost(err) {
		k.lost = true
	}
	return name, err
}

// offer lets a worker's session, between two chunks, export the snapshot when
// that is wanted.
func (s *snapshot) offer(ctx context.Context, stream *pg.Stream) {
	s.mu.Lock()
	wanted := s.wanted
	s.mu.Unlock()
	if !wanted {
		return
	}
	name, err := stream.ExportSnapshot(ctx)
	if err != nil {
		return // the chunk that comes next finds out
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name, s.wanted = name, false
	s.changed.Broadcast()
}

// pingEvery keeps the sessions from looking idle to whoever is in between, and
// is how late a loss is noticed.
const pingEvery = 5 * time.Second

// keep pings the keepers now and then until ctx ends, and calls lost with each that is gone.
func (s *snapshot) keep(ctx context.Context, every time.Duration, lost func(ctx context.Context, k *keeper) error) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		s.mu.Lock()
		keepers := slices.Clone(s.keepers)
		s.mu.Unlock()
		for _, k := range keepers {
			if k.alive(ctx) || ctx.Err() != nil {
				continue
			}
			if err := lost(ctx, k); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// held reports whether all keepers are alive.
func (s *snapshot) held(ctx context.Context) bool {
	s.mu.Lock()
	keepers := slices.Clone(s.keepers)
	s.mu.Unlock()
	return !slices.ContainsFunc(keepers, func(k *keeper) bool { return !k.alive(ctx) })
}

func (k *keeper) alive(ctx context.Context) bool {
	if !k.mu.TryLock() {
		return true // it is in use, and who uses it finds out
	}
	defer k.mu.Unlock()
	if !k.lost && k.session.Ping(ctx) != nil && ctx.Err() == nil {
		k.lost = true
	}
	return !k.lost
}

// replace puts a new session in the place of a keeper that was lost.
func (s *snapshot) replace(ctx context.Context, k *keeper, by exporter) error {
	name, err := by.ExportSnapshot(ctx)
	if err != nil {
		return fmt.Errorf("keep the snapshot: %w", err)
	}
	k.mu.Lock()
	old := k.session
	k.session, k.lost = by, false
	k.pid.Store(by.PID())
	k.mu.Unlock()
	_ = old.Close(ctx) // it is lost
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name = name
	return nil
}

func (s *snapshot) addKeeper(session exporter) *keeper {
	k := newKeeper(session)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepers = append(s.keepers, k)
	return k
}
