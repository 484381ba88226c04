package backupset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"dbbackup/internal/fault"
)

// The names of a chunked database's objects within its folder (Database.Dump).
const (
	ContentsName = "contents.json" // what the folder holds: Contents
	SchemaName   = "schema.dump"   // the definitions: pg_dump -Fc --schema-only
)

// Contents says what a chunked database consists of: its tables, the chunks
// that hold their rows, and what else is no definition. It is an object of the
// set. FORMAT.md specifies every field.
type Contents struct {
	Database    string `json:"database"`
	DatabaseOID uint32 `json:"database_oid"`
	Encoding    string `json:"encoding"` // of the text in all chunks

	Tables            []ChunkedTable     `json:"tables"`
	Sequences         []SequenceValue    `json:"sequences"`
	LargeObjects      *LargeObjectChunks `json:"large_objects,omitempty"` // nil: there are none, or they were left out
	MaterializedViews []MaterializedView `json:"materialized_views"`      // in the order to refresh them in
}

// ChunkedTable is one table with its rows, in chunks by ranges of pages.
type ChunkedTable struct {
	Schema      string `json:"schema"`
	Name        string `json:"name"`
	OID         uint32 `json:"oid"`
	Filenode    uint32 `json:"filenode"`    // pg_class.relfilenode: another one means that the table was rewritten
	Fingerprint string `json:"fingerprint"` // of all that decides how rows read, beside the rows themselves

	Columns []string `json:"columns"`         // captured, in order; generated ones are not
	Format  string   `json:"format"`          // of COPY: text or binary
	Where   string   `json:"where,omitempty"` // the condition of an extension's configuration table
	Via     *Via     `json:"via,omitempty"`   // load through a partitioned parent instead
	Load    string   `json:"load"`            // the COPY ... FROM STDIN that takes the chunks, for restores by hand

	Rows   int64   `json:"rows"`
	Digest string  `json:"digest"` // sum of the chunks'
	Chunks []Chunk `json:"chunks"`

	// WideOver is the size in bytes above which rows of this table were captured
	// column by column; 0 when none was. WideBytes is the SQL that measures a row.
	WideOver  int64  `json:"wide_over,omitempty"`
	WideBytes string `json:"wide_bytes,omitempty"`
}

// Via names the table that a partition's rows are loaded through, because
// which partition a row belongs to depends on OIDs.
type Via struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
}

// Chunk is the rows of a range of a table's pages, or a part of what else a
// chunked database consists of.
type Chunk struct {
	Piece
	FirstPage uint32 `json:"first_page"`
	EndPage   uint32 `json:"end_page"` // the first page behind it
	// Wide are the rows that no COPY can carry as a whole. Rows and Digest of the
	// chunk count them.
	Wide []WideRow `json:"wide,omitempty"`

	// Of large objects: the range of oids, and, where the role may count them,
	// the pages of pg_largeobject that it consisted of, else -1.
	FirstOID uint32 `json:"first_oid,omitempty"`
	LastOID  uint32 `json:"last_oid,omitempty"`
	Pages    int64  `json:"pages,omitempty"`
}

// WideRow is one row, in pieces of some columns each, of one row each.
type WideRow struct {
	Pieces []WidePiece `json:"pieces"`
}

// WidePiece is some columns of one row.
type WidePiece struct {
	Piece
	Columns []string `json:"columns"`
	Format  string   `json:"format"`
}

// Piece is a COPY stream that lies, compressed, in an object.
type Piece struct {
	Set      string `json:"set,omitempty"`    // another set that holds the object; it is among this set's references
	Object   string `json:"object,omitempty"` // empty: no rows, and nothing is stored
	Offset   int64  `json:"offset"`
	Bytes    int64  `json:"bytes"`            // stored
	RawBytes int64  `json:"raw_bytes"`        // of the COPY stream
	Codec    string `json:"codec"`            // zstd:1, gzip:6, none
	SHA256   string `json:"sha256,omitempty"` // of the stored bytes
	Rows     int64  `json:"rows"`
	Digest   string `json:"digest"` // sum of the rows' 64-bit hashes, 16 hex digits
}

// SequenceValue is what setval needs.
type SequenceValue struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Last   int64  `json:"last,string"` // a string, because it may exceed what a JSON number holds for every reader
	Called bool   `json:"called"`
}

