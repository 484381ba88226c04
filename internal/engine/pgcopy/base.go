package pgcopy

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
)

// Finished is a chunk that was captured under some snapshot, with all that has
// to be the same for the proof that it still is right. It is what a journal
// holds.
type Finished struct {
	Identity    pg.Identity     `json:"identity"`
	OID         uint32          `json:"oid"`
	Filenode    uint32          `json:"filenode"`
	Fingerprint string          `json:"fingerprint"`
	Format      string          `json:"format"`
	Horizon     uint64          `json:"horizon"` // 64-bit xmin of the snapshot
	LSN         string          `json:"lsn"`     // WAL position that the snapshot does not lie behind
	Chunk       backupset.Chunk `json:"chunk"`
	LargeObject bool            `json:"large_object,omitempty"`
	WideBytes   string          `json:"wide_bytes,omitempty"`
}

// Base is what a capture may start from: chunks of an older set, of an
// interrupted run, or of an earlier attempt of the same run.
type Base struct {
	mu      sync.Mutex
	chunks  map[uint32][]Finished       // by table; 0: large objects
	objects map[string]backupset.Object // by set/name, of what the chunks lie in
	adopted map[string]bool             // those that an interrupted run left
	next    int                         // number of the next object in the folder
}

// NewBase returns a base without chunks.
func NewBase() *Base {
	return &Base{chunks: map[uint32][]Finished{}, objects: map[string]backupset.Object{}, adopted: map[string]bool{}}
}

// Empty reports whether there is nothing to start from.
func (b *Base) Empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.chunks) == 0
}

func (b *Base) add(f Finished, objects ...backupset.Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	oid := f.OID
	if f.LargeObject {
		oid = 0
	}
	b.chunks[oid] = append(b.chunks[oid], f)
	for _, o := range objects {
		b.objects["/"+o.Name] = o
	}
}

// object returns what is known of the object of a piece.
func (b *Base) object(p *backupset.Piece) backupset.Object {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.objects[p.Set+"/"+p.Object]
}

// reused reports whether a piece lies in what this run did not capture.
func (b *Base) reused(p *backupset.Piece) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return p.Set != "" || b.adopted[p.Object]
}

// number returns the number for a new object.
func (b *Base) number() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	return b.next
}

// candidates returns the chunks of a table that the proof can be tried on: of
// the same history, file and definition, in the order of their pages and none
// over another. Where two overlap, the one that was added last is taken.
func (b *Base) candidates(id pg.Identity, oid, filenode uint32, fingerprint, format string) []Finished {
	b.mu.Lock()
	defer b.mu.Unlock()
	var fit []Finished
	for _, f := range slices.Backward(b.chunks[oid]) {
		if f.Identity != id || f.Filenode != filenode || f.Fingerprint != fingerprint || f.Format != format || f.Chunk.EndPage == 0 {
			continue
		}
		if !slices.ContainsFunc(fit, func(g Finished) bool { return overlap(f.Chunk, g.Chunk) }) {
			fit = append(fit, f)
		}
	}
	slices.SortFunc(fit, func(f, g Finished) int { return cmp.Compare(f.Chunk.FirstPage, g.Chunk.FirstPage) })
	return fit
}

func overlap(a, b backupset.Chunk) bool {
	return a.FirstPage < b.EndPage && b.FirstPage < a.EndPage || a.FirstPage == b.FirstPage
}

