package pgcopy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
)

// Large objects are read with the lo_ functions only, which work without
// superuser: who owns them in one stream of text (oid, owner, privileges,
// comment, labels), and what they hold in streams of (oid, offset, bytes).
const (
	blobPiece = 1 << 20 // bytes of one row
	blobBatch = 1000    // large objects in a chunk, about
)

// largeObjects is what becomes of them.
type largeObjects struct {
	mu sync.Mutex
	backupset.LargeObjectChunks
}

func (b *largeObjects) contents() *backupset.LargeObjectChunks {
	if b == nil {
		return nil
	}
	b.Data = append([]backupset.Chunk{}, b.Data...)
	return &b.LargeObjectChunks
}

// planLargeObjects makes the jobs for them.
func (c *capture) planLargeObjects(ctx context.Context) error {
	batches, err := c.leader.LargeObjectBatches(ctx, blobBatch, c.req.ChunkBytes)
	if err != nil || len(batches) == 0 {
		return err
	}
	c.blobs = &largeObjects{}
	for _, b := range batches {
		c.blobs.Count += b.Count
	}
	c.queue.add(&job{bytes: 1, what: "owners of large objects", run: c.readBlobOwners})
	known := map[[2]uint32]*Finished{}
	if c.identity.Known() {
		for _, f := range c.req.Base.largeObjects(c.identity) {
			if c.provable(&f) && f.Chunk.Pages >= 0 {
				known[[2]uint32{f.Chunk.FirstOID, f.Chunk.LastOID}] = &f
			}
		}
	}
	for _, b := range batches {
		candidate := known[[2]uint32{b.First, b.Last}]
		c.queue.add(&job{
			bytes: b.Count * 64 << 10, what: fmt.Sprintf("large objects %d to %d", b.First, b.Last),
			run: func(ctx context.Context, w *worker) error { return w.blobs(ctx, b, candidate) },
		})
	}
	return nil
}

// blobs reads one batch, unless it is proven unchanged.
func (w *worker) blobs(ctx context.Context, b pg.LargeObjectBatch, candidate *Finished) error {
	if candidate != nil {
		pages, born, err := w.countPages(ctx, b, candidate.Horizon)
		if err != nil {
			return err
		}
		if born == 0 && pages == candidate.Chunk.Pages {
			w.c.stored.Add(candidate.Chunk.Bytes)
			w.c.addBlobs(candidate.Chunk)
			return nil
		}
	}
	pages, _, err := w.countPages(ctx, b, w.c.snapshot.XMin)
	if err != nil {
		return err
	}
	sql := blobsSQL(b.First, b.Last)
	var chunk backupset.Chunk
	var objects []backupset.Object
	err = w.stream.Released(ctx, func() (err error) {
		chunk, objects, err = w.copyBlobs(ctx, "read large objects", sql, formatBinary)
		return err
	})
	if err != nil {
		return err
	}
	chunk.FirstOID, chunk.LastOID, chunk.Pages = b.First, b.Last, pages
	f := Finished{Identity: w.c.identity, Format: formatBinary, Horizon: w.c.snapshot.XMin, LSN: w.c.snapshot.LSN, Chunk: chunk, LargeObject: true}
	if err := w.c.journal(ctx, journalEntry{Objects: objects, Finished: []Finished{f}}); err != nil {
		return err
	}
	w.c.req.Base.add(f, objects...)
	w.c.addBlobs(chunk)
	return nil
}

// blobsSQL is the statement that reads the large objects of a range. One that is
// empty has no rows.
func blobsSQL(first, last uint32) string {
	return fmt.Sprintf(`COPY (SELECT s.oid, g.at, lo_get(s.oid, g.at, %d)
		FROM (SELECT o.oid, lo_lseek64(o.fd, 0, 2) AS size, o.fd
		        FROM (SELECT m.oid, lo_open(m.oid, 262144) AS fd FROM pg_largeobject_metadata m
		               WHERE m.oid >= %d AND m.oid <= %d OFFSET 0) o OFFSET 0) s
		CROSS JOIN LATERAL (SELECT s.size + 0 * lo_close(s.fd) AS size OFFSET 0) z
		CROSS JOIN LATERAL generate_series(0::bigint, z.size - 1, %d) g(at)) TO STDOUT (FORMAT binary)`,
		blobPiece, first, last, blobPiece)
}

