package pgcopy

import (
	"time"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
)

// extent is a range of pages.
type extent struct {
	first, end uint32
}

func (e extent) pages() uint32 { return e.end - e.first }

// planner cuts tables into chunks.
type planner struct {
	chunkBytes int64 // of heap and TOAST together, at most
	pageBytes  int64
	minTail    int64
}

// limits are the sizes from which things are done in another way. Tests lower
// them, to come there with less.
type limits struct {
	leastChunk int64         // see capture.chunkBytes
	minTail    int64         // see planner.tail
	wideOver   int64         // bytes from which a row is wide
	sliceBytes int64         // of a value that is read in slices
	pingEvery  time.Duration // see snapshot.keep
	refuse     refusal
}

// refusal is what is taken for too large for the server, although it is not, when it
// holds a row above wideOver.
type refusal int

const (
	refuseNothing refusal = iota
	refuseChunks
	refuseRows // and chunks
)

func ordinary() limits {
	return limits{leastChunk: leastChunk, minTail: minTail, wideOver: wideOver, sliceBytes: sliceBytes, pingEvery: pingEvery}
}

// Pages at the end of a large table get a chunk of their own, of this part of a
// chunk: appended rows go to the last page first, and an incremental run then
// reads little again.
const tailPart = 16

// minTail is what such a chunk holds at least: below it there is nothing to
// save.
const minTail = 4 << 20

// split cuts an extent of a table of which every page stands for
// bytesPerPage, its TOAST included. open says that it reaches the table's end.
func (p planner) split(e extent, bytesPerPage float64, open bool) []extent {
	if e.pages() == 0 {
		return nil
	}
	var parts []extent
	tail := p.tail(e, bytesPerPage, open)
	body := extent{e.first, e.end - tail}
	total := float64(body.pages()) * bytesPerPage
	n := uint32(min(total/float64(p.chunkBytes)+0.999999, float64(body.pages())))
	n = max(n, 1)
	for i := range n {
		part := extent{
			body.first + uint32(uint64(body.pages())*uint64(i)/uint64(n)),
			body.first + uint32(uint64(body.pages())*uint64(i+1)/uint64(n)),
		}
		if part.pages() > 0 {
			parts = append(parts, part)
		}
	}
	if tail > 0 {
		parts = append(parts, extent{body.end, e.end})
	}
	return parts
}

// tail is how many pages at the end get a chunk of their own.
func (p planner) tail(e extent, bytesPerPage float64, open bool) uint32 {
	total := float64(e.pages()) * bytesPerPage
	want := float64(p.chunkBytes) / tailPart
	if !open || want < float64(p.minTail) || total < 4*want {
		return 0
	}
	return max(uint32(want/bytesPerPage), 1)
}

// bytesPerPage is what a page of the table stands for.
func (p planner) bytesPerPage(size pg.RelationSize) float64 {
	pages := size.Heap / p.pageBytes
	if pages == 0 {
		return float64(p.pageBytes)
	}
	return float64(size.Heap+size.Toast) / float64(pages)
}

// region is a part of a table that is read, or first looked at whether a chunk of
// the base still holds its rows.
type region struct {
	extent
	candidate *Finished // nil: read it
	open      bool      // reaches the end of the table
}

// regions covers a table's pages with the base's chunks, and what is between and
// behind them with new ones. The last chunk of the base, when it does not reach
// the end any more, is looked at together with what was appended behind it.
func (p planner) regions(pages uint32, bytesPerPage float64, candidates []Finished) []region {
	var all []region
	at := uint32(0)
	for i := range candidates {
		c := &candidates[i]
		if c.Chunk.FirstPage > at {
			all = append(all, p.fresh(extent{at, min(c.Chunk.FirstPage, max(pages, at))}, bytesPerPage, false)...)
		}
		all = append(all, region{extent: extent{c.Chunk.FirstPage, c.Chunk.EndPage}, candidate: c})
		at = max(at, c.Chunk.EndPage)
	}
	if len(all) > 0 && all[len(all)-1].candidate != nil {
		last := &all[len(all)-1]
		last.open = true
		last.end = max(last.end, pages)
		return all
	}
	return append(all, p.fresh(extent{at, max(pages, at)}, bytesPerPage, true)...)
}

func (p planner) fresh(e extent, bytesPerPage float64, open bool) []region {
	var all []region
	parts := p.split(e, bytesPerPage, open)
	for i, part := range parts {
		all = append(all, region{extent: part, open: open && i == len(parts)-1})
	}
	return all
}

// emptyChunk stands for a table without pages.
func emptyChunk(codec string) backupset.Chunk {
	return backupset.Chunk{Piece: backupset.Piece{Codec: codec, Digest: backupset.FormatDigest(0)}}
}
