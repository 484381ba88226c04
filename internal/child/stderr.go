package child

import (
	"bytes"
	"strings"
)

const (
	tailBytes = 64 << 10 // what is kept of standard error
	lineBytes = 64 << 10 // what OnStderrLine gets of one line
)

// tail keeps the last tailBytes of what is written to it.
type tail struct{ kept []byte }

func (t *tail) write(b []byte) {
	t.kept = append(t.kept, b...)
	if len(t.kept) >= 2*tailBytes { // move rarely
		t.kept = append(t.kept[:0], t.kept[len(t.kept)-tailBytes:]...)
	}
}

func (t *tail) String() string {
	return strings.ToValidUTF8(string(t.kept[max(0, len(t.kept)-tailBytes):]), "\uFFFD")
}

// lineSplitter calls emit for each line, cut after lineBytes.
type lineSplitter struct {
	emit    func(line string) // may be nil
	pending []byte
	begun   bool // a line without its newline is pending, though it may be empty
}

func (s *lineSplitter) write(b []byte) {
	if s.emit == nil {
		return
	}
	for len(b) > 0 {
		line, rest, found := bytes.Cut(b, []byte{'\n'})
		s.pending = append(s.pending, line[:min(len(line), lineBytes-len(s.pending))]...)
		s.begun = true
		if found {
			s.flush()
		}
		b = rest
	}
}

// end emits a last line that has no newline: a killed child's last words.
func (s *lineSplitter) end() {
	if s.begun {
		s.flush()
	}
}

func (s *lineSplitter) flush() {
	line := strings.TrimSuffix(string(s.pending), "\r")
	s.pending, s.begun = s.pending[:0], false
	s.emit(strings.ToValidUTF8(line, "\uFFFD"))
}
