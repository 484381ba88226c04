package backupset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
)

const packName = "databases/db1.chunks/000001.copy.zst"

// cuts are where one object is cut into pieces: within and at the ends of age's
// chunks, and over several of them.
var cuts = []int64{0, 1, 100, 64<<10 - 1, 64 << 10, 64<<10 + 5, 150_000, 4 * 64 << 10, 300_000, 300_001}

// writePack writes a chunked set with one object of several pieces, and what it
// holds. from is an older set to refer to instead.
func writePack(t *testing.T, st store.Store, id string, from *Set, option WriterOption) ([]byte, []Piece) {
	t.Helper()
	ctx := t.Context()
	var options []WriterOption
	if option != nil {
		options = append(options, option)
	}
	w, err := Create(ctx, st, id, options...)
	must(t, err)
	plain := make([]byte, cuts[len(cuts)-1])
	random := rand.New(rand.NewPCG(1, 2))
	for i := range plain {
		plain[i] = byte(random.Uint32())
	}
	var references []Reference
	var pieces []Piece
	for i, at := range cuts[1:] {
		part := plain[cuts[i]:at]
		sum := sha256.Sum256(part)
		pieces = append(pieces, Piece{Object: packName, Offset: cuts[i], Bytes: int64(len(part)), RawBytes: int64(len(part)), Codec: "none", SHA256: hex.EncodeToString(sum[:]), Digest: FormatDigest(0)})
	}
	if from == nil {
		must(t, w.WriteFile(ctx, packName, plain))
	} else {
		must(t, w.Refer(from))
		o, ok := from.Object(packName)
		if !ok {
			t.Fatal("the older set lacks the object")
		}
		references = append(references, Reference{Database: "db1", Set: from.ID(), Object: o})
		for i := range pieces {
			pieces[i].Set = from.ID()
		}
	}
	c := Contents{Database: "db1", Tables: []ChunkedTable{{Schema: "s", Name: "t", Format: "text", Digest: FormatDigest(0)}}}
	for i, p := range pieces {
		c.Tables[0].Chunks = append(c.Tables[0].Chunks, Chunk{Piece: p, FirstPage: uint32(i), EndPage: uint32(i + 1)})
	}
	must(t, w.CheckContents("databases/db1.chunks", &c, references))
	text, err := json.Marshal(c)
	must(t, err)
	must(t, w.WriteFile(ctx, "databases/db1.chunks/contents.json", text))
	for _, name := range []string{"globals.sql", "server/pg_hba.conf", "databases/db1.chunks/schema.dump", "databases/db1.create.sql", "databases/db1.properties.json"} {
		must(t, w.WriteFile(ctx, name, []byte("x")))
	}
	m := sampleManifest()
	m.Databases = m.Databases[:1]
	m.Databases[0].Mode, m.Databases[0].Dump, m.Databases[0].Chunks = Chunked, "databases/db1.chunks", &Chunks{Count: int64(len(pieces))}
	m.References = references
	must(t, w.Commit(ctx, m))
	return plain, pieces
}

// countingStore counts the reads of ranges.
type countingStore struct {
	*dir.Dir
	ranges atomic.Int64
}

func (c *countingStore) OpenRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.ranges.Add(1)
	return c.Dir.OpenRange(ctx, key, offset, length)
}

func readPieces(t *testing.T, set *Set, plain []byte, pieces []Piece) {
	t.Helper()
	for i := range pieces {
		p := &pieces[i]
		r, err := set.OpenPiece(t.Context(), p)
		must(t, err)
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, plain[p.Offset:p.Offset+p.Bytes]) {
			t.Errorf("piece at %d: %d of %d bytes, %v", p.Offset, len(got), p.Bytes, err)
		}
		must(t, r.Close())
	}
}

