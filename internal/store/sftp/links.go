package sftp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"dbbackup/internal/fault"
)

// links are the connections of one store. They are made when they are needed:
// one for all questions, more for objects that are written or read at once.
type links struct {
	dial    func(context.Context) (*link, error)
	most    int
	silence time.Duration // how long a server that cannot be reached is waited for

	turn chan struct{} // held by who dials

	mu     sync.Mutex
	open   []*link
	closed bool
	tasks  sync.WaitGroup // that dead links end
}

func newLinks(loc location, dial func(context.Context) (*link, error)) *links {
	return &links{dial: dial, most: loc.connections, silence: loc.silence, turn: make(chan struct{}, 1)}
}

var errClosed = errors.New("the store is closed")

// any returns a living link for a question, and dials where there is none.
func (p *links) any(ctx context.Context) (*link, error) { return p.pick(ctx, false) }

// take returns a link for an object. give ends it.
func (p *links) take(ctx context.Context) (*link, error) { return p.pick(ctx, true) }

func (p *links) give(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.streams--
}

func (p *links) pick(ctx context.Context, stream bool) (*link, error) {
	l, enough, err := p.living(stream)
	if enough || err != nil {
		return l, err
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if l, enough, err = p.living(stream); enough || err != nil { // another dialled meanwhile
		return l, err
	}
	fresh, err := p.connect(ctx, l != nil)
	if err != nil {
		if l != nil && ctx.Err() == nil {
			return p.use(l, stream), nil // a server may refuse a second connection
		}
		return nil, err
	}
	if err := p.add(fresh); err != nil {
		return nil, err
	}
	return p.use(fresh, stream), nil
}

// living returns the link with the least to do, if there is one, and whether
// another would be too much. It counts the stream only then.
func (p *links) living(stream bool) (l *link, enough bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, true, errClosed
	}
	p.bury()
	if len(p.open) == 0 {
		return nil, false, nil
	}
	l = slices.MinFunc(p.open, func(a, b *link) int { return a.streams - b.streams })
	if stream && l.streams > 0 && len(p.open) < p.most {
		return l, false, nil
	}
	if stream {
		l.streams++
	}
	return l, true, nil
}

func (p *links) use(l *link, stream bool) *link {
	if stream {
		p.mu.Lock()
		defer p.mu.Unlock()
		l.streams++
	}
	return l
}

// bury forgets dead links. The caller holds mu.
func (p *links) bury() {
	p.open = slices.DeleteFunc(p.open, func(l *link) bool {
		if !l.isDead() {
			return false
		}
		p.tasks.Go(l.close)
		return true
	})
}

func (p *links) add(l *link) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.close()
		return errClosed
	}
	p.open = append(p.open, l)
	return nil
}

// connect dials, again and again where nothing else is left: a server that
// restarts is away for some seconds.
func (p *links) connect(ctx context.Context, spare bool) (*link, error) {
	end := time.Now().Add(p.silence)
	for pause := time.Second / 4; ; pause = min(2*pause, 5*time.Second) {
		l, err := p.dial(ctx)
		if err == nil || spare || !fault.Is(err, fault.Unavailable) || time.Now().Add(pause).After(end) {
			return l, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// close hangs up, and waits until nothing is left of any link.
func (p *links) close() {
	p.mu.Lock()
	open := p.open
	p.open, p.closed = nil, true
	p.mu.Unlock()
	for _, l := range open {
		l.close()
	}
	p.tasks.Wait()
}
