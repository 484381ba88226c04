package lease

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
)

// Folder is where the objects of a lock lie: a name that stores hide.
const Folder = ".lock"

// Objects are the small objects that a lock is made of, by their names within
// Folder. An error that is none of the two sentinels tells nothing about what
// happened to the object.
type Objects interface {
	// Create makes an object, and is store.ErrExist where one is. When it cannot
	// tell who made the one that is there, it must say ErrExist.
	Create(ctx context.Context, name string, data []byte) error
	// Put makes or replaces an object.
	Put(ctx context.Context, name string, data []byte) error
	// Read returns an object's content, or store.ErrNotExist.
	Read(ctx context.Context, name string) ([]byte, error)
	// Names lists the objects, in any order.
	Names(ctx context.Context) ([]string, error)
	// Delete removes an object. It may be refused.
	Delete(ctx context.Context, name string) error
}

// Options say how fast a dead holder is noticed.
type Options struct {
	// Beat is the time between two heartbeats; 0 means 10 s. A living lock is
	// recognised within one beat.
	Beat time.Duration
	// Missed is how many beats a holder may miss before the lock is taken over;
	// 0 means 12. It is also how long a store may be out of reach before a run
	// loses its lock.
	Missed int
}

// slack is how many beats earlier the holder gives up than a contender takes
// over: for clocks of different speed, and a process that is slow to be told.
const slack = 2

func (o Options) withDefaults() Options {
	if o.Beat <= 0 {
		o.Beat = 10 * time.Second
	}
	if o.Missed <= slack {
		o.Missed = 12
	}
	return o
}

func (o Options) takeover() time.Duration { return time.Duration(o.Missed) * o.Beat }

func (o Options) giveUp() time.Duration { return time.Duration(o.Missed-slack) * o.Beat }

// epoch is the content of an epoch's object.
type epoch struct {
	Holder  store.Holder `json:"holder"`
	Process process      `json:"process"`
	Token   string       `json:"token"`
}

// beat is the content of a heartbeat.
type beat struct {
	Count    uint64 `json:"count"`
	Released bool   `json:"released,omitempty"`
}

func epochName(n uint64) string { return fmt.Sprintf("%08d", n) }

func beatName(n uint64) string { return epochName(n) + ".beat" }

// epochOf returns the epoch to which an object belongs; false for names that
// are no part of a lock.
func epochOf(name string) (n uint64, isBeat, ok bool) {
	number, isBeat := strings.CutSuffix(name, ".beat")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || epochName(n) != number || n == 0 {
		return 0, false, false
	}
	return n, isBeat, true
}

// lock is one attempt to take the lock, and then the lock.
type lock struct {
	objects Objects
	options Options
	holder  store.Holder
	token   string // tells what this process created from what another did

	epoch uint64    // what is held, once it is
	since time.Time // before it was created
}

// Lock takes the lock, as store.Store.Lock describes it. Where another run holds
// it, Lock takes up to one beat to tell that it lives, and as long as Options
// say to tell that it does not.
func Lock(ctx context.Context, objects Objects, options Options, holder store.Holder) (held context.Context, release func() error, err error) {
	l := &lock{objects: objects, options: options.withDefaults(), holder: holder, token: rand.Text()}
	if err := l.take(ctx); err != nil {
		return nil, nil, err
	}
	held, release = l.keep(ctx)
	return held, release, nil
}

// rounds bounds how often a contender starts anew because the lock changed
// hands while it looked.
const rounds = 20

func (l *lock) take(ctx context.Context) error {
	for range rounds {
		highest, err := l.highest(ctx)
		if err != nil {
			return err
		}
		free, err := l.isFree(ctx, highest)
		if err != nil {
			return err
		}
		if !free {
			continue
		}
		if taken, err := l.create(ctx, highest+1); taken || err != nil {
			return err
		}
	}
	return lockedBy(store.Holder{})
}

// highest returns the newest epoch, 0 where the lock was never taken.
func (l *lock) highest(ctx context.Context) (uint64, error) {
	names, err := l.objects.Names(ctx)
	if err != nil {
		return 0, fmt.Errorf("list the store's lock: %w", err)
	}
	var highest uint64
	for _, name := range names {
		if n, isBeat, ok := epochOf(name); ok && !isBeat {
			highest = max(highest, n)
		}
	}
	return highest, nil
}

// create tries to hold epoch n. A number below the highest can be free, when
// this contender is slow and others were quick: hence the look afterwards.
func (l *lock) create(ctx context.Context, n uint64) (taken bool, err error) {
	text, err := json.Marshal(epoch{Holder: l.holder, Process: thisProcess(), Token: l.token})
	if err != nil {
		return false, err
	}
	since := time.Now()
	err = l.objects.Create(ctx, epochName(n), text)
	if errors.Is(err, store.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("create the store's lock: %w", err)
	}
	highest, err := l.highest(ctx)
	if err != nil {
		return false, errors.Join(err, l.giveBack(ctx, n))
	}
	if highest != n {
		_ = l.objects.Delete(ctx, epochName(n)) // nobody looks at it below a higher one
		return false, nil
	}
	l.epoch, l.since = n, since
	l.sweep(ctx)
	return true, nil
}

// giveBack releases an epoch that was created but cannot be held.
func (l *lock) giveBack(ctx context.Context, n uint64) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.options.giveUp())
	defer cancel()
	text, err := json.Marshal(beat{Released: true})
	if err != nil {
		return err
	}
	return l.objects.Put(ctx, beatName(n), text)
}

// sweep removes the epochs before this one. A store that refuses keeps them:
// they are small and mean nothing.
func (l *lock) sweep(ctx context.Context) {
	names, err := l.objects.Names(ctx)
	if err != nil {
		return
	}
	for _, name := range names {
		if n, _, ok := epochOf(name); ok && n < l.epoch {
			if err := l.objects.Delete(ctx, name); errors.Is(err, store.ErrDenied) {
				return
			}
		}
	}
}

func lockedBy(holder store.Holder) error {
	return fault.New(fault.Locked, "wait for the other run to end; if it hangs, end that process, and the lock is free a few minutes later",
		"%w", &store.LockedError{Holder: holder})
}
