package fanout

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// DefaultPatience is how long a store may keep all others waiting.
const DefaultPatience = time.Minute

// Options say what a run asks of its stores.
type Options struct {
	Quorum   int           // stores that must have everything; 0 is 1
	Patience time.Duration // that a store may keep the others waiting; 0 is DefaultPatience
	Warn     func(place store.Place, reason error)
}

// Laggard is a store that fell behind.
type Laggard struct {
	Store  store.Place
	Index  int // of Store among the places that New was given
	Reason error
}

// Stores are several stores as one. It is safe for concurrent use.
type Stores struct {
	members []*member
	o       Options
	mu      sync.Mutex // for the members' reasons
}

type member struct {
	store.Place
	behind error // why nothing more goes there
}

var (
	_ store.Place   = (*Stores)(nil)
	_ store.Several = (*Stores)(nil)
	_ store.Roomy   = (*Stores)(nil)
)

// New makes one store of places, in the order in which they are read from, some
// of which may be Missing. Close closes them. On an error they are still open.
func New(places []store.Place, o Options) (*Stores, error) {
	if o.Quorum == 0 {
		o.Quorum = 1
	}
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	if o.Quorum < 1 || o.Quorum > len(places) {
		return nil, fault.New(fault.Usage, "", "the quorum is %d of %d stores", o.Quorum, len(places))
	}
	s := &Stores{o: o}
	for _, p := range places {
		s.members = append(s.members, &member{Place: p})
	}
	for _, m := range s.members {
		if gone, ok := m.Place.(*missing); ok {
			s.leave(m, gone.reason)
		}
	}
	return s, s.enough()
}

// Behind returns the stores that do not have all that was written.
func (s *Stores) Behind() []Laggard {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Laggard
	for i, m := range s.members {
		if m.behind != nil {
			list = append(list, Laggard{m.Place, i, m.behind})
		}
	}
	return list
}

// leave lets a member fall behind; the first reason is kept.
func (s *Stores) leave(m *member, reason error) {
	s.mu.Lock()
	first := m.behind == nil
	if first {
		m.behind = reason
	}
	s.mu.Unlock()
	if first && s.o.Warn != nil {
		s.o.Warn(m.Place, reason)
	}
}

// current returns the stores that have everything so far.
func (s *Stores) current() []*member {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*member
	for _, m := range s.members {
		if m.behind == nil {
			list = append(list, m)
		}
	}
	return list
}

// enough is nil while the quorum can be reached, and else says what stands
// against it.
func (s *Stores) enough() error {
	left := len(s.current())
	if left >= s.o.Quorum {
		return nil
	}
	errs := []error{}
	for _, b := range s.Behind() {
		errs = append(errs, fmt.Errorf("store %s: %w", b.Store, b.Reason))
	}
	if len(s.members) == 1 {
		return errs[0]
	}
	return fmt.Errorf("%d of %d stores are left, and the quorum is %d: %w", left, len(s.members), s.o.Quorum, errors.Join(errs...))
}

// each does something in all current stores at once. A store where it fails falls
// behind, but for an error that tell returns true for, which is returned. What
// fails in all of them is no store's fault.
func (s *Stores) each(ctx context.Context, tell func(error) bool, do func(*member) error) error {
	members := s.current()
	errs := make([]error, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() { errs[i] = do(m) })
	}
	wg.Wait()
	if !slices.Contains(errs, nil) && len(errs) > 0 {
		return errors.Join(errs...)
	}
	for i, err := range errs {
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return err // the run ends; no store is to blame
		case tell != nil && tell(err):
			return err
		default:
			s.leave(members[i], err)
		}
	}
	return s.enough()
}

// Places returns the stores that did not fall behind.
func (s *Stores) Places() []store.Place {
	var list []store.Place
	for _, m := range s.current() {
		list = append(list, m.Place)
	}
	return list
}

// String names all stores.
func (s *Stores) String() string {
	names := []string{}
	for _, m := range s.members {
		names = append(names, m.String())
	}
	return strings.Join(names, ", ")
}

