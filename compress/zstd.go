package compress

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// windowBytes bounds the memory of a zstd stream, on both sides, to a few times
// itself. Larger windows save less than a percent of what tables hold.
const windowBytes = 1 << 20

// zstdWriter compresses in the goroutine that writes.
type zstdWriter struct{ z *zstd.Encoder }

func newZstdWriter(level int) (*zstdWriter, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstdLevel(level)), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(windowBytes), zstd.WithLowerEncoderMem(false), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, err
	}
	return &zstdWriter{z}, nil
}

// zstdLevel maps the levels that this project knows to those that the library
// has.
func zstdLevel(level int) zstd.EncoderLevel {
	switch {
	case level <= 1:
		return zstd.SpeedFastest
	case level <= 3:
		return zstd.SpeedDefault
	default:
		return zstd.SpeedBetterCompression
	}
}

func (w *zstdWriter) reset(out io.Writer)         { w.z.Reset(out) }
func (w *zstdWriter) write(p []byte) (int, error) { return w.z.Write(p) }
func (w *zstdWriter) close() error                { return w.z.Close() }

// zstdReader checks the checksum of every frame before it reports io.EOF.
type zstdReader struct {
	z    *zstd.Decoder
	src  *begun
	in   bounded
	fail error
}

// begun remembers whether anything was read: even an empty stream has a frame.
type begun struct {
	in  io.Reader
	any bool
}

func (b *begun) Read(p []byte) (int, error) {
	n, err := b.in.Read(p)
	b.any = b.any || n > 0
	return n, err
}

func openZstd(in io.Reader, limit int64) (io.ReadCloser, error) {
	src := &begun{in: in}
	z, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(8*windowBytes), zstd.WithDecoderMaxMemory(1<<40))
	if err != nil {
		return nil, fmt.Errorf("open zstd stream: %w", cut(err))
	}
	return &zstdReader{z: z, src: src, in: bounded{in: z, left: limit}}, nil
}

func (r *zstdReader) Read(p []byte) (int, error) {
	if r.fail != nil {
		return 0, r.fail
	}
	n, err := r.in.Read(p)
	if err == io.EOF && !r.src.any {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && err != io.EOF && !errors.Is(err, ErrTooLarge) {
		err = fmt.Errorf("read zstd stream: %w", err)
	}
	r.fail = err
	return n, err
}

func (r *zstdReader) Close() error {
	r.z.Close()
	return nil
}