func TestSealedPieces(t *testing.T) {
	h, st := newHand(t), &countingStore{Dir: newStore(t)}
	plain, pieces := writePack(t, st, sampleID, nil, h.seals(t))
	set := mustOpen(t, st, sampleID, h.trusts(t))
	if _, err := set.Contents(t.Context(), &set.Manifest().Databases[0]); err != nil {
		t.Fatal(err)
	}
	st.ranges.Store(0)
	readPieces(t, set, plain, pieces)
	// The ends of the object, then one stream for each piece that is not in them.
	if n := st.ranges.Load(); n > int64(len(pieces))+2 {
		t.Errorf("%d pieces took %d reads", len(pieces), n)
	}
	whole := pieces[0]
	whole.Offset, whole.Bytes = 0, int64(len(plain))
	sum := sha256.Sum256(plain)
	whole.SHA256 = hex.EncodeToString(sum[:])
	readPieces(t, set, plain, []Piece{whole})
	path := filepath.Join(st.String(), sampleID, packName+".age")
	stored, err := os.ReadFile(path)
	must(t, err)
	stored[100_000] ^= 1
	must(t, os.WriteFile(path, stored, 0o600))
	r, err := set.OpenPiece(t.Context(), &pieces[5]) // 65541 to 150000
	if err == nil {
		_, err = io.ReadAll(r)
	}
	wantIntegrity(t, err, packName)
	must(t, os.Remove(path))
	_, err = mustOpen2(t, st, h).OpenPiece(t.Context(), &pieces[5])
	wantIntegrity(t, err, packName)
}

// A piece is what the contents say: not those of another object of the set, though they
// decrypt with the same key.
func TestPieceOfAnotherObject(t *testing.T) {
	h := newHand(t)
	for name, option := range map[string]WriterOption{"sealed": h.seals(t), "plain": nil} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			plain, pieces := writePack(t, st, sampleID, nil, option)
			path := filepath.Join(st.String(), sampleID, packName)
			other := bytes.Clone(plain)
			slices.Reverse(other)
			set, err := Open(t.Context(), st, sampleID)
			must(t, err)
			if option != nil {
				set = mustOpen2(t, st, h)
				var stored bytes.Buffer
				out, err := set.secret.Encrypt(&stored)
				must(t, err)
				_, err = out.Write(other)
				must(t, err)
				must(t, out.Close())
				path, other = path+sealedSuffix, stored.Bytes()
			}
			readPieces(t, set, plain, pieces[:1])
			must(t, os.WriteFile(path, other, 0o600))
			if option != nil {
				set = mustOpen2(t, st, h) // that has read nothing of it yet
			}
			for i := range pieces {
				r, err := set.OpenPiece(t.Context(), &pieces[i])
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				wantIntegrity(t, err, packName)
			}
		})
	}
}

func mustOpen2(t *testing.T, st store.Store, h hand) *Set {
	t.Helper()
	set, err := Open(t.Context(), st, sampleID, h.opens(t))
	must(t, err)
	return set
}

// A set that refers to older ones opens them with its own key alone.
func TestSealedReferences(t *testing.T) {
	first, second, st := newHand(t), newHand(t), newStore(t)
	plain, _ := writePack(t, st, "cluster-20260101T030405Z", nil, first.seals(t))
	base := mustOpen(t, st, "cluster-20260101T030405Z", first.trusts(t))
	writePack(t, st, "cluster-20260102T000000Z", base, second.seals(t))
	middle := mustOpen(t, st, "cluster-20260102T000000Z", second.trusts(t))
	// One that starts from the second refers to the first.
	w, err := Create(t.Context(), st, sampleID, second.seals(t))
	must(t, err)
	must(t, w.Refer(middle))
	c, err := middle.Contents(t.Context(), &middle.Manifest().Databases[0])
	must(t, err)
	for _, o := range middle.Manifest().Objects {
		r, err := middle.OpenObject(t.Context(), o.Name)
		must(t, err)
		text, err := io.ReadAll(r)
		must(t, err)
		must(t, w.WriteFile(t.Context(), o.Name, text))
	}
	m := *middle.Manifest()
	m.Sealed = nil
	must(t, w.Commit(t.Context(), m))
	newest := mustOpen(t, st, sampleID, second.trusts(t))
	var pieces []Piece
	c.Pieces(func(_ *ChunkedTable, p *Piece) { pieces = append(pieces, *p) })
	readPieces(t, newest, plain, pieces)
	entries, err := List(t.Context(), st)
	must(t, err)
	for _, e := range entries {
		if e.Status != StatusComplete {
			t.Errorf("%s is %s: %s", e.ID, e.Status, e.Reason)
		}
	}
	if p := newest.CheckObjects(t.Context(), nil, newest.ReferencesOf("db1"), nil); len(p) != 0 {
		t.Errorf("references: %+v", p)
	}
	must(t, os.Remove(filepath.Join(st.String(), base.ID(), packName+".age")))
	if p := newest.CheckQuick(t.Context()); len(p) != 1 || p[0].Database != "db1" || p[0].Object != "../"+base.ID()+"/"+packName {
		t.Errorf("a base without its object: %+v", p)
	}
}

