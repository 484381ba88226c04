package bucket

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"dbbackup/internal/store"
)

// noise is n bytes that no two seeds have in common.
func noise(seed uint64, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), n)
}

func sum(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	_, err := io.Copy(h, r)
	must(t, err)
	return fmt.Sprintf("%x", h.Sum(nil))
}

// writeNoise writes an object in pieces of the given size.
func writeNoise(ctx context.Context, b *Bucket, key string, seed uint64, n, piece, expect int64) error {
	w, err := b.Create(ctx, key, expect)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, noise(seed, n), make([]byte, piece)); err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit()
}

func wantNoise(t *testing.T, b *Bucket, key string, seed uint64, n int64) {
	t.Helper()
	r, err := b.Open(t.Context(), key)
	must(t, err)
	defer r.Close()
	if got, want := sum(t, r), sum(t, noise(seed, n)); got != want {
		t.Errorf("%s: read back %s, wrote %s", key, got, want)
	}
}

func keys(t *testing.T, b *Bucket) []string {
	t.Helper()
	var all []string
	must(t, b.List(t.Context(), "", func(info store.Info) error {
		all = append(all, info.Key)
		return nil
	}))
	return all
}

// testParts is about objects around the size of a part.
func testParts(t *testing.T, b *Bucket, part int64) {
	ctx := t.Context()
	sizes := []int64{0, 1, 200 << 10, part - 1, part, part + 1, 2 * part, 4*part + 12345}
	for i, n := range sizes {
		for _, piece := range []int64{100_000, part * 3} {
			key := fmt.Sprintf("set/%d-%d", n, piece)
			must(t, writeNoise(ctx, b, key, uint64(i), n, piece, n/2))
			wantNoise(t, b, key, uint64(i), n)
		}
	}
	if got, want := len(keys(t, b)), 2*len(sizes); got != want {
		t.Errorf("%d objects, want %d", got, want)
	}

	// A key that was taken while the parts were sent.
	w, err := b.Create(ctx, "taken", 3*part)
	must(t, err)
	_, err = io.Copy(w, noise(1, 3*part))
	must(t, err)
	must(t, writeNoise(ctx, b, "taken", 2, 10, 10, 0))
	if err := w.Commit(); !errors.Is(err, store.ErrExist) {
		t.Errorf("commit in parts of a taken key: %v", err)
	}
	wantNoise(t, b, "taken", 2, 10)

	// Aborted, interrupted.
	w, err = b.Create(ctx, "gone", 3*part)
	must(t, err)
	_, err = io.Copy(w, noise(1, 3*part))
	must(t, err)
	must(t, w.Abort())
	interrupted, cancel := context.WithCancel(ctx)
	w, err = b.Create(interrupted, "gone", 3*part)
	must(t, err)
	_, err = io.Copy(w, noise(1, 3*part))
	must(t, err)
	cancel()
	if err := w.Commit(); !errors.Is(err, context.Canceled) {
		t.Errorf("commit of an interrupted object: %v", err)
	}
	for _, key := range keys(t, b) {
		if strings.HasPrefix(key, "gone") {
			t.Errorf("%s is there", key)
		}
	}
}

func TestPartBytes(t *testing.T) {
	const mib, gib, tib = 1 << 20, 1 << 30, 1 << 40
	b := &Bucket{options: Options{}.withDefaults(), service: &s3Service{}}
	tests := []struct{ expect, want int64 }{
		{0, 8 * mib}, {-1, 8 * mib}, {10 * gib, 8 * mib}, {40 * gib, 16 * mib}, {100 * gib, 16 * mib}, {tib, 158 * mib}, {5 * tib, 787 * mib},
	}
	for _, tt := range tests {
		got, err := b.partBytes(tt.expect)
		if err != nil || got != tt.want {
			t.Errorf("%d bytes: parts of %d MiB (%v), want %d", tt.expect, got/mib, err, tt.want/mib)
		}
		if got*10000 < tt.expect {
			t.Errorf("%d bytes: parts of %d MiB are not enough", tt.expect, got/mib)
		}
	}
	if size, err := b.partBytes(1 << 62); err == nil {
		t.Errorf("an object of 4 EiB in parts of %d", size)
	}
}
