package compress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tableData is a text that compresses about as table data does.
var tableData = sync.OnceValue(func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	for b.Len() < 3*blockBytes {
		fmt.Fprintf(&b, "%d\tcustomer_%d\t%x\n", b.Len(), random.IntN(1e6), random.Uint64())
	}
	return b.Bytes()
})

func rows(n int) []byte { return tableData()[:n] }

func zip(t testing.TB, data []byte, level, procs int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewGzipWriter(&out, level, procs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for rest := data; len(rest) > 0; { // in pieces that never match a block
		n := min(len(rest), 77_777)
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

func unzip(data []byte) ([]byte, error) {
	r, err := NewGzipReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestRoundTripHereAndWithGzip(t *testing.T) {
	program, err := exec.LookPath("gzip")
	if err != nil {
		t.Skip("no gzip program here")
	}
	for _, size := range []int{0, 1, blockBytes, 2*blockBytes + 5} {
		for _, level := range []int{0, MaxLevel} {
			for _, procs := range []int{1, 3} {
				t.Run(fmt.Sprintf("%d bytes level %d procs %d", size, level, procs), func(t *testing.T) {
					data := rows(size)
					packed := zip(t, data, level, procs)
					if got, err := unzip(packed); err != nil || !bytes.Equal(got, data) {
						t.Errorf("read back %d bytes, %v, want %d", len(got), err, size)
					}
					cmd := exec.Command(program, "-dc")
					cmd.Stdin = bytes.NewReader(packed)
					if got, err := cmd.Output(); err != nil || !bytes.Equal(got, data) {
						t.Errorf("gzip read back %d bytes, %v, want %d", len(got), err, size)
					}
					if level == 0 && len(packed) < size || level > 0 && size > 1000 && len(packed) > size/2 {
						t.Errorf("level %d made %d bytes of %d", level, len(packed), size)
					}
				})
			}
		}
	}
}

func TestLevelsAreCapped(t *testing.T) {
	tests := []struct {
		level, used int
		capped      bool
	}{{0, 0, false}, {6, 6, false}, {7, 6, true}, {9, 6, true}}
	for _, tt := range tests {
		if used, capped := Cap(tt.level); used != tt.used || capped != tt.capped {
			t.Errorf("Cap(%d) = %d, %t, want %d, %t", tt.level, used, capped, tt.used, tt.capped)
		}
	}
	for _, bad := range [][2]int{{-1, 1}, {7, 1}, {6, 0}} {
		if _, err := NewGzipWriter(io.Discard, bad[0], bad[1]); err == nil {
			t.Errorf("level %d on %d processors was accepted", bad[0], bad[1])
		}
	}
}

// fullAfter is a disk with room for so many bytes.
type fullAfter struct{ room int }

var errFull = errors.New("no space left")

func (f *fullAfter) Write(b []byte) (int, error) {
	if len(b) > f.room {
		return 0, errFull
	}
	f.room -= len(b)
	return len(b), nil
}

func TestAWriteErrorSurfacesAtTheLatestOnClose(t *testing.T) {
	data := rows(3 * blockBytes)
	packed := len(zip(t, data, 1, 2))
	for _, room := range []int{0, 10, packed / 2, packed - 9, packed - 1} {
		w, err := NewGzipWriter(&fullAfter{room}, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		var writeErr error
		for rest := data; len(rest) > 0 && writeErr == nil; rest = rest[min(len(rest), 99_999):] {
			_, writeErr = w.Write(rest[:min(len(rest), 99_999)])
		}
		if writeErr != nil && !errors.Is(writeErr, errFull) {
			t.Errorf("room for %d of %d: Write: got %v, want %v", room, packed, writeErr, errFull)
		}
		if err := w.Close(); !errors.Is(err, errFull) {
			t.Errorf("room for %d of %d: Close: got %v, want %v", room, packed, err, errFull)
		}
		if err := w.Close(); !errors.Is(err, errFull) {
			t.Errorf("room for %d of %d: second Close: got %v, want %v", room, packed, err, errFull)
		}
	} // goleak: none of them left a goroutine
}

func TestAbortReleasesAndEndsTheWriter(t *testing.T) {
	for _, size := range []int{0, 10, 3 * blockBytes} {
		w, err := NewGzipWriter(io.Discard, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if _, err := w.Write(rows(size)); err != nil {
				t.Fatal(err)
			}
		}
		w.Abort()
		w.Abort()
		if _, err := w.Write([]byte("x")); err == nil {
			t.Error("Write after Abort succeeded")
		}
		if err := w.Close(); err == nil {
			t.Error("Close after Abort succeeded")
		}
	}
}

func TestWriteAfterCloseIsAnError(t *testing.T) {
	w, err := NewGzipWriter(io.Discard, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(rows(3 * blockBytes)); err == nil {
		t.Error("Write after Close succeeded")
	}
}

func TestWriterMemoryIsConstant(t *testing.T) {
	const procs = 2
	w, err := NewGzipWriter(io.Discard, 1, procs)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	data := make([]byte, blockBytes) // zeros: quick, and the buffers are the same
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 40 {
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if i%8 != 7 {
			continue
		}
		runtime.GC()
		runtime.ReadMemStats(&now)
		if held := int64(now.HeapAlloc) - int64(before.HeapAlloc); held > 12<<20*procs {
			t.Fatalf("after %d MiB: the writer holds %d bytes", i+1, held)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// T37
func TestEveryCutIsAnError(t *testing.T) {
	data := rows(3000)
	packed := zip(t, data, 6, 1)
	for n := range packed {
		got, err := unzip(packed[:n])
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d of %d: got %v, want io.ErrUnexpectedEOF", n, len(packed), err)
		}
		if !bytes.HasPrefix(data, got) {
			t.Fatalf("cut at %d of %d: wrong data", n, len(packed))
		}
	}
}

func TestACutInsideASecondMembersNameIsAnError(t *testing.T) {
	first := zip(t, []byte("a"), 6, 1)
	second := append([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3}, "na"...) // a name without its end
	for n := 1; n <= len(second); n++ {
		if _, err := unzip(append(bytes.Clone(first), second[:n]...)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("second header cut at %d: got %v, want io.ErrUnexpectedEOF", n, err)
		}
	}
}

// T36: flips in the header's fields without a meaning (time, flags of the
// level, system) change nothing; all others must be found.
func TestEveryFlippedByteIsFound(t *testing.T) {
	data := rows(3000)
	packed := zip(t, data, 6, 1)
	for i := range packed {
		damaged := bytes.Clone(packed)
		damaged[i] ^= 0x55
		got, err := unzip(damaged)
		if free := i >= 4 && i < 10; free != (err == nil) {
			t.Errorf("flip at %d of %d: got %v", i, len(packed), err)
		}
		if err == nil && !bytes.Equal(got, data) {
			t.Errorf("flip at %d of %d: wrong data without an error", i, len(packed))
		}
	}
}

func TestTrailingBytesAreAnError(t *testing.T) {
	packed := zip(t, rows(100), 6, 1)
	for _, tail := range []string{"x", "\x00", "\x00\x00\x00\x00", "twenty bytes of junk", "\x1f\x8b"} {
		if _, err := unzip(append(bytes.Clone(packed), tail...)); err == nil || err == io.EOF {
			t.Errorf("tail %q: got %v", tail, err)
		}
	}
}

func TestMembersAreConcatenated(t *testing.T) {
	packed := append(zip(t, []byte("one "), 6, 1), zip(t, nil, 6, 1)...)
	packed = append(packed, zip(t, []byte("two"), 0, 1)...)
	if got, err := unzip(packed); err != nil || string(got) != "one two" {
		t.Errorf("got %q, %v", got, err)
	}
}

// T49
func TestLimitStopsABomb(t *testing.T) {
	const size = 8 << 20
	bomb := zip(t, make([]byte, size), 6, 2)
	tests := []struct {
		limit int64
		want  error
	}{{0, ErrTooLarge}, {1 << 20, ErrTooLarge}, {size - 1, ErrTooLarge}, {size, nil}, {size + 1, nil}}
	for _, tt := range tests {
		r, err := NewGzipReader(bytes.NewReader(bomb))
		if err != nil {
			t.Fatal(err)
		}
		r.Limit(tt.limit)
		n, err := io.Copy(io.Discard, r)
		if !errors.Is(err, tt.want) || n > tt.limit {
			t.Errorf("limit %d: got %d bytes and %v, want %v", tt.limit, n, err, tt.want)
		}
	}
	cutShort := bomb[:len(bomb)-1]
	r, err := NewGzipReader(bytes.NewReader(cutShort))
	if err != nil {
		t.Fatal(err)
	}
	r.Limit(size)
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut stream that keeps to its limit: got %v", err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(zip(f, []byte("seed"), 6, 1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packed []byte) {
		r, err := NewGzipReader(bytes.NewReader(packed))
		if err != nil {
			return
		}
		r.Limit(1 << 20)
		if n, err := io.Copy(io.Discard, r); err == nil && n > 1<<20 {
			t.Errorf("%d bytes passed the limit", n)
		}
	})
}
