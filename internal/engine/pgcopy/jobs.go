package pgcopy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"dbbackup/internal/backupset"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgname"
)

// Small tables share objects: a file of its own for each of ten thousand costs
// more than reading them.
const (
	smallBytes = 1 << 20  // a part below this is small
	packBytes  = 32 << 20 // of small parts in one object, at most
	packParts  = 200      // as many, at most
)

// Chunks are made smaller than asked for when the database would otherwise give
// the workers too little to share, and not below this.
const (
	chunksPerWorker = 8
	leastChunk      = 32 << 20
)

// plan turns the locked tables into jobs.
func (c *capture) plan(ctx context.Context) error {
	block, err := c.leader.BlockSize(ctx)
	if err != nil {
		return err
	}
	if err := c.planTables(ctx, block); err != nil {
		return err
	}
	if c.req.SkipLargeObjects {
		return nil
	}
	return c.planLargeObjects(ctx)
}

func (c *capture) planTables(ctx context.Context, block int64) error {
	without := map[pgname.Table]bool{}
	for _, t := range c.req.WithoutData {
		without[t] = true
	}
	var oids []uint32
	for i := range c.shapes {
		if !without[c.shapes[i].Table] {
			oids = append(oids, c.shapes[i].OID)
		}
	}
	sizes, err := c.leader.Sizes(ctx, oids)
	if err != nil {
		return err
	}
	total := int64(0)
	for _, s := range sizes {
		total += s.Heap + s.Toast
	}
	c.planner = planner{chunkBytes: c.chunkBytes(total), pageBytes: block, minTail: c.limits.minTail}
	var parts []small
	var doubts []doubt
	for i := range c.shapes {
		s := &c.shapes[i]
		size, ok := sizes[s.OID]
		if !ok {
			if !without[s.Table] {
				return changedError("%s is gone", s.Printable())
			}
			continue
		}
		t := &table{Shape: s, binary: s.Portable && (s.Bytea || c.req.Binary), pages: uint32((size.Heap + block - 1) / block), bytesPerPage: c.planner.bytesPerPage(size)} //nolint:gosec // PostgreSQL's own limit is 2^32 pages
		t.ranges = s.Heap && s.Where == "" && c.leader.VersionNum() >= 140000
		c.tables = append(c.tables, t)
		more, doubtful := c.planTable(t)
		parts, doubts = append(parts, more...), append(doubts, doubtful...)
	}
	c.addPacks(parts)
	c.addDoubts(doubts)
	return nil
}

// chunkBytes is the size of chunks for a database of so many bytes.
func (c *capture) chunkBytes(total int64) int64 {
	return min(c.req.ChunkBytes, max(total/int64(chunksPerWorker*max(c.req.Workers, 1)), c.limits.leastChunk))
}

// planTable makes the jobs of one table. Small parts are returned, to be packed
// with those of others.
func (c *capture) planTable(t *table) (parts []small, doubts []doubt) {
	candidates := c.candidates(t)
	if !t.ranges {
		return c.planWhole(t, candidates)
	}
	if t.pages == 0 && len(candidates) == 0 {
		c.take(t, emptyChunk(c.req.Codec.String()))
		return nil, nil
	}
	for _, r := range c.planner.regions(t.pages, t.bytesPerPage, candidates) {
		switch {
		case r.candidate != nil:
			doubts = append(doubts, doubt{t, r})
		case c.isSmall(t, r.extent) && r.open:
			parts = append(parts, small{t, r.extent})
		default:
			c.addChunk(t, r)
		}
	}
	return parts, doubts
}

// planWhole is planTable for what cannot be read by ranges of pages.
func (c *capture) planWhole(t *table, candidates []Finished) ([]small, []doubt) {
	r := region{extent: extent{0, max(t.pages, 1)}, open: true}
	if len(candidates) == 1 && candidates[0].Chunk.FirstPage == 0 && t.Heap && t.Where == "" {
		r.candidate = &candidates[0]
		r.end = max(r.end, r.candidate.Chunk.EndPage)
		return nil, []doubt{{t, r}}
	}
	if c.isSmall(t, r.extent) {
		return []small{{t, r.extent}}, nil
	}
	c.addChunk(t, r)
	return nil, nil
}

