package pgarchive

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"dbbackup/internal/fault"
)

// Bounds of what one string may be, far above what PostgreSQL can make:
// a name is at most 63 bytes, but a function's tag lists its arguments.
const (
	maxNameBytes    = 1 << 20
	maxSQLBytes     = 256 << 20
	maxDependencies = 1 << 16
)

// decoder reads the primitive values of an archive. Its first error sticks,
// and every later read returns zero values.
type decoder struct {
	opts  options
	r     *bufio.Reader
	n     int64 // bytes consumed
	err   error
	minor int
	wide  int // bytes of an offset
	names map[string]string
	buf   []byte
}

func newDecoder(r io.Reader, opts options) *decoder {
	return &decoder{opts: opts, r: bufio.NewReaderSize(r, 64<<10), names: map[string]string{}}
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fault.New(fault.Integrity, "the archive is damaged or was cut; take another backup set", format, args...)
	}
}

// broken records a read error for the value called what.
func (d *decoder) broken(what string, err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		d.fail("%s: the archive ends at byte %d", what, d.n)
	case d.err == nil:
		d.err = err
	}
}

func (d *decoder) byte(what string) int {
	if d.err != nil {
		return 0
	}
	b, err := d.r.ReadByte()
	if err != nil {
		d.broken(what, err)
		return 0
	}
	d.n++
	return int(b)
}

// int reads what WriteInt wrote: a sign byte and four bytes, lowest first.
func (d *decoder) int(what string) int64 {
	sign := d.byte(what)
	var v int64
	for shift := 0; shift < 32; shift += 8 {
		v |= int64(d.byte(what)) << shift
	}
	if sign > 1 {
		d.fail("%s: sign byte %d at byte %d", what, sign, d.n-5)
	}
	if sign == 1 {
		return -v
	}
	return v
}

// length reads a string's length; ok is false for the null string.
func (d *decoder) length(what string, limit int64) (n int64, ok bool) {
	n = d.int(what)
	if n > limit {
		d.fail("%s: a string of %d bytes, more than %d", what, n, limit)
	}
	return n, n >= 0 && d.err == nil
}

// name reads a string that is kept as a name; null and empty both give "".
func (d *decoder) name(what string) string {
	s, _ := d.bytes(what)
	return string(s)
}

// shared reads a name that many entries have in common, and keeps it once.
func (d *decoder) shared(what string) (s string, ok bool) {
	b, ok := d.bytes(what)
	s, known := d.names[string(b)]
	if !known {
		s = string(b)
		d.names[s] = s
	}
	return s, ok
}

// bytes reads a name into a buffer that the next call reuses.
func (d *decoder) bytes(what string) ([]byte, bool) {
	n, ok := d.length(what, maxNameBytes)
	if !ok {
		return nil, false
	}
	if int64(cap(d.buf)) < n {
		d.buf = make([]byte, n)
	}
	b := d.buf[:n]
	if _, err := io.ReadFull(d.r, b); err != nil {
		d.broken(what, err)
		return nil, false
	}
	d.n += n
	if bytes.IndexByte(b, 0) >= 0 {
		d.fail("%s: a zero byte in a name", what)
	}
	return b, true
}

// sql reads a statement. It grows with what is there, not with the length
// that is claimed.
func (d *decoder) sql(what string) string {
	n, ok := d.length(what, maxSQLBytes)
	if !ok {
		return ""
	}
	var text strings.Builder
	if n <= 64<<10 {
		text.Grow(int(n))
	}
	got, err := io.CopyN(&text, d.r, n)
	d.n += got
	if err != nil {
		d.broken(what, err)
	}
	return text.String()
}

// skip passes over a statement and says whether there was one.
func (d *decoder) skip(what string) bool {
	n, ok := d.length(what, maxSQLBytes)
	if !ok {
		return false
	}
	got, err := d.r.Discard(int(n))
	d.n += int64(got)
	if err != nil {
		d.broken(what, err)
	}
	return n > 0
}

