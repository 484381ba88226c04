package pgcopy

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"dbbackup/internal/backupset"
	"dbbackup/internal/pg"
)

func drawPlanner(t *rapid.T) (p planner, bytesPerPage float64) {
	p = planner{
		chunkBytes: rapid.Int64Range(1, 1<<40).Draw(t, "chunk bytes"),
		pageBytes:  rapid.SampledFrom([]int64{8192, 1024, 32768}).Draw(t, "page bytes"),
		minTail:    rapid.SampledFrom([]int64{0, 4 << 20, 1}).Draw(t, "min tail"),
	}
	pages := rapid.Int64Range(0, 1<<20).Draw(t, "heap pages")
	toast := rapid.Int64Range(0, 1<<44).Draw(t, "toast")
	return p, p.bytesPerPage(pg.RelationSize{Heap: pages * p.pageBytes, Toast: toast})
}

// The parts of an extent are all of it, in order, each once, and no larger than a
// chunk may be, but for one page.
func TestSplitCoversExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, bytesPerPage := drawPlanner(t)
		p.chunkBytes = max(p.chunkBytes, 1<<20) // thousands of parts are enough
		first := rapid.Uint32Range(0, 1<<31).Draw(t, "first")
		e := extent{first, first + rapid.Uint32Range(0, 5000).Draw(t, "pages")}
		open := rapid.Bool().Draw(t, "open")
		at := e.first
		for i, part := range p.split(e, bytesPerPage, open) {
			if part.first != at || part.end <= part.first {
				t.Fatalf("part %d is %+v, and the one before it ends at %d", i, part, at)
			}
			if size := float64(part.pages()-1) * bytesPerPage; size > float64(p.chunkBytes) {
				t.Fatalf("part %d of %d pages has %.0f bytes, and a chunk %d", i, part.pages(), size, p.chunkBytes)
			}
			at = part.end
		}
		if at != e.end {
			t.Fatalf("the parts of %+v end at %d", e, at)
		}
	})
}

// The largest table that there can be.
func TestSplitOfTheLargestTable(t *testing.T) {
	p := planner{chunkBytes: 1 << 30, pageBytes: 8192, minTail: minTail}
	parts := p.split(extent{0, 1<<32 - 1}, 8192, true)
	if last := parts[len(parts)-1]; len(parts) < 32767 || last.end != 1<<32-1 || parts[0].first != 0 {
		t.Errorf("%d parts, the last is %+v", len(parts), last)
	}
}

func drawCandidates(t *rapid.T) []Finished {
	var all []Finished
	at := uint32(0)
	for range rapid.IntRange(0, 6).Draw(t, "candidates") {
		at += rapid.Uint32Range(0, 50).Draw(t, "gap")
		c := Finished{Chunk: backupset.Chunk{FirstPage: at, EndPage: at + rapid.Uint32Range(1, 200).Draw(t, "length")}}
		at = c.Chunk.EndPage
		all = append(all, c)
	}
	return all
}

// Regions cover a table's pages, each once, whatever the base has of it.
func TestRegionsCoverExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, bytesPerPage := drawPlanner(t)
		p.chunkBytes = max(p.chunkBytes, 1<<16)
		candidates := drawCandidates(t)
		pages := rapid.Uint32Range(0, 1500).Draw(t, "pages")
		checkRegions(t, p.regions(pages, bytesPerPage, candidates), pages, candidates)
	})
}

func checkRegions(t interface{ Fatalf(string, ...any) }, all []region, pages uint32, candidates []Finished) {
	at, seen := uint32(0), 0
	for i, r := range all {
		if r.first < at || r.end < r.first {
			t.Fatalf("region %d is %+v, and the one before it ends at %d", i, r.extent, at)
		}
		if r.first > at && at < pages {
			t.Fatalf("pages %d to %d of %d are in no region", at, r.first, pages)
		}
		if r.open != (i == len(all)-1) {
			t.Fatalf("region %d of %d is open: %t", i, len(all), r.open)
		}
		if c := r.candidate; c != nil {
			seen++
			if r.first != c.Chunk.FirstPage || r.end < c.Chunk.EndPage || r.end > c.Chunk.EndPage && !r.open {
				t.Fatalf("region %d is %+v, and its candidate has pages %d to %d", i, r.extent, c.Chunk.FirstPage, c.Chunk.EndPage)
			}
		}
		at = r.end
	}
	if at < pages || len(all) == 0 && pages > 0 {
		t.Fatalf("pages %d to %d are in no region", at, pages)
	}
	if seen != len(candidates) {
		t.Fatalf("%d of %d candidates are looked at", seen, len(candidates))
	}
}

