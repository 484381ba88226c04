package bucket

import (
	"errors"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// buffers hands out the memory for parts. It lies outside of Go's heap, which
// the collector would let grow to twice of what is in use.
type buffers struct {
	mu     sync.Mutex
	budget int64    // what is left to share
	idle   [][]byte // to be used again
	limit  int64    // of bytes in idle
	closed bool
}

func newBuffers(budget int64) *buffers { return &buffers{budget: budget, limit: budget} }

// reserve takes n bytes from the budget, if they are there.
func (b *buffers) reserve(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.budget < n {
		return false
	}
	b.budget -= n
	return true
}

func (b *buffers) giveBack(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.budget += n
}

// take returns an empty buffer with room for n bytes.
func (b *buffers) take(n int64) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, buf := range b.idle {
		if int64(cap(buf)) == n {
			b.idle[i] = b.idle[len(b.idle)-1]
			b.idle = b.idle[:len(b.idle)-1]
			return buf[:0], nil
		}
	}
	buf, err := unix.Mmap(-1, 0, int(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	return buf[:0], nil
}

// put takes a buffer back that nobody reads any more.
func (b *buffers) put(buf []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = append(b.idle, buf[:cap(buf)])
	for b.closed || b.idleBytes() > b.limit {
		_ = unix.Munmap(b.idle[0]) // fails only for what was never mapped
		if b.idle = b.idle[1:]; len(b.idle) == 0 {
			break
		}
	}
}

func (b *buffers) idleBytes() (n int64) {
	for _, buf := range b.idle {
		n += int64(cap(buf))
	}
	return n
}

func (b *buffers) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, buf := range b.idle {
		_ = unix.Munmap(buf[:cap(buf)]) // fails only for what was never mapped
	}
	b.idle, b.closed = nil, true
}

// lentReader lends a buffer to a request. A transport may read a body for a
// while after the request has ended, so that the owner takes the buffer back
// with revoke before using it again.
type lentReader struct {
	mu   sync.Mutex
	data []byte
	next int64
	size int64
}

func lend(data []byte) *lentReader { return &lentReader{data: data, size: int64(len(data))} }

var errRevoked = errors.New("the request has ended")

func (r *lentReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next >= r.size {
		return 0, io.EOF
	}
	if r.data == nil {
		return 0, errRevoked
	}
	n := copy(p, r.data[r.next:])
	r.next += int64(n)
	return n, nil
}

func (r *lentReader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += r.next
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	r.next = offset
	return offset, nil
}

// Close does nothing: a repeated request reads the body again.
func (r *lentReader) Close() error { return nil }

func (r *lentReader) revoke() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = nil
}
