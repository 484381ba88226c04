package backupset

import (
	"errors"
	"io"
	"sync"
)

// Within an age file the payload consists of chunks of 64 KiB, each followed by a
// tag of 16 bytes; the first begins after the header and a nonce.
const (
	ageChunk   = 64 << 10
	ageTag     = 16
	headBytes  = 4 << 10 // holds any header of one recipient
	keptObject = 16      // objects of which the ends are kept
)

// ends are the first and the last bytes of an age file, which reading any part of
// it needs.
type ends struct {
	head, tail []byte
}

// endsCache keeps the ends of the objects that were read in parts last: small
// tables share objects, and each would cost two reads more.
type endsCache struct {
	mu    sync.Mutex
	kept  map[string]ends
	order []string
}

func (c *endsCache) find(key string) (ends, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.kept[key]
	return e, ok
}

func (c *endsCache) keep(key string, e ends) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = map[string]ends{}
	}
	if _, ok := c.kept[key]; !ok {
		c.order = append(c.order, key)
	}
	c.kept[key] = e
	if len(c.order) > keptObject {
		delete(c.kept, c.order[0])
		c.order = c.order[1:]
	}
}

// rangedFile is an age file in a store as an io.ReaderAt: its ends are read once,
// and one part of it as a stream, however many reads that takes. It is used by one
// goroutine.
type rangedFile struct {
	size int64
	key  string
	ends *endsCache
	open func(offset, length int64) (io.ReadCloser, error)

	have     bool
	own      ends
	from, to int64 // of the stream
	in       io.ReadCloser
	at       int64 // where the stream is
}

// stream says which part of the plain text will be read, of how many bytes.
func (f *rangedFile) stream(offset, length, plain int64) {
	chunks := max(1, (plain+ageChunk-1)/ageChunk)
	header := f.size - plain - chunks*ageTag
	f.from = header + offset/ageChunk*(ageChunk+ageTag)
	last := (offset + max(length, 1) - 1) / ageChunk
	f.to = min(f.size, header+(last+1)*(ageChunk+ageTag))
}

// ReadAt fills p from the ends, the stream, or a read of its own.
func (f *rangedFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.readEnds(); err != nil {
		return 0, err
	}
	end := off + int64(len(p))
	if end > f.size {
		n, err := f.ReadAt(p[:max(0, f.size-off)], off)
		return n, errors.Join(err, io.EOF)
	}
	switch tailAt := f.size - int64(len(f.own.tail)); {
	case end <= int64(len(f.own.head)):
		return copy(p, f.own.head[off:end]), nil
	case off >= tailAt:
		return copy(p, f.own.tail[off-tailAt:]), nil
	case f.in == nil && off == f.from && f.to > f.from:
		var err error
		if f.in, err = f.open(f.from, f.to-f.from); err != nil {
			return 0, err
		}
		f.at = off
	}
	if f.in != nil && off == f.at && end <= f.to {
		n, err := io.ReadFull(f.in, p)
		f.at += int64(n)
		return n, err
	}
	return f.readOnce(p, off)
}

func (f *rangedFile) readOnce(p []byte, off int64) (n int, err error) {
	in, err := f.open(off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return io.ReadFull(in, p)
}

// readEnds reads the header and the last chunk.
func (f *rangedFile) readEnds() error {
	if f.have {
		return nil
	}
	own, kept := f.ends.find(f.key)
	if !kept {
		own.head = make([]byte, min(f.size, headBytes))
		if _, err := f.readOnce(own.head, 0); err != nil {
			return err
		}
		own.tail = make([]byte, min(f.size, ageChunk+ageTag))
		if _, err := f.readOnce(own.tail, f.size-int64(len(own.tail))); err != nil {
			return err
		}
		f.ends.keep(f.key, own)
	}
	f.own, f.have = own, true
	return nil
}

// Close ends the stream.
func (f *rangedFile) Close() error {
	if f.in == nil {
		return nil
	}
	return f.in.Close()
}