// candidates are the base's chunks for a table, if a proof can be tried at all.
func (c *capture) candidates(t *table) []Finished {
	if t.Unstable || t.Where != "" || !t.Heap || !c.identity.Known() {
		return nil
	}
	all := c.req.Base.candidates(c.identity, t.OID, t.Filenode, t.fingerprint(), t.format())
	return slices.DeleteFunc(all, func(f Finished) bool { return !c.provable(&f) })
}

func (c *capture) bytes(t *table, e extent) int64 { return int64(float64(e.pages()) * t.bytesPerPage) }

func (c *capture) isSmall(t *table, e extent) bool { return c.bytes(t, e) < smallBytes }

// addChunk adds the job of reading one region.
func (c *capture) addChunk(t *table, r region) {
	c.queue.add(&job{
		bytes: c.bytes(t, r.extent),
		what:  fmt.Sprintf("table %s, pages %d to %d", t.Printable(), r.first, r.end),
		run:   func(ctx context.Context, w *worker) error { return w.chunk(ctx, t, r.extent, r.open) },
	})
}

// addPacks adds the jobs of reading small parts.
func (c *capture) addPacks(parts []small) {
	for len(parts) > 0 {
		bytes, n := int64(0), 0
		for n < len(parts) && n < packParts && (n == 0 || bytes < packBytes) {
			bytes += c.bytes(parts[n].t, parts[n].extent)
			n++
		}
		pack := parts[:n:n]
		parts = parts[n:]
		what := "table " + pack[0].t.Printable()
		if n > 1 {
			what += fmt.Sprintf(" and %d more", n-1)
		}
		c.queue.add(&job{bytes: bytes, what: what, run: func(ctx context.Context, w *worker) error { return w.pack(ctx, pack) }})
	}
}

// finish writes down what was captured. The leader may be lost by now, which is no
// harm: what happened to a table after that is found out.
func (c *capture) finish(ctx context.Context) error {
	contents := c.contents()
	err := c.apart(ctx, func(ctx context.Context, conn *pg.Conn) error {
		if err := c.compareShapes(ctx, conn); err != nil { // a type can be altered although its tables are locked
			return err
		}
		return c.readSequences(ctx, conn, contents)
	})
	if err != nil {
		return err
	}
	if err := c.dropUnused(ctx); err != nil {
		return err
	}
	c.summarize(contents)
	if err := c.set.CheckContents(c.req.Folder, contents, c.captured.References); err != nil {
		return err
	}
	return writeContents(ctx, c.set, c.req.Folder+"/"+backupset.ContentsName, contents)
}

// dropUnused removes objects of earlier attempts of which nothing is right any
// more.
func (c *capture) dropUnused(ctx context.Context) error {
	var doomed []string
	for _, name := range c.set.Committed(c.req.Folder) {
		if numberOf(name) > 0 && !c.usesObject[name] {
			doomed = append(doomed, name)
		}
	}
	return c.set.Drop(ctx, doomed...)
}

// contents describes the captured database, but for the values of its sequences.
func (c *capture) contents() *backupset.Contents {
	contents := &backupset.Contents{
		Database: c.req.Database, DatabaseOID: c.identity.DatabaseOID, Encoding: c.encoding,
		Tables: []backupset.ChunkedTable{}, Sequences: []backupset.SequenceValue{}, MaterializedViews: []backupset.MaterializedView{},
		LargeObjects: c.blobs.contents(),
	}
	for _, t := range c.tables {
		contents.Tables = append(contents.Tables, c.describe(t))
	}
	for _, v := range c.views {
		contents.MaterializedViews = append(contents.MaterializedViews,
			backupset.MaterializedView{Schema: v.Schema, Name: v.Name, Populated: v.Populated})
	}
	return contents
}