// LargeObjectChunks hold the large objects: who owns them, and what they hold.
type LargeObjectChunks struct {
	Count    int64   `json:"count"`
	Metadata Chunk   `json:"metadata"` // COPY text: oid, owner, acl, comment, and security labels if there are any
	Data     []Chunk `json:"data"`     // COPY binary: oid, offset, bytes
}

// MaterializedView is refreshed by a restore when it was populated.
type MaterializedView struct {
	Schema    string `json:"schema"`
	Name      string `json:"name"`
	Populated bool   `json:"populated"`
}

// Pieces calls fn for every piece, with the table that it belongs to; nil for
// large objects.
func (c *Contents) Pieces(fn func(t *ChunkedTable, p *Piece)) {
	each := func(t *ChunkedTable, chunk *Chunk) {
		fn(t, &chunk.Piece)
		for i := range chunk.Wide {
			for j := range chunk.Wide[i].Pieces {
				fn(t, &chunk.Wide[i].Pieces[j].Piece)
			}
		}
	}
	for i := range c.Tables {
		for j := range c.Tables[i].Chunks {
			each(&c.Tables[i], &c.Tables[i].Chunks[j])
		}
	}
	if lo := c.LargeObjects; lo != nil {
		each(nil, &lo.Metadata)
		for i := range lo.Data {
			each(nil, &lo.Data[i])
		}
	}
}

// maxContentsBytes bounds contents.json: a table and a chunk take about half a
// kilobyte each.
const maxContentsBytes = 1 << 30

// Contents reads what a chunked database of the set consists of, and checks it
// against the manifest. The digest of contents.json is checked on the way.
func (s *Set) Contents(ctx context.Context, d *Database) (*Contents, error) {
	if s.Locked() {
		return nil, errLocked(s.ID())
	}
	name := d.Dump + "/" + ContentsName
	object, ok := s.Object(name)
	if !ok || object.Bytes > maxContentsBytes {
		return nil, damaged(nil, "object %s of backup set %s is missing or too large", name, s.ID())
	}
	var c Contents
	if err := s.Reread(func() error { return s.readContents(ctx, name, &c) }); err != nil {
		return nil, err
	}
	if err := c.validate(s.manifest, d); err != nil {
		return nil, damaged(err, "object %s of backup set %s is not valid", name, s.ID())
	}
	return &c, nil
}

func (s *Set) readContents(ctx context.Context, name string, c *Contents) error {
	in, err := s.OpenObject(ctx, name)
	if err != nil {
		return err
	}
	defer in.Close()
	*c = Contents{}
	if err := json.NewDecoder(untilDone(ctx, in)).Decode(c); err != nil {
		return damaged(err, "object %s of backup set %s", name, s.ID())
	}
	_, err = io.Copy(io.Discard, in) // the digest
	return err
}

// validate checks every rule that FORMAT.md has for contents.json.
func (c *Contents) validate(m *Manifest, d *Database) error {
	if c.Database != d.Name {
		return fmt.Errorf("it is of database %q", c.Database)
	}
	objects := map[string]int64{}
	for _, o := range m.Objects {
		objects[o.Name] = o.Bytes
	}
	references := map[string]int64{}
	for _, r := range m.References {
		references[r.Set+"/"+r.Name] = r.Bytes
	}
	var err error
	c.Pieces(func(t *ChunkedTable, p *Piece) {
		if err != nil {
			return
		}
		if err = p.check(d, objects, references); err != nil && t != nil {
			err = fmt.Errorf("table %q.%q: %w", t.Schema, t.Name, err)
		}
	})
	if err != nil {
		return err
	}
	for i := range c.Tables {
		if err := c.Tables[i].check(); err != nil {
			return fmt.Errorf("table %q.%q: %w", c.Tables[i].Schema, c.Tables[i].Name, err)
		}
	}
	return nil
}