// entry reads what WriteToc wrote for one entry.
func (d *decoder) entry(t *TOC) *Entry {
	e := &Entry{Offset: -1}
	e.ID = int(d.int("dump ID"))
	if e.ID <= 0 || e.ID > 1<<31-1 {
		d.fail("dump ID %d", e.ID)
	}
	e.HasData = d.int("data flag") != 0
	e.TableOID = d.oid("catalog OID")
	e.OID = d.oid("object OID")
	e.Tag = d.name("tag")
	e.Desc, _ = d.shared("kind")
	section := d.int("section")
	if section < int64(None) || section > int64(PostData) {
		d.fail("section %d of %s %s", section, e.Desc, e.Tag)
	}
	e.Section = Section(section)
	d.statements(e)
	e.Schema, _ = d.shared("schema")
	e.Tablespace, e.placed = d.shared("tablespace")
	e.TableAM, _ = d.shared("table access method")
	if d.minor >= minorRelkind {
		d.int("relation kind")
	}
	e.Owner, _ = d.shared("owner")
	d.oids()
	d.dependencies(e)
	d.place(t, e)
	return e
}

func (d *decoder) statements(e *Entry) {
	if d.opts.skipSQL && e.Desc != "TABLE" && e.Desc != "INDEX" {
		d.skip("definition")
	} else {
		e.Definition = d.sql("definition")
	}
	switch e.Desc {
	case "TABLE":
		e.parent = attachedTo(e.Definition)
	case "INDEX":
		e.upgrades = strings.Contains(e.Definition, "\nALTER TABLE ")
	}
	if d.opts.skipSQL {
		e.Definition = ""
		d.skip("drop statement")
		e.copies = d.skip("copy statement")
		return
	}
	e.DropStatement = d.sql("drop statement")
	e.CopyStatement = d.sql("copy statement")
	e.copies = e.CopyStatement != ""
}

// attachedTo returns the parent's name, as it is written, from a partition's
// definition that attaches it itself: pg_dump 13 and before.
func attachedTo(definition string) string {
	before, _, found := strings.Cut(definition, " ATTACH PARTITION ")
	if !found {
		return ""
	}
	start := strings.LastIndex(before, "\nALTER TABLE ONLY ")
	if start < 0 {
		return ""
	}
	return before[start+len("\nALTER TABLE ONLY "):]
}

func (d *decoder) oid(what string) uint32 {
	s, _ := d.bytes(what)
	if d.err != nil {
		return 0
	}
	v, err := strconv.ParseUint(string(s), 10, 32)
	if err != nil {
		d.fail("%s: %q is no OID", what, s)
	}
	return uint32(v)
}

// oids reads the flag of tables WITH OIDS, which PostgreSQL 12 abolished.
func (d *decoder) oids() {
	if s, _ := d.shared("OIDs flag"); s != "true" && s != "false" {
		d.fail("OIDs flag %q", s)
	}
}

func (d *decoder) dependencies(e *Entry) {
	for {
		s, ok := d.bytes("dependency")
		if !ok || d.err != nil {
			return
		}
		id, err := strconv.ParseInt(string(s), 10, 32)
		if err != nil {
			d.fail("dependency %q is no dump ID", s)
			return
		}
		if len(e.Dependencies) == maxDependencies {
			d.fail("more than %d dependencies", maxDependencies)
			return
		}
		e.Dependencies = append(e.Dependencies, int(id))
	}
}

// place reads where the entry's data is.
func (d *decoder) place(t *TOC, e *Entry) {
	if t.Format == Directory {
		e.File = d.name("data file name")
		if e.File != "" && (!filepath.IsLocal(e.File) || e.File != filepath.Base(e.File) || e.File == ".") {
			d.fail("data file name %q of %s leaves the archive's folder", e.File, e.Name())
		}
		if e.Desc == "BLOBS" && t.minor < minorRelkind {
			e.File = "blobs.toc" // whatever the entry says, see _LoadLOs in pg_backup_directory.c
		}
		return
	}
	const notSet, set, noData = 1, 2, 3
	state := d.byte("data state")
	var offset uint64
	for i := range d.wide {
		offset |= uint64(d.byte("data offset")) << (8 * i)
	}
	switch {
	case d.err != nil:
	case state < notSet || state > noData:
		d.fail("data state %d of %s", state, e.Name())
	case state == set && offset > 1<<62:
		d.fail("data offset %d of %s", offset, e.Name())
	case state == set:
		e.Offset = int64(offset)
	}
}