// readSequences comes last: what was captured before used no later value (FACTS:
// sequences and snapshots).
func (c *capture) readSequences(ctx context.Context, conn *pg.Conn, contents *backupset.Contents) error {
	values, err := conn.SequenceValues(ctx, c.sequences)
	if pg.IsGone(err) {
		return changedError("%w", err)
	}
	if err != nil {
		return err
	}
	for _, v := range values {
		contents.Sequences = append(contents.Sequences, backupset.SequenceValue{Schema: v.Schema, Name: v.Name, Last: v.Last, Called: v.Called})
	}
	return nil
}

// describe sums up a table.
func (c *capture) describe(t *table) backupset.ChunkedTable {
	quote := func(name string) string { return pg.QuoteFor(c.encoding, name) }
	slices.SortFunc(t.chunks, func(a, b backupset.Chunk) int { return int(int64(a.FirstPage) - int64(b.FirstPage)) })
	d := backupset.ChunkedTable{
		Schema: t.Schema, Name: t.Name, OID: t.OID, Filenode: t.Filenode, Fingerprint: t.fingerprint(),
		Columns: append([]string{}, t.Columns...), Format: t.format(), Where: t.Where, Chunks: append([]backupset.Chunk{}, t.chunks...),
	}
	into := t.Table
	if t.Via != (pgname.Table{}) {
		into = t.Via
		d.Via = &backupset.Via{Schema: t.Via.Schema, Name: t.Via.Name}
	}
	d.Load = loadSQL(quote, into, t.Columns, d.Format)
	sum := uint64(0)
	for i := range d.Chunks {
		n, _ := backupset.ParseDigest(d.Chunks[i].Digest) // written by FormatDigest
		d.Rows, sum = d.Rows+d.Chunks[i].Rows, sum+n
	}
	d.Digest = backupset.FormatDigest(sum)
	if t.wideOver > 0 {
		d.WideOver, d.WideBytes = t.wideOver, t.WideExpression(quote)
	}
	return d
}

// summarize fills in what the manifest says.
func (c *capture) summarize(contents *backupset.Contents) {
	got := &c.captured
	got.Dump = c.req.Folder
	from, references := map[string]bool{}, map[string]backupset.Reference{}
	contents.Pieces(func(_ *backupset.ChunkedTable, p *backupset.Piece) {
		got.RawBytes += p.RawBytes
		if p.Object == "" {
			return
		}
		got.Chunks.Count++
		if c.req.Base.reused(p) {
			got.Chunks.Reused++
			got.Chunks.ReusedBytes += p.Bytes
		}
		if p.Set == "" {
			return
		}
		from[p.Set] = true
		got.ReferredBytes += p.Bytes
		references[p.Set+"/"+p.Object] = backupset.Reference{Database: c.req.Database, Set: p.Set, Object: c.req.Base.object(p)}
	})
	for i := range contents.Tables {
		got.Chunks.Rows += contents.Tables[i].Rows
	}
	got.Chunks.From = []string{}
	for set := range from {
		got.Chunks.From = append(got.Chunks.From, set)
	}
	slices.Sort(got.Chunks.From)
	for _, r := range references {
		got.References = append(got.References, r)
	}
	for _, o := range c.set.CommittedObjects(c.req.Folder) {
		got.StoredBytes += o.Bytes
	}
}

// explainRoom says how much is free and how much is needed, if the store being full is what failed.
func (c *capture) explainRoom(err error) error {
	if c.req.Free == nil || !errors.Is(err, unix.ENOSPC) {
		return err
	}
	free, inodes, freeErr := c.req.Free()
	if freeErr != nil {
		return err
	}
	return fault.New(fault.Failed, "free space or delete old backup sets; then `dbbackup resume` goes on with what is there",
		"the store is full (%d bytes and %d inodes are free), and the database needs about %d bytes: %w", free, inodes, c.req.Expected, err)
}