func TestReferencesStayOnOneSide(t *testing.T) {
	h, st := newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, "cluster-20260101T030405Z"))
	must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
	plain, sealed, locked := mustOpen(t, st, "cluster-20260101T030405Z"), mustOpen(t, st, sampleID, h.opens(t)), mustOpen(t, st, sampleID)
	toPlain, err := Create(t.Context(), st, "a-20260103T030405Z")
	must(t, err)
	toSealed, err := Create(t.Context(), st, "b-20260103T030405Z", h.seals(t))
	must(t, err)
	for name, c := range map[string]struct {
		w    *Writer
		s    *Set
		want fault.Kind
	}{
		"plain to sealed": {toPlain, sealed, fault.Precondition}, "sealed to plain": {toSealed, plain, fault.Precondition},
		"sealed to locked": {toSealed, locked, fault.WrongKey}, "plain": {toPlain, plain, fault.Failed}, "sealed": {toSealed, sealed, fault.Failed},
	} {
		if err := c.w.Refer(c.s); fault.KindOf(err) != c.want || (err == nil) != (c.want == fault.Failed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// beginSealed leaves an unfinished set as a killed run does.
func beginSealed(t *testing.T, st store.Store, option WriterOption) Object {
	t.Helper()
	w, err := Create(t.Context(), st, sampleID, option)
	must(t, err)
	must(t, w.WriteScratch(t.Context(), RunName, []byte("asked")))
	out, err := w.Object(t.Context(), packName, 0)
	must(t, err)
	_, err = out.Write(bytes.Repeat([]byte("rows"), 100_000))
	must(t, err)
	o, err := out.Commit()
	must(t, err)
	must(t, w.WriteScratch(t.Context(), "databases/db1.chunks/journal/000001.json", []byte("done")))
	must(t, w.WriteFile(t.Context(), "globals.sql", []byte("half")))
	must(t, put(t.Context(), st, sampleID+"/"+SumsName, []byte("of a commit that did not end")))
	must(t, put(t.Context(), st, sampleID+"/"+SumsName+".age", []byte("of a commit that did not end")))
	must(t, w.Suspend())
	return o
}

func TestSealedResume(t *testing.T) {
	h, st := newHand(t), newStore(t)
	object := beginSealed(t, st, h.seals(t))
	if ids := found(t, st).Resumable; len(ids) != 1 {
		t.Fatalf("resumable: %v", ids)
	}
	w, err := Reopen(t.Context(), st, sampleID, h.seals(t))
	must(t, err)
	if text, err := w.Scratch(t.Context(), RunName); err != nil || string(text) != "asked" {
		t.Errorf("%s is %q, %v", RunName, text, err)
	}
	if found := w.Found("databases/db1.chunks"); len(found) != 2 || found[0] != packName {
		t.Errorf("found %v", found)
	}
	must(t, w.Adopt(t.Context(), object))
	w.KeepScratch(RunName)
	must(t, w.DiscardRest(t.Context()))
	for _, name := range []string{"globals.sql", "server/pg_hba.conf"} {
		must(t, w.WriteFile(t.Context(), name, []byte("x")))
	}
	m := sampleManifest()
	m.Databases = nil
	must(t, w.Commit(t.Context(), m))
	set := mustOpen(t, st, sampleID, h.trusts(t))
	r, err := set.OpenObject(t.Context(), packName)
	must(t, err)
	if text, err := io.ReadAll(r); err != nil || len(text) != 400_000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if p := set.CheckQuick(t.Context()); len(p) != 0 {
		t.Errorf("problems %+v", p)
	}
}

func TestSealedResumeRefusals(t *testing.T) {
	h, other := newHand(t), newHand(t)
	for name, c := range map[string]struct {
		begin, goOn WriterOption
		want        fault.Kind
	}{
		"no key":      {h.seals(t), WithSealing(Sealing{To: h.to(t)}), fault.Precondition},
		"no options":  {h.seals(t), nil, fault.Precondition},
		"no signer":   {h.seals(t), h.unsigned(t), fault.Precondition},
		"wrong key":   {h.seals(t), other.seals(t), fault.WrongKey},
		"unsigned":    {h.unsigned(t), h.seals(t), fault.Integrity}, // anybody may have begun it
		"plain":       {nil, h.seals(t), fault.Precondition},
		"not trusted": {WithSealing(Sealing{To: h.to(t), Signer: other.signer}), h.seals(t), fault.Integrity},
		"another key": {h.seals(t), h.seals(t), fault.Integrity}, // laid down by somebody who knows the recipient
		"another set": {h.seals(t), h.seals(t), fault.Integrity}, // the beginning of it, under this one's id
	} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			if c.begin == nil {
				w, err := Create(t.Context(), st, sampleID)
				must(t, err)
				must(t, w.WriteScratch(t.Context(), RunName, []byte("asked")))
				must(t, w.Suspend())
			} else {
				beginSealed(t, st, c.begin)
			}
			folder := filepath.Join(st.String(), sampleID)
			switch name {
			case "another key":
				must(t, os.RemoveAll(filepath.Join(folder, keysFolder)))
				must(t, putKey(t.Context(), st, sampleID, 1, newHand(t).secret, h.to(t)))
			case "another set":
				copied := newStore(t)
				w, err := Create(t.Context(), copied, "cluster-20260101T030405Z", c.begin)
				must(t, err)
				must(t, w.WriteScratch(t.Context(), RunName, []byte("asked")))
				must(t, w.Suspend())
				must(t, os.RemoveAll(folder))
				must(t, os.Rename(filepath.Join(copied.String(), w.ID()), folder))
			}
			var options []WriterOption
			if c.goOn != nil {
				options = append(options, c.goOn)
			}
			if _, err := Reopen(t.Context(), st, sampleID, options...); !fault.Is(err, c.want) {
				t.Errorf("got %v, want kind %d", err, c.want)
			}
		})
	}
}