// FuzzPlanner is the same for what a fuzzer makes up.
func FuzzPlanner(f *testing.F) {
	f.Add(uint16(10), uint16(0), uint16(5), uint16(9), uint16(3), uint32(1<<20), uint32(8192))
	f.Add(uint16(0), uint16(7), uint16(5), uint16(0), uint16(300), uint32(1), uint32(1<<31))
	f.Fuzz(func(t *testing.T, pages, gap1, length1, gap2, length2 uint16, chunk, toast uint32) {
		p := planner{chunkBytes: int64(chunk) + 1<<14, pageBytes: 8192, minTail: minTail}
		bytesPerPage := p.bytesPerPage(pg.RelationSize{Heap: int64(pages) * 8192, Toast: int64(toast)})
		var candidates []Finished
		at := uint32(0)
		for _, c := range [][2]uint16{{gap1, length1}, {gap2, length2}} {
			if c[1] == 0 {
				continue
			}
			first := at + uint32(c[0])
			at = first + uint32(c[1])
			candidates = append(candidates, Finished{Chunk: backupset.Chunk{FirstPage: first, EndPage: at}})
		}
		checkRegions(t, p.regions(uint32(pages), bytesPerPage, candidates), uint32(pages), candidates)
	})
}

// A base takes of overlapping chunks the one that was added last, and gives none
// of another history, file or definition.
func TestBaseCandidates(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBase()
		id := pg.Identity{System: "1", Timeline: 1, DatabaseOID: 5}
		var fit []Finished
		for range rapid.IntRange(0, 12).Draw(t, "chunks") {
			first := rapid.Uint32Range(0, 40).Draw(t, "first")
			f := Finished{
				Identity: id, OID: 10, Filenode: 20, Fingerprint: "f", Format: formatText, Horizon: 7,
				Chunk: backupset.Chunk{FirstPage: first, EndPage: first + rapid.Uint32Range(0, 15).Draw(t, "length")},
			}
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0:
				f.Identity.Timeline = 2
			case 1:
				f.Filenode = 21
			case 2:
				f.Fingerprint = "g"
			case 3:
				f.OID = 11
			case 4:
				f.Format = formatBinary
			default:
				fit = append(fit, f)
			}
			b.add(f)
		}
		got := b.candidates(id, 10, 20, "f", formatText)
		at := uint32(0)
		for _, f := range got {
			if f.Identity != id || f.OID != 10 || f.Filenode != 20 || f.Fingerprint != "f" || f.Format != formatText {
				t.Fatalf("%+v does not fit", f)
			}
			if f.Chunk.FirstPage < at {
				t.Fatalf("%+v overlaps the one before", f.Chunk)
			}
			at = f.Chunk.EndPage
		}
		for _, f := range slices.Backward(fit) { // the last one always wins
			if f.Chunk.EndPage == 0 {
				continue
			}
			if !slices.ContainsFunc(got, func(g Finished) bool {
				return g.Chunk.FirstPage == f.Chunk.FirstPage && g.Chunk.EndPage == f.Chunk.EndPage
			}) {
				t.Fatalf("%+v, which was added last, is not among %+v", f.Chunk, got)
			}
			break
		}
	})
}

// What age() can tell: horizons of the future and of the distant past cannot be used.
func TestTellable(t *testing.T) {
	for _, test := range []struct {
		horizon, xmax uint64
		want          bool
	}{
		{0, 100, false}, {100, 100, true}, {101, 100, false}, {3, 1<<31 - 1, false}, {3, 1<<31 - 50_000_001, true},
		{5 << 32, 5<<32 + 1000, true}, {5<<32 - 10, 5<<32 + 10, true}, {4 << 32, 5 << 32, false}, {5, 1<<32 + 6, false},
	} {
		if got := tellable(pg.Snapshot{XMax: test.xmax}, test.horizon); got != test.want {
			t.Errorf("tellable(xmax %d, horizon %d) = %t", test.xmax, test.horizon, got)
		}
	}
}
