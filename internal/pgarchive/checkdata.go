package pgarchive

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"dbbackup/internal/fault"
)

// ErrNotChecked says that data was not decompressed, because its compression
// (lz4, zstd) is not read here. What could be checked without it was.
var ErrNotChecked = errors.New("contents not checked")

// Damage is an entry whose data is not what pg_dump wrote.
type Damage struct {
	Entry Entry
	Err   error
}

func (d Damage) Error() string { return fmt.Sprintf("data of %s: %v", &d.Entry, d.Err) }

func (d Damage) Unwrap() error { return d.Err }

// CheckData reads every data block of the archive at path, which is the one
// that t was read from, and returns the damaged ones in the order of the
// archive; its memory does not depend on their size. Of gzip data it verifies
// the checksums, of a table's data that it ends as pg_dump ends it.
//
// The error is not nil when the check itself could not be done: the archive
// cannot be opened, ctx ended, or ErrNotChecked.
func (t *TOC) CheckData(ctx context.Context, path string) ([]Damage, error) {
	if t.Format == Directory {
		return t.checkFolder(ctx, path)
	}
	return t.checkFile(ctx, path)
}

func (t *TOC) checkFile(ctx context.Context, path string) ([]Damage, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	var damaged []Damage
	inflate := newInflater(t.Compression)
	objects := t.largeObjects()
	entries := t.byOffset()
	for i, e := range entries {
		end := info.Size()
		if i+1 < len(entries) {
			end = entries[i+1].Offset
		}
		if err := checkBlock(&stoppable{ctx.Err, section(f, e.Offset, end)}, e, inflate, objects); err != nil {
			damaged = append(damaged, Damage{*e, fault.New(fault.Integrity, "", "%w", err)})
		}
		if ctx.Err() != nil {
			return damaged, context.Cause(ctx)
		}
	}
	return damaged, inflate.unread()
}

// byOffset returns the entries with data as they follow each other in the
// file; those without a known place come first.
func (t *TOC) byOffset() []*Entry {
	var entries []*Entry
	for i := range t.Entries {
		if t.Entries[i].HasData {
			entries = append(entries, &t.Entries[i])
		}
	}
	slices.SortFunc(entries, func(a, b *Entry) int { return cmp.Compare(a.Offset, b.Offset) })
	return entries
}

// section is the part of the file from one place to another.
func section(f io.ReaderAt, from, to int64) io.Reader {
	return io.NewSectionReader(f, from, max(0, to-from))
}

// largeObjects returns the OIDs of the large objects that have entries of
// their own, nil where they have none: since archive version 1.16.
func (t *TOC) largeObjects() map[uint32]bool {
	var oids map[uint32]bool
	for i := range t.Entries {
		if t.Entries[i].Desc != "BLOB" {
			continue
		}
		if oids == nil {
			oids = map[uint32]bool{}
		}
		oids[t.Entries[i].OID] = true
	}
	return oids
}

// checkBlock reads the block of e from r, which holds nothing else.
func checkBlock(r io.Reader, e *Entry, inflate *inflater, objects map[uint32]bool) error {
	if e.Offset < 0 {
		return errors.New("its place in the file is not set")
	}
	b := newBlock(r)
	if err := b.open(e); err != nil {
		return err
	}
	var err error
	if e.Desc == "BLOBS" {
		err = b.largeObjects(inflate, objects)
	} else {
		err = inflate.check(b, e.copies)
	}
	if err != nil {
		return err
	}
	if extra, err := io.Copy(io.Discard, b.r); err != nil || extra > 0 {
		return errors.Join(fmt.Errorf("%d bytes follow its end", extra), err)
	}
	return nil
}

func (t *TOC) checkFolder(ctx context.Context, path string) ([]Damage, error) {
	root, err := t.root(path)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var damaged []Damage
	files := &folderCheck{stop: ctx.Err, root: root, gz: new(gzip.Reader)}
	for i := range t.Entries {
		e := &t.Entries[i]
		if !e.HasData {
			continue
		}
		if err := files.entry(t, e); err != nil {
			damaged = append(damaged, Damage{*e, fault.New(fault.Integrity, "", "%w", err)})
		}
		if ctx.Err() != nil {
			return damaged, context.Cause(ctx)
		}
	}
	return damaged, files.unread
}

// folderCheck reads a directory archive's files one after the other.
type folderCheck struct {
	stop   func() error // not nil: give up with this error
	root   *os.Root
	gz     *gzip.Reader
	unread error
}

func (c *folderCheck) entry(t *TOC, e *Entry) error {
	if err := t.completeFile(c.root, e); err != nil {
		return err
	}
	if e.Desc != "BLOBS" {
		return c.file(e.File, e.copies)
	}
	return eachLargeObject(c.root, e.File, func(_ uint32, file string) error {
		return c.file(file, false)
	})
}

func (c *folderCheck) file(name string, copies bool) error {
	found, err := findFile(c.root, name)
	if err != nil {
		return err
	}
	if found.compression == "lz4" || found.compression == "zstd" {
		c.unread = fmt.Errorf("%s data: %w", found.compression, ErrNotChecked)
		return nil
	}
	f, err := c.root.Open(found.name)
	if err != nil {
		return err
	}
	defer f.Close()
	var r io.Reader = bufio.NewReaderSize(&stoppable{c.stop, f}, 64<<10)
	if found.compression == "gzip" {
		if err := c.gz.Reset(r); err != nil {
			return fmt.Errorf("%s: %w", found.name, err)
		}
		r = c.gz
	}
	if err := drain(r, copies); err != nil {
		return fmt.Errorf("%s: %w", found.name, err)
	}
	return nil
}

// stoppable is a reader that fails as soon as stop does.
type stoppable struct {
	stop func() error
	r    io.Reader
}

func (s *stoppable) Read(p []byte) (int, error) {
	if err := s.stop(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// drain reads data to its end. A table's COPY data ends with a line "\." and
// two empty ones (dumpTableData_copy in pg_dump.c).
func drain(r io.Reader, copies bool) error {
	var end ending
	if _, err := io.Copy(&end, r); err != nil {
		return err
	}
	if copies && !bytes.HasSuffix(end.last, []byte("\\.\n\n\n")) {
		return errors.New(`the rows do not end with a line "\."`)
	}
	return nil
}

// ending keeps the last bytes that were written to it.
type ending struct{ last []byte }

func (e *ending) Write(p []byte) (int, error) {
	const keep = 8
	e.last = append(e.last, p[max(0, len(p)-keep):]...)
	e.last = append(e.last[:0], e.last[max(0, len(e.last)-keep):]...)
	return len(p), nil
}

// newLineReader reads lines of a bounded length.
func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewReaderSize(r, 4096)} }

type lineReader struct{ r *bufio.Reader }

func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(line) > 0 {
		return nil, fmt.Errorf("the last line %q has no end", line)
	}
	return bytes.TrimSuffix(line, []byte("\n")), err
}
