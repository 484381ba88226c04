package compress

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// Codec is a way to compress a stream by one goroutine, as the chunks of the
// native engine are: their parallelism is in their number.
type Codec struct {
	Name  string // "zstd", "gzip" or "none"
	Level int    // 1 to MaxLevel; 0 for none
}

// The codecs' names.
const (
	Zstd = "zstd"
	Gzip = "gzip"
	None = "none"
)

// Fastest is the codec that costs least for what it saves: zstd's level 1 is
// smaller than gzip's 6, twice as fast to write and four times to read.
var fastest = Codec{Zstd, 1}

// Fastest returns the codec to use where nobody asked for one.
func Fastest() Codec { return fastest }

// ParseCodec reads zstd:3, gzip:6, zstd, gzip or none. A bare number is a level
// of gzip, and 0 none. Levels above MaxLevel are returned as they are: see Cap.
func ParseCodec(text string) (Codec, error) {
	name, level, hasLevel := strings.Cut(text, ":")
	if _, err := strconv.Atoi(text); err == nil {
		name, level, hasLevel = Gzip, text, true
	}
	c := Codec{Name: name, Level: 1}
	if name == Gzip {
		c.Level = MaxLevel
	}
	if hasLevel {
		n, err := strconv.Atoi(level)
		if err != nil || n < 0 {
			return Codec{}, fmt.Errorf("compression level %s is not between 0 and %d", level, MaxLevel)
		}
		c.Level = n
	}
	switch {
	case name == None || (name == Gzip || name == Zstd) && c.Level == 0:
		return Codec{Name: None}, nil
	case name != Gzip && name != Zstd:
		return Codec{}, fmt.Errorf("compression %q is none of zstd:1 to zstd:%d, gzip:1 to gzip:%d and none", text, MaxLevel, MaxLevel)
	}
	return c, nil
}

// Capped returns the codec with a level that is used, and whether it had to be
// lowered, which the user is to be told.
func (c Codec) Capped() (used Codec, capped bool) {
	c.Level, capped = Cap(c.Level)
	return c, capped
}

// String is what ParseCodec reads.
func (c Codec) String() string {
	if c.Name == None || c.Name == "" {
		return None
	}
	return fmt.Sprintf("%s:%d", c.Name, c.Level)
}

// Suffix is that of a file in which the codec's streams lie, with its dot.
func (c Codec) Suffix() string {
	switch c.Name {
	case Zstd:
		return ".zst"
	case Gzip:
		return ".gz"
	}
	return ""
}

// Writer compresses one stream after the other. It is used by one goroutine,
// and has none of its own.
type Writer struct {
	codec Codec
	zstd  *zstdWriter
	gzip  *gzip.Writer
	plain io.Writer
}

// NewWriter returns a writer without a stream: Reset begins one.
func (c Codec) NewWriter() (*Writer, error) {
	w := &Writer{codec: c}
	var err error
	switch c.Name {
	case Zstd:
		w.zstd, err = newZstdWriter(c.Level)
	case Gzip:
		w.gzip, err = gzip.NewWriterLevel(io.Discard, c.Level)
	case None:
	default:
		err = fmt.Errorf("codec %q is unknown", c.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s writer: %w", c, err)
	}
	return w, nil
}

// Reset begins a stream to out, and forgets what was not closed before.
func (w *Writer) Reset(out io.Writer) {
	w.plain = out
	switch w.codec.Name {
	case Zstd:
		w.zstd.reset(out)
	case Gzip:
		w.gzip.Reset(out)
	}
}

// Write compresses p into the stream.
func (w *Writer) Write(p []byte) (int, error) {
	switch w.codec.Name {
	case Zstd:
		return w.zstd.write(p)
	case Gzip:
		return w.gzip.Write(p)
	}
	return w.plain.Write(p)
}

// Close ends the stream; Reset begins the next one. Only a nil error means that
// all of it was written. It does not close what Reset was given.
func (w *Writer) Close() error {
	switch w.codec.Name {
	case Zstd:
		return w.zstd.close()
	case Gzip:
		return w.gzip.Close()
	}
	return nil
}

// Open reads the one stream that in holds. A stream that was cut is
// io.ErrUnexpectedEOF, and one that holds more than limit bytes ErrTooLarge.
// The caller closes the reader; in stays open.
func (c Codec) Open(in io.Reader, limit int64) (io.ReadCloser, error) {
	switch c.Name {
	case Zstd:
		return openZstd(in, limit)
	case Gzip:
		z, err := NewGzipReader(in)
		if err != nil {
			return nil, err
		}
		z.Limit(limit)
		return io.NopCloser(z), nil
	case None:
		return io.NopCloser(&bounded{in: bufio.NewReaderSize(in, readBytes), left: limit}), nil
	}
	return nil, fmt.Errorf("codec %q is unknown", c.Name)
}

// bounded reads at most left bytes, and finds out whether more would come.
type bounded struct {
	in   io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.left <= 0 {
		var probe [1]byte
		n, err := io.ReadFull(b.in, probe[:])
		if n > 0 {
			return 0, ErrTooLarge
		}
		return 0, err
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
