package sqltext

import (
	"bytes"
	"io"

	"dbbackup/internal/fault"
)

// PlainDumpTrailer is the line that pg_dump ends a plain dump with, when it
// could write all of it.
const PlainDumpTrailer = "-- PostgreSQL database dump complete"

// TailCheck looks at a plain dump as it is written somewhere, and keeps its
// beginning and end only. The zero value is ready.
//
// It looks for the trailer and not at what stands before: that a dump is whole
// between its ends is a matter of pg_dump's exit code, and of digests. CheckDump
// reads all of it.
type TailCheck struct {
	head []byte
	tail []byte
}

const (
	headBytes = 1024 // \restrict stands in the first lines
	tailBytes = 512
)

// Write never fails.
func (c *TailCheck) Write(p []byte) (int, error) {
	if room := headBytes - len(c.head); room > 0 {
		c.head = append(c.head, p[:min(room, len(p))]...)
	}
	c.tail = append(c.tail, p[max(0, len(p)-tailBytes):]...)
	c.tail = append(c.tail[:0], c.tail[max(0, len(c.tail)-tailBytes):]...)
	return len(p), nil
}

// Complete says whether what was written ends as a finished plain dump does:
// with the trailer as a comment of its own, and after it nothing but empty
// lines, comments and \unrestrict with the key that \restrict named at the
// beginning. Rows can hold the trailer's text, but not that key. The error is
// fault.Integrity.
func (c *TailCheck) Complete() error {
	const trailer = "\n--\n" + PlainDumpTrailer + "\n--\n"
	if len(c.head) == 0 {
		return cutDump("it is empty")
	}
	at := bytes.LastIndex(c.tail, []byte(trailer))
	if at < 0 {
		return cutDump("it does not end with %q", PlainDumpTrailer)
	}
	key, want := restrictKey(c.head), ""
	for line := range bytes.Lines(c.tail[at+len(trailer):]) {
		line = bytes.TrimSpace(line)
		found, unrestricts := bytes.CutPrefix(line, []byte(`\unrestrict `))
		switch {
		case unrestricts:
			want = string(found)
		case len(line) > 0 && !bytes.HasPrefix(line, []byte("--")):
			return cutDump("%q follows its end", line)
		}
	}
	if key != want {
		return cutDump("it begins with the key %q of \\restrict and ends with %q", key, want)
	}
	return nil
}

// restrictKey returns the key of the line \restrict KEY, empty where there is
// none: pg_dump before the minor releases of August 2025.
func restrictKey(head []byte) string {
	for line := range bytes.Lines(head) {
		if key, ok := bytes.CutPrefix(line, []byte(`\restrict `)); ok {
			return string(bytes.TrimSpace(key))
		}
		if line = bytes.TrimSpace(line); len(line) > 0 && !bytes.HasPrefix(line, []byte("--")) {
			return ""
		}
	}
	return ""
}

func cutDump(format string, args ...any) error {
	return fault.New(fault.Integrity, "the dump was cut, or pg_dump did not finish; take another backup set", "the plain dump is not complete: "+format, args...)
}

// CheckDump reads a plain dump to its end: every statement and all rows of
// every COPY must be whole, and it must be Complete as TailCheck has it. Errors
// about the content are fault.Integrity.
func CheckDump(r io.Reader) error {
	var tail TailCheck
	if err := Split(io.TeeReader(r, &tail), func(Statement) error { return nil }); err != nil {
		return err
	}
	return tail.Complete()
}
