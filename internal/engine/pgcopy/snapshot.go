package pgcopy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
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
	workers map[*pg.Stream]bool
	wanted  bool // somebody waits for a worker to export it again
}

// keeper is a session that does nothing but hold the snapshot.
type keeper struct {
	mu      sync.Mutex // a session takes one statement at a time
	session exporter
	lost    bool
}

func newSnapshot(endpoint *pg.Endpoint, database string, s pg.Snapshot, first exporter) *snapshot {
	k := &snapshot{
		endpoint: endpoint, database: database, Snapshot: s, name: s.Name,
		keepers: []*keeper{{session: first}}, workers: map[*pg.Stream]bool{},
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
		pids = append(pids, k.session.PID())
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

// joinWorker is join for a session that reads, and is asked to export the
// snapshot between two chunks when no keeper is left.
func (s *snapshot) joinWorker(ctx context.Context) (*pg.Stream, error) {
	stream, err := s.join(ctx)
	if err == nil {
		s.mu.Lock()
		s.workers[stream] = true
		s.mu.Unlock()
	}
	return stream, err
}

// leave takes a worker's session away and closes it.
func (s *snapshot) leave(ctx context.Context, stream *pg.Stream) {
	s.mu.Lock()
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
		if s.name != stale {
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

// keep pings the keepers until ctx ends, and calls lost with each that is gone.
func (s *snapshot) keep(ctx context.Context, lost func(ctx context.Context, k *keeper) error) error {
	ticker := time.NewTicker(pingEvery)
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
			if err := lost(ctx, k); err != nil {
				return err
			}
		}
	}
}

func (k *keeper) alive(ctx context.Context) bool {
	k.mu.Lock()
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
	k.mu.Unlock()
	_ = old.Close(ctx) // it is lost
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name = name
	return nil
}

func (s *snapshot) addKeeper(session exporter) *keeper {
	k := &keeper{session: session}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepers = append(s.keepers, k)
	return k
}
