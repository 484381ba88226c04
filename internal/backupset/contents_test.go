package backupset

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// chunkedSample are contents that are valid together with the manifest.
func chunkedSample() (*Contents, *Manifest, *Database) {
	sum := strings.Repeat("ab", 32)
	older := "cluster-20260101T030405Z"
	chunk := func(object string, first, end uint32, rows int64, digest uint64) Chunk {
		return Chunk{
			Piece:     Piece{Object: "databases/db1.chunks/" + object, Bytes: 100, RawBytes: 200, Codec: "zstd:1", SHA256: sum, Rows: rows, Digest: FormatDigest(digest)},
			FirstPage: first, EndPage: end,
		}
	}
	referred := chunk("000007.copy.zst", 20, 30, 5, 1<<63)
	referred.Set, referred.Offset = older, 900
	wide := chunk("000002.copy.zst", 30, 31, 2, 1<<63+9)
	wide.Wide = []WideRow{{Pieces: []WidePiece{{Piece: chunk("000003.copy.zst", 0, 0, 1, 4).Piece, Columns: []string{"b"}, Format: "binary"}}}}
	empty := Chunk{Piece: Piece{Codec: "zstd:1", Digest: FormatDigest(0)}, FirstPage: 31, EndPage: 40}
	c := &Contents{
		Database: "db1", DatabaseOID: 5, Encoding: "UTF8",
		Tables: []ChunkedTable{
			{
				Schema: "public", Name: "t", OID: 16400, Filenode: 16400, Fingerprint: "f", Columns: []string{"a", "b"}, Format: "text",
				Load: "COPY t FROM STDIN", Rows: 17, Digest: FormatDigest(19),
				Chunks: []Chunk{chunk("000001.copy.zst", 0, 20, 10, 10), referred, wide, empty},
			},
			{Schema: "public", Name: "none", OID: 16401, Format: "binary", Columns: []string{}, Chunks: []Chunk{}, Digest: FormatDigest(0)},
		},
		Sequences: []SequenceValue{}, MaterializedViews: []MaterializedView{},
		LargeObjects: &LargeObjectChunks{Count: 1, Metadata: chunk("000004.copy.zst", 0, 0, 1, 3), Data: []Chunk{chunk("000005.copy.zst", 0, 0, 1, 3)}},
	}
	m := &Manifest{References: []Reference{{Database: "db1", Set: older, Object: Object{Name: "databases/db1.chunks/000007.copy.zst", Bytes: 1000, SHA256: sum}}}}
	for i := range 5 {
		m.Objects = append(m.Objects, Object{Name: fmt.Sprintf("databases/db1.chunks/%06d.copy.zst", i+1), Bytes: 100, SHA256: sum})
	}
	return c, m, &Database{Name: "db1", Mode: Chunked, Dump: "databases/db1.chunks"}
}

