package fanout

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"dbbackup/internal/store"
)

// List merges the listings of the stores: each key once, as the first store that
// has it describes it. A store that cannot be listed falls behind, and what it
// alone had is missing from the rest of the listing.
func (s *Stores) List(ctx context.Context, prefix string, fn func(store.Info) error) error {
	var heads []*head
	defer func() {
		for _, h := range heads {
			h.stop()
		}
	}()
	for _, m := range s.current() {
		h := newHead(ctx, m, prefix)
		heads = append(heads, h)
		h.advance()
	}
	for {
		first, err := s.first(ctx, heads)
		if err != nil || first == nil {
			return err
		}
		info := first.info
		if err := fn(info); err != nil {
			return err
		}
		for _, h := range heads {
			if !h.ended && h.info.Key == info.Key {
				h.advance()
			}
		}
	}
}

// first returns the head with the lowest key, nil at the end of all.
func (s *Stores) first(ctx context.Context, heads []*head) (*head, error) {
	var lowest *head
	for _, h := range heads {
		if h.ended && h.err != nil {
			if ctx.Err() != nil {
				return nil, h.err
			}
			s.leave(h.member, h.err)
			if err := s.enough(); err != nil {
				return nil, err
			}
			h.err = nil
		}
		if !h.ended && (lowest == nil || h.info.Key < lowest.info.Key) {
			lowest = h
		}
	}
	return lowest, nil
}

// Align lets stores fall behind that lack something which the first one has under
// a prefix: what another run began to write, and this one goes on with.
func (s *Stores) Align(ctx context.Context, prefix string) error {
	members := s.current()
	if len(members) < 2 {
		return s.enough()
	}
	want, err := listed(ctx, members[0], prefix)
	if err != nil {
		return err
	}
	for _, m := range members[1:] {
		got, err := listed(ctx, m, prefix)
		for key, bytes := range want {
			if size, ok := got[key]; err == nil && (!ok || size != bytes) {
				err = fmt.Errorf("it lacks %s of an earlier run", key)
			}
		}
		if err != nil && ctx.Err() == nil {
			s.leave(m, err)
		}
	}
	return errors.Join(ctx.Err(), s.enough())
}

func listed(ctx context.Context, m *member, prefix string) (map[string]int64, error) {
	sizes := map[string]int64{}
	err := m.List(ctx, prefix, func(info store.Info) error {
		sizes[info.Key] = info.Bytes
		return nil
	})
	return sizes, err
}

// head is the next entry of one store's listing.
type head struct {
	member *member
	next   func() (store.Info, error, bool)
	stop   func()
	info   store.Info
	err    error
	ended  bool
}

type stopped struct{}

func (stopped) Error() string { return "the listing was stopped" }

func newHead(ctx context.Context, m *member, prefix string) *head {
	h := &head{member: m}
	h.next, h.stop = iter.Pull2(func(yield func(store.Info, error) bool) {
		err := m.List(ctx, prefix, func(info store.Info) error {
			if !yield(info, nil) {
				return stopped{}
			}
			return nil
		})
		if err != nil && err != (stopped{}) { //nolint:errorlint // our own, and yield must not be called again
			yield(store.Info{}, err)
		}
	})
	return h
}

func (h *head) advance() {
	info, err, more := h.next()
	h.info, h.err, h.ended = info, err, !more || err != nil
}