// CheckWritable lets stores that cannot be written to fall behind.
func (s *Stores) CheckWritable(ctx context.Context) error {
	return s.each(ctx, nil, func(m *member) error { return m.CheckWritable(ctx) })
}

// Warnings are those of all stores.
func (s *Stores) Warnings() []string {
	var list []string
	for _, m := range s.current() {
		list = append(list, m.Warnings()...)
	}
	return list
}

// Free is what the fullest of the stores can still take. A store that does not
// know takes anything.
func (s *Stores) Free() (bytes, inodes uint64, err error) {
	bytes, inodes = 1<<62, 1<<62
	for _, m := range s.current() {
		roomy, ok := m.Place.(store.Roomy)
		if !ok {
			continue
		}
		b, i, err := roomy.Free()
		if err != nil {
			return 0, 0, err
		}
		bytes, inodes = min(bytes, b), min(inodes, i)
	}
	return bytes, inodes, nil
}

// Leftovers are those of all stores, by the store's number.
func (s *Stores) Leftovers(ctx context.Context) ([]string, error) {
	var list []string
	for i, m := range s.members {
		if !s.has(m) {
			continue
		}
		names, err := m.Leftovers(ctx)
		if err != nil && ctx.Err() == nil {
			s.leave(m, err)
			continue
		}
		for _, name := range names {
			list = append(list, strconv.Itoa(i)+":"+name)
		}
	}
	return list, errors.Join(ctx.Err(), s.enough())
}

func (s *Stores) has(m *member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.behind == nil
}

// RemoveLeftover removes what Leftovers named.
func (s *Stores) RemoveLeftover(ctx context.Context, name string) error {
	number, name, ok := strings.Cut(name, ":")
	i, err := strconv.Atoi(number)
	if !ok || err != nil || i < 0 || i >= len(s.members) {
		return fmt.Errorf("remove leftover %q: it was not listed", name)
	}
	return s.members[i].RemoveLeftover(ctx, name)
}

// Close closes all stores, those that fell behind too.
func (s *Stores) Close() error {
	var errs []error
	for _, m := range s.members {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// Each does something in every store that did not fall behind. One where it fails
// does.
func (s *Stores) Each(ctx context.Context, do func(place store.Place) error) error {
	return s.each(ctx, nil, func(m *member) error { return do(m.Place) })
}

// Delete deletes in all stores. A refusal is returned, whoever says it.
func (s *Stores) Delete(ctx context.Context, key string) error {
	return s.each(ctx, func(err error) bool { return errors.Is(err, store.ErrDenied) || store.CheckKey(key) != nil },
		func(m *member) error { return m.Delete(ctx, key) })
}

// Open reads from the first store that has the object.
func (s *Stores) Open(ctx context.Context, key string) (io.ReadCloser, error) {
	return s.open(func(m *member) (io.ReadCloser, error) { return m.Open(ctx, key) })
}

// OpenRange reads from the first store that has the object.
func (s *Stores) OpenRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return s.open(func(m *member) (io.ReadCloser, error) { return m.OpenRange(ctx, key, offset, length) })
}

// open tries the stores in order. The error is that of the first one.
func (s *Stores) open(do func(*member) (io.ReadCloser, error)) (io.ReadCloser, error) {
	var first error
	for _, m := range s.current() {
		in, err := do(m)
		if err == nil {
			return in, nil
		}
		if first == nil || errors.Is(first, store.ErrNotExist) && !errors.Is(err, store.ErrNotExist) {
			first = err
		}
	}
	if first == nil {
		first = s.enough()
	}
	return nil, first
}

// Missing stands for a store that could not be opened: it is behind from the
// start.
func Missing(name string, reason error) store.Place { return &missing{name: name, reason: reason} }

// missing has no other method: nothing is asked of a store that is behind.
type missing struct {
	store.Place
	name   string
	reason error
}

func (m *missing) String() string { return m.name }
func (m *missing) Close() error   { return nil }