func (p *Piece) check(d *Database, objects, references map[string]int64) error {
	if p.Rows < 0 || p.Bytes < 0 || p.RawBytes < 0 || p.Offset < 0 {
		return errors.New("a size or a count of a chunk is negative")
	}
	if _, err := ParseDigest(p.Digest); err != nil {
		return err
	}
	if p.Object == "" {
		if p.Rows != 0 || p.Bytes != 0 {
			return errors.New("a chunk with rows has no object")
		}
		return nil
	}
	known, key := objects, p.Object
	if p.Set != "" {
		known, key = references, p.Set+"/"+p.Object
	} else if !strings.HasPrefix(p.Object, d.Dump+"/") {
		return fmt.Errorf("chunk %.80q lies in another database's folder", p.Object)
	}
	size, ok := known[key]
	if !ok {
		return fmt.Errorf("chunk %.80q is neither an object nor a reference", key)
	}
	if p.Offset > size || p.Bytes > size-p.Offset {
		return fmt.Errorf("a chunk reaches behind the end of %.80q", key)
	}
	return checkDigest(p.SHA256)
}

func (t *ChunkedTable) check() error {
	if t.Format != "text" && t.Format != "binary" {
		return fmt.Errorf("format %q is neither text nor binary", t.Format)
	}
	var rows int64
	var sum uint64
	pages := uint32(0)
	for i := range t.Chunks {
		c := &t.Chunks[i]
		if c.FirstPage < pages || c.EndPage < c.FirstPage {
			return errors.New("its chunks overlap, or are out of order")
		}
		pages = c.EndPage
		digest, _ := ParseDigest(c.Digest) // checked before
		rows, sum = rows+c.Rows, sum+digest
	}
	if rows != t.Rows || FormatDigest(sum) != t.Digest {
		return errors.New("the rows of its chunks do not add up")
	}
	return nil
}

// FormatDigest writes a sum of row hashes.
func FormatDigest(sum uint64) string { return fmt.Sprintf("%016x", sum) }

// ParseDigest reads what FormatDigest wrote.
func ParseDigest(text string) (uint64, error) {
	var sum uint64
	if len(text) != 16 || strings.Trim(text, "0123456789abcdef") != "" {
		return 0, fmt.Errorf("row digest %.20q is not 16 lower-case hex digits", text)
	}
	_, err := fmt.Sscanf(text, "%x", &sum)
	return sum, err
}

// OpenPiece reads a piece, still compressed, from its object. It ends where the
// piece does; the digest of the piece is checked there, in place of io.EOF. The
// caller closes it.
func (s *Set) OpenPiece(ctx context.Context, p *Piece) (io.ReadCloser, error) {
	id := p.Set
	if id == "" {
		id = s.ID()
	}
	key := id + "/" + p.Object
	in, err := s.openRange(ctx, id, p)
	if err != nil {
		return nil, damaged(err, "object %s", key)
	}
	return newCheckedReader(in, Object{Name: p.Object, Bytes: p.Bytes, SHA256: p.SHA256},
		fmt.Sprintf("object %s at byte %d", key, p.Offset), true), nil
}

// Reference is an object of an older set that this set needs: its rows were
// proven unchanged, and not captured again.
type Reference struct {
	Database string `json:"database"` // of this set, which needs it
	Set      string `json:"set"`
	Object
}

// path is how SHA256SUMS names it, from within the set's folder.
func (r Reference) path() string { return "../" + r.Set + "/" + r.Name }

func compareReferences(a, b Reference) int { return strings.Compare(a.path(), b.path()) }

// checkReferences: sorted, each once, none to the set itself.
func (m *Manifest) checkReferences() error {
	if len(m.References) > maxObjects {
		return fmt.Errorf("references has %d entries, more than %d", len(m.References), maxObjects)
	}
	for i, r := range m.References {
		if err := errors.Join(r.check(), CheckID(r.Set)); err != nil {
			return fmt.Errorf("references: %w", err)
		}
		if r.Set == m.ID {
			return fmt.Errorf("reference %s is to the set itself", r.Name)
		}
		if i > 0 && compareReferences(m.References[i-1], r) >= 0 {
			return fmt.Errorf("reference %s is listed twice or out of order", r.path())
		}
		if !slices.ContainsFunc(m.Databases, func(d Database) bool { return d.Name == r.Database && d.Mode == Chunked }) {
			return fmt.Errorf("reference %s is of a database that is not in the set, or is not chunked", r.path())
		}
	}
	return nil
}

// missingBase says that a set cannot be used without another one.
func missingReference(r Reference, why string, args ...any) error {
	return fault.New(fault.Integrity, "put the older set "+r.Set+" back: this set needs chunks of it",
		"object %s of backup set %s, which this set needs, %s", r.Name, r.Set, fmt.Sprintf(why, args...))
}