func TestContentsValidate(t *testing.T) {
	c, m, d := chunkedSample()
	must(t, c.validate(m, d))
	chunk := func(c *Contents, i int) *Chunk { return &c.Tables[0].Chunks[i] }
	for what, change := range map[string]func(c *Contents, m *Manifest, d *Database){
		"another database":             func(c *Contents, _ *Manifest, _ *Database) { c.Database = "db10" },
		"overlap":                      func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 1).FirstPage = 19 },
		"same pages twice":             func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 1).FirstPage, chunk(c, 1).EndPage = 0, 20 },
		"out of order":                 func(c *Contents, _ *Manifest, _ *Database) { slices.Reverse(c.Tables[0].Chunks) },
		"ends before it begins":        func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 3).EndPage = 30 },
		"format":                       func(c *Contents, _ *Manifest, _ *Database) { c.Tables[0].Format = "csv" },
		"rows do not add up":           func(c *Contents, _ *Manifest, _ *Database) { c.Tables[0].Rows++ },
		"a chunk's rows do not add up": func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Rows-- },
		"digests do not add up":        func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Digest = FormatDigest(11) },
		"a chunk is left out":          func(c *Contents, _ *Manifest, _ *Database) { c.Tables[0].Chunks = c.Tables[0].Chunks[1:] },
		"a chunk comes twice": func(c *Contents, _ *Manifest, _ *Database) {
			c.Tables[0].Chunks = append(c.Tables[0].Chunks, *chunk(c, 0))
		},
		"digest of another form": func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Digest = "A" + chunk(c, 0).Digest[1:] },
		"no digest":              func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Digest = "" },
		"negative rows":          func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Rows = -1 },
		"negative bytes":         func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Bytes = -1 },
		"negative raw bytes":     func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).RawBytes = -1 },
		"negative offset":        func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Offset = -1 },
		"behind the end":         func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Offset = 1 },
		"far behind the end":     func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Bytes = 1<<63 - 1 },
		"offset far behind":      func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Offset = 1<<63 - 1 },
		"unknown object":         func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Object += "x" },
		"another folder":         func(c *Contents, _ *Manifest, d *Database) { d.Dump = "databases/db10.chunks" },
		"unknown reference":      func(_ *Contents, m *Manifest, _ *Database) { m.References = nil },
		"reference to no set":    func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 1).Set = "../../etc" },
		"no object":              func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).Object = "" },
		"sha256":                 func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 0).SHA256 = "" },
		"a wide row's piece":     func(c *Contents, _ *Manifest, _ *Database) { chunk(c, 2).Wide[0].Pieces[0].Object = "x" },
		"a large object's chunk": func(c *Contents, _ *Manifest, _ *Database) { c.LargeObjects.Data[0].Offset = 1 },
		"large objects' owners":  func(c *Contents, _ *Manifest, _ *Database) { c.LargeObjects.Metadata.Digest = "x" },
	} {
		t.Run(what, func(t *testing.T) {
			c, m, d := chunkedSample()
			change(c, m, d)
			err := c.validate(m, d)
			if err == nil {
				t.Fatal("taken for valid")
			}
			if n := strings.Count(err.Error(), "table "); n > 1 {
				t.Errorf("the error names the table %d times: %v", n, err)
			}
		})
	}
}

// FuzzContents: what is no contents.json is an error, and what passes can be
// read without looking again.
func FuzzContents(f *testing.F) {
	c, _, _ := chunkedSample()
	text, err := json.Marshal(c)
	must2(f, err)
	f.Add(text)
	for _, change := range [][2]string{
		{`"first_page":20`, `"first_page":4294967295`}, {`"rows":10`, `"rows":9223372036854775807`}, {`"bytes":100`, `"bytes":1e3`},
		{`"tables":[`, `"tables":[{},`}, {`"set":"`, `"set":"/`}, {`"wide":[`, `"wide":[{},`}, {`"chunks":[`, `"chunks":null,"x":[`},
	} {
		f.Add([]byte(strings.ReplaceAll(string(text), change[0], change[1])))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var c Contents
		if json.Unmarshal(text, &c) != nil {
			return
		}
		_, m, d := chunkedSample()
		if c.validate(m, d) != nil {
			return
		}
		sizes := map[string]int64{}
		for _, o := range m.Objects {
			sizes["/"+o.Name] = o.Bytes
		}
		for _, r := range m.References {
			sizes[r.Set+"/"+r.Name] = r.Bytes
		}
		c.Pieces(func(_ *ChunkedTable, p *Piece) {
			if p.Object == "" {
				if p.Rows != 0 {
					t.Fatalf("%+v has rows and no object", p)
				}
				return
			}
			size, ok := sizes[p.Set+"/"+p.Object]
			if !ok || p.Offset < 0 || p.Bytes < 0 || p.Offset+p.Bytes > size {
				t.Fatalf("%+v lies outside of %v", p, slices.Sorted(maps.Keys(sizes)))
			}
		})
		for _, table := range c.Tables {
			end := uint32(0)
			for _, chunk := range table.Chunks {
				if chunk.FirstPage < end {
					t.Fatalf("chunks overlap: %+v", table)
				}
				end = chunk.EndPage
			}
		}
	})
}

func must2(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func TestParseDigest(t *testing.T) {
	for _, sum := range []uint64{0, 1, 1 << 63, 1<<64 - 1, 0xabcdef0123456789} {
		if got, err := ParseDigest(FormatDigest(sum)); err != nil || got != sum {
			t.Errorf("ParseDigest(%s) = %x, %v", FormatDigest(sum), got, err)
		}
	}
	for _, text := range []string{"", "0", "ABCDEF0123456789", "0x00000000000000", "00000000000000000", "-000000000000001", " 00000000000000 "} {
		if _, err := ParseDigest(text); err == nil {
			t.Errorf("ParseDigest(%q) succeeds", text)
		}
	}
}
