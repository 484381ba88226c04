package compress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

func codecs() []Codec {
	all := []Codec{{Name: None}}
	for _, level := range []int{1, 3, MaxLevel} {
		all = append(all, Codec{Zstd, level}, Codec{Gzip, level})
	}
	return all
}

func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // not for secrets
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%d\tsome text\t%x\n", r.IntN(100), r.Uint64())
	}
	return b.Bytes()[:n]
}

func compressed(t *testing.T, c Codec, raw []byte) []byte {
	t.Helper()
	w, err := c.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	return with(t, w, raw)
}

func with(t *testing.T, w *Writer, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w.Reset(&out)
	for rest := raw; len(rest) > 0; {
		n := min(len(rest), 1+len(raw)/7)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read decompresses at most limit bytes.
func read(c Codec, stored []byte, limit int64) ([]byte, error) {
	in, err := c.Open(bytes.NewReader(stored), limit)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(in)
	return raw, errors.Join(err, in.Close())
}

// One writer makes one stream after the other, also after one that was given up.
func TestCodecRoundTrip(t *testing.T) {
	for _, c := range codecs() {
		t.Run(c.String(), func(t *testing.T) {
			w, err := c.NewWriter()
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{0, 1, 100, windowBytes + 17, 5} {
				w.Reset(io.Discard) // given up
				if _, err := w.Write(sample(1000)); err != nil {
					t.Fatal(err)
				}
				raw := sample(size)
				stored := with(t, w, raw)
				got, err := read(c, stored, int64(size))
				if err != nil || !bytes.Equal(got, raw) {
					t.Fatalf("%d bytes: got %d, %v", size, len(got), err)
				}
				if back, err := ParseCodec(c.String()); err != nil || back != c {
					t.Errorf("ParseCodec(%q) = %v, %v", c, back, err)
				}
			}
		})
	}
}

// A stream that was cut, anywhere, is never whole.
func TestCodecCut(t *testing.T) {
	raw := sample(3000)
	for _, c := range []Codec{{Zstd, 1}, {Zstd, 3}, {Gzip, 6}} {
		stored := compressed(t, c, raw)
		for end := range stored {
			if _, err := read(c, stored[:end], int64(len(raw))); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s cut at %d of %d: %v, want io.ErrUnexpectedEOF", c, end, len(stored), err)
			}
		}
	}
}

// A bit that was flipped is found, or changes nothing.
func TestCodecFlipped(t *testing.T) {
	raw := sample(2000)
	for _, c := range []Codec{{Zstd, 1}, {Gzip, 6}} {
		stored := compressed(t, c, raw)
		for i := range stored {
			broken := bytes.Clone(stored)
			broken[i] ^= 1 << (i % 8)
			if got, err := read(c, broken, int64(len(raw))); err == nil && !bytes.Equal(got, raw) {
				t.Fatalf("%s with byte %d flipped reads as something else", c, i)
			}
		}
	}
}

// What follows the stream is an error, or more than the limit.
func TestCodecGarbageBehind(t *testing.T) {
	raw := sample(2000)
	for _, c := range []Codec{{Name: None}, {Zstd, 1}, {Gzip, 6}} {
		stored := compressed(t, c, raw)
		for what, more := range map[string][]byte{"bytes": []byte("garbage, and more of it"), "zeros": make([]byte, 20), "another stream": stored, "one byte": {0}} {
			got, err := read(c, append(bytes.Clone(stored), more...), int64(len(raw)))
			if err == nil {
				t.Errorf("%s with %s behind it is read as %d bytes", c, what, len(got))
			}
		}
	}
}

// T49: what would become more than declared stops there, in little memory.
func TestCodecLimit(t *testing.T) {
	const size = 48 << 20
	for _, c := range []Codec{{Zstd, 1}, {Gzip, 1}} {
		w, err := c.NewWriter()
		if err != nil {
			t.Fatal(err)
		}
		var stored bytes.Buffer
		w.Reset(&stored)
		zeros := make([]byte, 1<<20)
		for range size / len(zeros) {
			if _, err := w.Write(zeros); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int64{0, 1, 1 << 20, size - 1} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			in, err := c.Open(bytes.NewReader(stored.Bytes()), limit)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, in)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrTooLarge) || n > limit {
				t.Errorf("%s, limit %d: %d bytes and %v", c, limit, n, err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
				t.Errorf("%s, limit %d: %d bytes of memory were taken", c, limit, took)
			}
			in.Close()
		}
	}
	for limit, want := range map[int64]error{9: ErrTooLarge, 10: nil, 11: nil} {
		if got, err := read(Codec{Name: None}, make([]byte, 10), limit); !errors.Is(err, want) || int64(len(got)) > limit {
			t.Errorf("none, limit %d: %d bytes and %v, want %v", limit, len(got), err, want)
		}
	}
}

func TestParseCodec(t *testing.T) {
	for text, want := range map[string]Codec{
		"zstd": {Zstd, 1}, "zstd:3": {Zstd, 3}, "gzip": {Gzip, MaxLevel}, "gzip:1": {Gzip, 1}, "none": {Name: None},
		"6": {Gzip, 6}, "0": {Name: None}, "zstd:0": {Name: None}, "gzip:9": {Gzip, 9},
	} {
		if got, err := ParseCodec(text); err != nil || got != want {
			t.Errorf("ParseCodec(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "lz4", "zstd:", "zstd:x", "zstd:-1", "gzip:1:2", "-1", strings.Repeat("9", 40)} {
		if got, err := ParseCodec(text); err == nil {
			t.Errorf("ParseCodec(%q) = %+v, want an error", text, got)
		}
	}
}

// FuzzCodec: whatever is stored, reading it ends, within its limit.
func FuzzCodec(f *testing.F) {
	for _, c := range []Codec{{Zstd, 1}, {Gzip, 1}} {
		w, err := c.NewWriter()
		if err != nil {
			f.Fatal(err)
		}
		var b bytes.Buffer
		w.Reset(&b)
		_, _ = w.Write(sample(500))
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes(), c.Name == Zstd, uint16(500))
		f.Add(b.Bytes(), c.Name == Zstd, uint16(3))
	}
	f.Fuzz(func(t *testing.T, stored []byte, z bool, limit uint16) {
		c := Codec{Gzip, 1}
		if z {
			c = Codec{Zstd, 1}
		}
		if raw, _ := read(c, stored, int64(limit)); len(raw) > int(limit) {
			t.Fatalf("%d bytes, limit %d", len(raw), limit)
		}
	})
}