// What somebody without the key lays beside the beginning of a set is not taken
// for a part of it.
func TestForgedScratch(t *testing.T) {
	h, st := newHand(t), newStore(t)
	beginSealed(t, st, h.seals(t))
	w, err := Reopen(t.Context(), st, sampleID, h.seals(t))
	must(t, err)
	folder := filepath.Join(st.String(), sampleID)
	fake, err := h.to(t).Wrap([]byte("00\nfake"))
	must(t, err)
	run, err := os.ReadFile(filepath.Join(folder, RunName+".age"))
	must(t, err)
	for name, text := range map[string][]byte{"made": fake, "moved": run, "cut": run[:len(run)-1]} {
		path := filepath.Join(folder, "databases/db1.chunks/journal/000001.json.age")
		must(t, os.WriteFile(path, text, 0o600))
		_, err := w.Scratch(t.Context(), "databases/db1.chunks/journal/000001.json")
		if !fault.Is(err, fault.Integrity) {
			t.Errorf("%s: %v", name, err)
		}
	}
	object := filepath.Join(folder, packName+".age")
	whole, err := os.ReadFile(object)
	must(t, err)
	must(t, os.WriteFile(object, whole[:len(whole)-1], 0o600))
	sum := sha256.Sum256(bytes.Repeat([]byte("rows"), 100_000))
	want := Object{packName, 400_000, hex.EncodeToString(sum[:])}
	wantIntegrity(t, w.Adopt(t.Context(), want), packName)
	// Another object of the same run, in its place.
	var other bytes.Buffer
	out, err := w.seal.secret.Encrypt(&other)
	must(t, err)
	_, err = out.Write(bytes.Repeat([]byte("ROWS"), 100_000))
	must(t, err)
	must(t, out.Close())
	must(t, os.WriteFile(object, other.Bytes(), 0o600))
	wantIntegrity(t, w.Adopt(t.Context(), want), packName)
	must(t, os.WriteFile(object, whole, 0o600))
	must(t, w.Adopt(t.Context(), want))
}

// A run that was killed right after its commit is tidied up.
func TestSealedTidy(t *testing.T) {
	h, st := newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
	for _, name := range []string{unfinishedName, RunName + ".age", originName, "databases/db1.chunks/journal/000001.json.age"} {
		must(t, put(t.Context(), st, sampleID+"/"+name, []byte("left")))
	}
	ids, err := found(t, st).Tidy(t.Context())
	if err != nil || len(ids) != 1 {
		t.Fatalf("tidied %v, %v", ids, err)
	}
	mustOpen(t, st, sampleID, h.trusts(t))
	must(t, WriteVerified(t.Context(), mustOpen(t, st, sampleID), time.Now()))
}
