package pgarchive

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"time"

	"dbbackup/internal/fault"
)

// Archive versions, K_VERS_* in pg_backup_archiver.h; the major number is 1.
const (
	minorTableAM     = 14 // PostgreSQL 12: table access method
	minorCompression = 15 // PostgreSQL 16: compression algorithm instead of level
	minorRelkind     = 16 // PostgreSQL 17: relkind, several groups of large objects
)

// header reads what WriteHead wrote.
func (d *decoder) header() *TOC {
	d.magic()
	t := &TOC{}
	d.version(t)
	d.format(t)
	d.compression(t)
	d.created(t)
	t.Database = d.name("database name")
	t.ServerVersion = d.name("server version")
	t.DumpVersion = d.name("pg_dump version")
	return t
}

func (d *decoder) magic() {
	start, err := d.r.Peek(5)
	switch {
	case string(start) == "PGDMP":
		discarded, _ := d.r.Discard(len(start))
		d.n += int64(discarded)
	case bytes.HasPrefix(start, []byte("--")), bytes.HasPrefix(start, []byte("\n--")):
		d.err = fault.New(fault.Integrity, "restore it with psql instead", "this is a plain SQL dump and no archive")
	case err != nil && !errors.Is(err, io.EOF):
		d.err = err
	default:
		d.fail("it does not begin with PGDMP")
	}
}

func (d *decoder) version(t *TOC) {
	major, minor, rev := d.byte("archive version"), d.byte("archive version"), d.byte("archive version")
	if d.err != nil {
		return
	}
	t.ArchiveVersion = strconv.Itoa(major) + "." + strconv.Itoa(minor)
	d.minor, t.minor = minor, minor
	switch {
	case major > 1 || major == 1 && (minor > minorRelkind || minor == minorRelkind && rev > 0):
		d.err = fault.New(fault.Precondition, "use a newer dbbackup, one that knows the PostgreSQL release of the pg_dump that wrote it",
			"archive version %s (revision %d) is newer than 1.%d", t.ArchiveVersion, rev, minorRelkind)
	case major < 1 || minor < minorTableAM:
		d.err = fault.New(fault.Precondition, "archives of pg_dump 11 and before are not read; use pg_restore",
			"archive version %s is older than 1.%d", t.ArchiveVersion, minorTableAM)
	}
}

func (d *decoder) format(t *TOC) {
	const tar = 3 // what toc.dat says: a directory's files are those of a tar archive
	ints := d.byte("integer size")
	d.wide = d.byte("offset size")
	code := d.byte("format")
	if d.err != nil {
		return
	}
	if ints != 4 || d.wide != 4 && d.wide != 8 {
		d.fail("integers of %d and offsets of %d bytes", ints, d.wide)
	}
	switch code {
	case int(Custom):
		t.Format = Custom
	case tar, int(Directory):
		t.Format = Directory
	default:
		d.fail("format code %d", code)
	}
}

func (d *decoder) compression(t *TOC) {
	t.Compression = "none"
	if d.minor < minorCompression {
		if d.int("compression level") != 0 {
			t.Compression = "gzip"
		}
		return
	}
	algorithms := [...]string{"none", "gzip", "lz4", "zstd"}
	code := d.byte("compression algorithm")
	if code >= len(algorithms) {
		d.fail("compression algorithm %d", code)
		return
	}
	t.Compression = algorithms[code]
}

// created reads a struct tm of pg_dump's local time.
func (d *decoder) created(t *TOC) {
	var tm [7]int // sec, min, hour, mday, mon, year, isdst
	for i := range tm {
		v := d.int("creation time")
		if v < -1 || v > 1<<20 {
			d.fail("creation time: a field of %d", v)
		}
		tm[i] = int(v)
	}
	if d.err == nil {
		t.Created = time.Date(1900+tm[5], time.Month(1+tm[4]), tm[3], tm[2], tm[1], tm[0], 0, time.Local)
	}
}
