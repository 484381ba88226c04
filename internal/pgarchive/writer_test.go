package pgarchive

import (
	"bytes"
	"compress/zlib"
	"strconv"
)

// archiveWriter writes a small archive as WriteHead and WriteToc of
// pg_backup_archiver.c do, for versions that no pg_dump of this machine
// writes: a schema, and the rows of a table. Its fields are what tests
// falsify.
type archiveWriter struct {
	buf                bytes.Buffer
	minor, compression int

	format     byte
	count, id  int
	tagLength  int
	section    int
	state      byte
	dependency string
	file       string
}

func newArchiveWriter(minor, compression int) *archiveWriter {
	return &archiveWriter{minor: minor, compression: compression, format: 1, count: 3, id: 2, tagLength: 1, section: 3, state: 2, dependency: "1"}
}

func synthetic(minor, compression int) []byte { return newArchiveWriter(minor, compression).bytes() }

// bytes writes the archive twice, because places are known after the first time.
func (a *archiveWriter) bytes() []byte {
	a.buf.Reset()
	a.toc(0, 0)
	rows := a.buf.Len()
	a.rows()
	objects := a.buf.Len()
	a.buf.Reset()
	a.toc(rows, objects)
	a.rows()
	a.largeObjects()
	return a.buf.Bytes()
}

func (a *archiveWriter) int(v int) {
	sign := byte(0)
	if v < 0 {
		sign, v = 1, -v
	}
	a.buf.Write([]byte{sign, byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)})
}

func (a *archiveWriter) str(s string) {
	a.int(len(s))
	a.buf.WriteString(s)
}

func (a *archiveWriter) null() { a.int(-1) }

func (a *archiveWriter) toc(rows, objects int) {
	a.buf.WriteString("PGDMP")
	a.buf.Write([]byte{1, byte(a.minor), 0, 4, 8, a.format})
	if a.minor >= 15 {
		a.buf.WriteByte(byte(a.compression))
	} else {
		a.int(-a.compression) // level: -1 is zlib's default, 0 none
	}
	for _, tm := range []int{1, 2, 3, 4, 5, 126, 0} {
		a.int(tm)
	}
	a.str("db")
	a.str("17.1")
	a.str("17.2")
	a.int(a.count)
	a.entry(1, 1, "SCHEMA", 2, 3, 0, "")
	a.entry(a.id, a.tagLength, "TABLE DATA", a.section, a.state, rows, a.dependency)
	a.entry(3, 1, "BLOBS", 3, 2, objects, "")
}

func (a *archiveWriter) entry(id, tagLength int, desc string, section int, state byte, offset int, dependency string) {
	a.int(id)
	a.int(map[bool]int{true: 1}[desc != "SCHEMA"])
	a.str("1259")
	a.str(strconv.Itoa(16384 + id))
	a.int(tagLength)
	a.buf.WriteString("t")
	a.str(desc)
	a.int(section)
	a.str("")
	a.null()
	a.str(map[bool]string{true: "COPY public.t (x) FROM stdin;\n"}[desc == "TABLE DATA"])
	a.str("public")
	a.null()
	a.str("heap")
	if a.minor >= 16 {
		a.int('r')
	}
	a.str("me")
	a.str("false")
	if dependency != "" {
		a.str(dependency)
	}
	a.null()
	if a.format != 1 {
		a.str(a.file)
		return
	}
	a.buf.WriteByte(state)
	for shift := 0; shift < 64; shift += 8 {
		a.buf.WriteByte(byte(offset >> shift))
	}
}

func (a *archiveWriter) rows() {
	a.buf.WriteByte(1)
	a.int(a.id)
	a.pieces("1\n2\n\\.\n\n\n")
}

func (a *archiveWriter) largeObjects() {
	const high = 3_000_000_000 // an OID that is negative as an int
	a.buf.WriteByte(3)
	a.int(3)
	a.int(high - 1<<32)
	a.pieces("object")
	a.int(5)
	a.int(0) // no bytes, and no stream: since 16
	a.int(0)
}

// pieces writes the content in two pieces and ends them.
func (a *archiveWriter) pieces(content string) {
	packed := []byte(content)
	if a.compression == 1 {
		var z bytes.Buffer
		w := zlib.NewWriter(&z)
		w.Write(packed)
		w.Close()
		packed = z.Bytes()
	}
	half := len(packed) / 2
	for _, piece := range [][]byte{packed[:half], packed[half:], nil} {
		a.int(len(piece))
		a.buf.Write(piece)
	}
}