// AddSet adds the chunks of a chunked database of an older set.
func (b *Base) AddSet(set *backupset.Set, d *backupset.Database, c *backupset.Contents) {
	m := set.Manifest()
	id := pg.Identity{System: m.Server.SystemIdentifier, Timeline: d.Snapshot.Timeline, DatabaseOID: c.DatabaseOID}
	if !id.Known() {
		return
	}
	objects := map[string]backupset.Object{}
	for _, o := range m.Objects {
		objects[set.ID()+"/"+o.Name] = o
	}
	for _, r := range m.References {
		objects[r.Set+"/"+r.Name] = r.Object
	}
	refer := func(chunk backupset.Chunk) backupset.Chunk {
		chunk.Piece = referred(chunk.Piece, set.ID())
		chunk.Wide = slices.Clone(chunk.Wide)
		for i := range chunk.Wide {
			pieces := slices.Clone(chunk.Wide[i].Pieces)
			for j := range pieces {
				pieces[j].Piece = referred(pieces[j].Piece, set.ID())
			}
			chunk.Wide[i].Pieces = pieces
		}
		return chunk
	}
	for i := range c.Tables {
		t := &c.Tables[i]
		for _, chunk := range t.Chunks {
			b.add(Finished{
				Identity: id, OID: t.OID, Filenode: t.Filenode, Fingerprint: t.Fingerprint, Format: t.Format,
				Horizon: d.Snapshot.XMin, LSN: d.Snapshot.LSN, Chunk: refer(chunk), WideBytes: t.WideBytes,
			})
		}
	}
	if c.LargeObjects != nil {
		for _, chunk := range c.LargeObjects.Data {
			b.add(Finished{Identity: id, Format: formatBinary, Horizon: d.Snapshot.XMin, LSN: d.Snapshot.LSN, Chunk: refer(chunk), LargeObject: true})
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, o := range objects {
		b.objects[key] = o
	}
}

// referred makes a piece of another set, unless it refers to one already.
func referred(p backupset.Piece, set string) backupset.Piece {
	if p.Object != "" && p.Set == "" {
		p.Set = set
	}
	return p
}

// journalFolder holds, within a database's folder, one scratch object for each
// object of chunks: what is needed to start from them again.
const journalFolder = backupset.JournalFolder

// journalEntry is a scratch object.
type journalEntry struct {
	Objects  []backupset.Object `json:"objects"`
	Finished []Finished         `json:"finished"`
}

// AddInterrupted takes over what an interrupted run captured of a database, and
// was durable when it ended: the chunks whose objects read as their journal says.
func (b *Base) AddInterrupted(ctx context.Context, set *backupset.Writer, folder string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4)
	for _, name := range set.Found(folder) {
		if n := numberOf(name); n > b.next {
			b.next = n
		}
		if path.Base(path.Dir(name)) != journalFolder {
			continue
		}
		group.Go(func() error { return b.adopt(ctx, set, name) })
	}
	return group.Wait()
}

// adopt takes over one journal entry. What of it is not whole is as if it had
// not been captured.
func (b *Base) adopt(ctx context.Context, set *backupset.Writer, name string) error {
	text, err := set.Scratch(ctx, name)
	if err != nil {
		return err
	}
	var entry journalEntry
	if json.Unmarshal(text, &entry) != nil || len(entry.Finished) == 0 {
		return nil // cut, as a crash leaves it
	}
	for _, o := range entry.Objects {
		if err := set.Adopt(ctx, o); err != nil {
			return ctx.Err() // damaged: captured again
		}
	}
	set.KeepScratch(name)
	b.mu.Lock()
	for _, o := range entry.Objects {
		b.adopted[o.Name] = true
	}
	b.mu.Unlock()
	for _, f := range entry.Finished {
		b.add(f, entry.Objects...)
	}
	return nil
}

// objectName is that of the object with a number, below folder.
func objectName(folder string, number int, suffix string) string {
	return fmt.Sprintf("%s/%06d%s", folder, number, suffix)
}

// numberOf reads the number of an object's or a journal entry's name.
func numberOf(name string) int {
	base, _, _ := strings.Cut(path.Base(name), ".")
	n, err := strconv.Atoi(base)
	if err != nil {
		return 0
	}
	return n
}

// largeObjects are the chunks of large objects of one history.
func (b *Base) largeObjects(id pg.Identity) []Finished {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(b.chunks[0]), func(f Finished) bool { return f.Identity != id })
}

// writeContents stores contents.json, table by table: as a whole it would take
// memory several times its size.
func writeContents(ctx context.Context, set *backupset.Writer, name string, c *backupset.Contents) (err error) {
	out, err := set.Object(ctx, name, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Abort()) }() // after a commit this does nothing
	frame := *c
	frame.Tables = []backupset.ChunkedTable{}
	text, err := json.Marshal(frame)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	// No string can hold this: its quotes would be escaped.
	before, after, _ := bytes.Cut(text, []byte(`"tables":[]`))
	buffered := bufio.NewWriterSize(out, bufferBytes)
	buffered.Write(before)             //nolint:errcheck // Flush reports
	buffered.WriteString(`"tables":[`) //nolint:errcheck // as above
	for i := range c.Tables {
		table, err := json.Marshal(&c.Tables[i])
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		if i > 0 {
			buffered.WriteString(",\n") //nolint:errcheck // as above
		}
		buffered.Write(table) //nolint:errcheck // as above
	}
	buffered.WriteString("]")  //nolint:errcheck // as above
	buffered.Write(after)      //nolint:errcheck // as above
	buffered.WriteString("\n") //nolint:errcheck // as above
	if err := buffered.Flush(); err != nil {
		return err
	}
	_, err = out.Commit()
	return err
}
