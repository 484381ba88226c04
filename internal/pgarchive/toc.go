package pgarchive

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"dbbackup/internal/fault"
)

// Format is how an archive lies on disk.
type Format int

const (
	Custom    Format = 1 // one file, pg_dump -Fc
	Directory Format = 5 // a folder with toc.dat and one file per table, pg_dump -Fd
)

func (f Format) String() string {
	if f == Directory {
		return "directory"
	}
	return "custom"
}

// Section is the part of a restore that an entry belongs to. The values are
// those of PostgreSQL's teSection.
type Section int

const (
	None     Section = 1 // comments, ACLs: they follow what they belong to
	PreData  Section = 2
	Data     Section = 3
	PostData Section = 4
)

func (s Section) String() string {
	switch s {
	case PreData:
		return "pre-data"
	case Data:
		return "data"
	case PostData:
		return "post-data"
	}
	return "none"
}

// TOC is an archive's table of contents.
type TOC struct {
	Format         Format
	ArchiveVersion string    // "1.14"
	Compression    string    // "none", "gzip", "lz4", "zstd"
	Created        time.Time // pg_dump's wall clock, read in this machine's time zone: the archive does not name one
	Database       string    // empty in some archives
	ServerVersion  string
	DumpVersion    string // of pg_dump
	Entries        []Entry

	path  string // of the file or folder, empty when read from a stream
	size  int64  // bytes up to the end of the table of contents
	data  int    // number of entries with data
	minor int    // of the archive version
}

// Entry is one object, or one table's data.
type Entry struct {
	ID            int    // pg_dump's dump ID: positive, unique within the archive
	TableOID, OID uint32 // pg_class and row OID of the object in the source's catalog, 0 when it has none
	Tag           string // the object's name, with its table's name before it where PostgreSQL does so
	Desc          string // "TABLE", "TABLE DATA", "FK CONSTRAINT", ...
	Section       Section

	Definition, DropStatement, CopyStatement string // empty when read WithoutSQL

	Schema       string // empty for objects outside of schemas
	Tablespace   string
	TableAM      string
	Owner        string
	Dependencies []int  // dump IDs; some may not be in the archive
	HasData      bool   // pg_dump wrote a data block or file for it
	Added        bool   // by AddRows: not in the archive
	File         string // directory format: the data file's name without a compression suffix
	Offset       int64  // custom format: the data block's place in the file, -1 when there is none or it is unknown

	placed bool // the archive gives it a tablespace, perhaps the default one
	copies bool // its data is that of a COPY statement
	// upgrades: an index whose definition goes on to alter its table
	upgrades bool
	parent   string // the partitioned table that the definition itself attaches it to, as written (pg_dump before 14)
}

// Name returns schema.tag, or the tag where there is no schema, for messages.
func (e *Entry) Name() string {
	if e.Schema == "" {
		return e.Tag
	}
	return e.Schema + "." + e.Tag
}

func (e *Entry) String() string { return fmt.Sprintf("%d %s %s", e.ID, e.Desc, e.Name()) }

// Option changes how a table of contents is read.
type Option func(*options)

type options struct {
	skipSQL  bool
	onlyData bool
	memory   int64
}

// WithoutSQL leaves Definition, DropStatement and CopyStatement empty, which
// is most of a table of contents' memory. Everything in this package works
// without them.
func WithoutSQL() Option { return func(o *options) { o.skipSQL = true } }

// OnlyData keeps the entries that have data, which is all that Complete needs,
// and drops the rest: of an archive with ten thousand tables that is most.
// Everything else in this package needs all entries.
func OnlyData() Option { return func(o *options) { o.onlyData = true } }

// WithMemoryLimit bounds the memory that the entries may take, in bytes; the
// default is 512 MiB. A larger table of contents is an error, not a crash.
func WithMemoryLimit(bytes int64) Option { return func(o *options) { o.memory = bytes } }

func resolve(opts []Option) options {
	o := options{memory: 512 << 20}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// Open reads the table of contents of the archive at path, a custom format
// file or a directory format folder. Errors about the content are
// fault.Integrity, about a version that is not known fault.Precondition.
func Open(path string, opts ...Option) (*TOC, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open archive: %w", err)
	}
	want, file := Custom, path
	if info.IsDir() {
		want, file = Directory, filepath.Join(path, "toc.dat")
	}
	toc, err := openFile(file, want, opts)
	if err != nil {
		return nil, fmt.Errorf("read archive %s: %w", path, err)
	}
	toc.path = path
	return toc, nil
}

func openFile(file string, want Format, opts []Option) (*TOC, error) {
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) && want == Directory {
		return nil, fault.New(fault.Integrity, "pg_dump did not get as far as writing its table of contents, or this is no archive folder", "no toc.dat: %w", err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	toc, err := Read(f, opts...)
	if err != nil {
		return nil, err
	}
	if toc.Format != want {
		return nil, fault.New(fault.Integrity, "", "the content is that of a %s format archive, the place that of a %s one", toc.Format, want)
	}
	return toc, nil
}

// Read reads the table of contents at the beginning of r, a custom format
// archive or the toc.dat of a directory format one. It may read ahead.
func Read(r io.Reader, opts ...Option) (*TOC, error) {
	o := resolve(opts)
	limit := o.memory
	entries := []Entry{}
	seen := map[int]bool{}
	toc, err := Scan(r, func(e *Entry) error {
		keep := e.HasData || !o.onlyData
		if keep {
			limit -= e.footprint()
		}
		if limit < 0 {
			return fault.New(fault.Integrity, "raise the memory limit if the archive is known to be good and holds very many objects", "the table of contents takes more than %d bytes of memory", o.memory)
		}
		if seen[e.ID] {
			return fault.New(fault.Integrity, "", "dump ID %d stands there twice", e.ID)
		}
		seen[e.ID] = true
		if keep {
			entries = append(entries, *e)
		}
		return nil
	}, opts...)
	if err != nil {
		return nil, err
	}
	toc.Entries = entries
	return toc, nil
}

// footprint estimates the memory that keeping the entry takes: its struct,
// the growth of the slice and index that hold it, and its strings.
func (e *Entry) footprint() int64 {
	const fixed = 512
	return fixed + int64(len(e.Tag)+len(e.Definition)+len(e.DropStatement)+len(e.CopyStatement)+
		len(e.File)+len(e.parent)+8*len(e.Dependencies))
}

// Scan reads like Read, but hands each entry to fn instead of keeping it, in
// the order of the archive; the returned TOC has no entries. fn may keep the
// entry. An error of fn ends the scan and is returned, wrapped.
func Scan(r io.Reader, fn func(*Entry) error, opts ...Option) (*TOC, error) {
	return scan(newDecoder(r, resolve(opts)), fn)
}

func scan(d *decoder, fn func(*Entry) error) (*TOC, error) {
	toc := d.header()
	count := d.int("number of entries")
	if d.err == nil && count < 0 {
		d.fail("number of entries %d is negative", count)
	}
	for i := int64(0); i < count && d.err == nil; i++ {
		e := d.entry(toc)
		if d.err == nil {
			d.err = fn(e)
		}
		if d.err != nil {
			return nil, fmt.Errorf("table of contents entry %d of %d: %w", i+1, count, d.err)
		}
		if e.HasData {
			toc.data++
		}
	}
	if d.err != nil {
		return nil, fmt.Errorf("archive header: %w", d.err)
	}
	toc.size = d.n
	return toc, nil
}