// copyBlobs reads one stream into an object of its own.
func (w *worker) copyBlobs(ctx context.Context, step, sql, format string) (backupset.Chunk, []backupset.Object, error) {
	out, err := w.open(ctx)
	if err != nil {
		return backupset.Chunk{}, nil, err
	}
	piece, err := w.copyOut(ctx, out, "large objects", step, sql, format)
	if err != nil {
		return backupset.Chunk{}, nil, errors.Join(err, out.Abort())
	}
	stored, err := out.Commit()
	if err != nil {
		return backupset.Chunk{}, nil, err
	}
	piece.SHA256 = stored.SHA256
	return backupset.Chunk{Piece: piece}, []backupset.Object{stored}, nil
}

// countPages counts the pages of a batch, and those that are younger than a
// horizon; -1 where the role may not look. VACUUM FULL moves pages and changes
// neither their key nor their xmin, so the proof holds by key.
func (w *worker) countPages(ctx context.Context, b pg.LargeObjectBatch, horizon uint64) (pages, born int64, err error) {
	var counts []int64
	err = w.stream.Released(ctx, func() (err error) {
		counts, err = w.stream.Int64s(ctx, "look for changes", fmt.Sprintf(
			"SELECT count(*), count(*) FILTER (WHERE age(xmin) BETWEEN 0 AND age('%d'::xid)) FROM pg_largeobject WHERE loid >= %d AND loid <= %d",
			uint32(horizon), b.First, b.Last)) //nolint:gosec // the low half is what an xid is
		return err
	})
	switch {
	case err == nil:
		return counts[0], counts[1], nil
	case pg.IsForbidden(err):
		return -1, 0, nil
	}
	return 0, 0, err
}

func (c *capture) addBlobs(chunk backupset.Chunk) {
	c.use(chunk)
	c.blobs.mu.Lock()
	defer c.blobs.mu.Unlock()
	c.blobs.Data = append(c.blobs.Data, chunk)
}

// readBlobOwners reads who owns the large objects, their privileges (those that
// were granted by others than the owner with the grantor) and comments, and, where
// there are any, their security labels in a fifth column.
func (c *capture) readBlobOwners(ctx context.Context, w *worker) error {
	const columns = `COPY (SELECT m.oid, coalesce(o.rolname::text, ''),
		CASE WHEN m.lomacl IS NULL THEN '' ELSE coalesce((SELECT json_agg(json_build_object(
		       'grantee', coalesce(r.rolname::text, ''), 'privilege', a.privilege_type, 'grantable', a.is_grantable) ORDER BY n)::text
		  FROM aclexplode(m.lomacl) WITH ORDINALITY a(grantor, grantee, privilege_type, is_grantable, n)
		  LEFT JOIN pg_roles r ON r.oid = a.grantee), '[]') END,
		coalesce(obj_description(m.oid, 'pg_largeobject'), '')`
	const labels = `, coalesce((SELECT json_agg(json_build_object('provider', l.provider, 'label', l.label) ORDER BY l.provider COLLATE "C")::text
		FROM pg_seclabel l WHERE l.classoid = 'pg_largeobject'::regclass AND l.objoid = m.oid), '')`
	const from = ` FROM pg_largeobject_metadata m LEFT JOIN pg_roles o ON o.oid = m.lomowner ORDER BY m.oid) TO STDOUT (ENCODING 'UTF8')`
	var chunk backupset.Chunk
	err := w.stream.Released(ctx, func() (err error) {
		labelled, err := w.stream.Int64s(ctx, "count the security labels of large objects",
			"SELECT count(*) FROM pg_seclabel WHERE classoid = 'pg_largeobject'::regclass")
		if err != nil {
			return err
		}
		sql := columns + from
		if labelled[0] > 0 {
			sql = columns + labels + from
		}
		chunk, _, err = w.copyBlobs(ctx, "read the owners of large objects", strings.Join(strings.Fields(sql), " "), formatText)
		return err
	})
	if err != nil {
		return err
	}
	c.use(chunk)
	c.blobs.mu.Lock()
	defer c.blobs.mu.Unlock()
	c.blobs.Metadata = chunk
	return nil
}
