package sqltext

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"dbbackup/internal/fault"
)

// MaxStatementBytes is the longest statement that Split reads.
const MaxStatementBytes = 64 << 20

// Kind is what a piece of a script is.
type Kind int

const (
	SQL   Kind = iota // a statement with its semicolon
	Meta              // a line for psql: \connect, \restrict, ...
	Rows              // lines between COPY ... FROM stdin and \., or a part of them; \. is in the last one
	Blank             // spaces and comments after the last statement
)

// Statement is a piece of a script.
type Statement struct {
	Kind Kind
	Text string // as it stands in the script, with the spaces and comments before it
	Line int    // of the text's first byte, from 1

	body int // offset of the statement itself in Text
}

// Body returns the text without the spaces and comments before it.
func (s Statement) Body() string { return s.Text[s.body:] }

// Split cuts a script into pieces and hands them to fn, whose error ends it
// and is returned as it is. The pieces' texts put together are the script. A
// script that ends inside a statement or inside the rows of a COPY is
// fault.Integrity; what was whole before went to fn.
func Split(r io.Reader, fn func(Statement) error) error {
	s := &splitter{r: r, line: 1, lineStart: true, fn: fn}
	for {
		st, copies, err := s.statement()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(st); err != nil {
			return err
		}
		if copies {
			if err := s.rows(); err != nil {
				return err
			}
		}
	}
}

// splitter reads a script through a window that holds one statement.
type splitter struct {
	r         io.Reader
	buf       []byte
	pos       int // of the current statement in buf
	eof       bool
	line      int
	lineStart bool // the byte before the current statement ended a line
	fn        func(Statement) error
}

func (s *splitter) window() []byte { return s.buf[s.pos:] }

// fill reads more. It doubles what is read, so that reading a long token again
// and again from its beginning costs no more than twice its length.
func (s *splitter) fill(limit int) error {
	s.buf = append(s.buf[:0], s.window()...)
	s.pos = 0
	have := len(s.buf)
	if have > limit {
		return fault.New(fault.Integrity, "", "the statement that begins in line %d is longer than %d bytes", s.line, limit)
	}
	want := max(have, 32<<10)
	s.buf = slices.Grow(s.buf, want)[:have+want]
	n, err := io.ReadFull(s.r, s.buf[have:])
	s.buf = s.buf[:have+n]
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		s.eof = true
		return nil
	}
	return err
}

// take removes the first n bytes from the window.
func (s *splitter) take(k Kind, n, body int) Statement {
	text := string(s.window()[:n])
	st := Statement{Kind: k, Text: text, Line: s.line, body: body}
	s.pos += n
	s.line += strings.Count(text, "\n")
	if n > 0 {
		s.lineStart = text[n-1] == '\n'
	}
	return st
}

// statement reads the next piece, and says whether rows follow it.
func (s *splitter) statement() (st Statement, copies bool, err error) {
	var nest nesting
	at, body := 0, -1
	for {
		if at == len(s.window()) && s.eof {
			return s.last(at, body)
		}
		if k, n, ok := s.token(at); ok {
			if k == unfinished {
				return st, false, s.cut()
			}
			if k != space && k != comment && body < 0 {
				body = at
				if s.meta(at) {
					st, err := s.metaLine(at)
					return st, false, err
				}
			}
			ends := nest.step(k, s.window()[at:at+n])
			at += n
			if ends {
				return s.finish(at, body, nest.copies)
			}
			continue
		}
		if err := s.fill(MaxStatementBytes); err != nil {
			return st, false, err
		}
	}
}

func (s *splitter) token(at int) (k kind, n int, ok bool) {
	if at == len(s.window()) {
		return 0, 0, false
	}
	return lex(s.window()[at:], s.eof)
}

func (s *splitter) cut() error {
	return fault.New(fault.Integrity, "the file was cut, or is not whole yet", "the script ends inside the statement that begins in line %d", s.line)
}

// last ends the script after at bytes.
func (s *splitter) last(at, body int) (Statement, bool, error) {
	switch {
	case at == 0:
		return Statement{}, false, io.EOF
	case body >= 0:
		return Statement{}, false, s.cut()
	}
	return s.take(Blank, at, at), false, nil
}

func (s *splitter) meta(at int) bool {
	b := s.window()
	if b[at] != '\\' {
		return false
	}
	if at == 0 {
		return s.lineStart
	}
	return b[at-1] == '\n'
}

// metaLine reads a line for psql that begins after at bytes.
func (s *splitter) metaLine(at int) (Statement, error) {
	for {
		if end := bytes.IndexByte(s.window()[at:], '\n'); end >= 0 {
			return s.take(Meta, at+end+1, at), nil
		}
		if s.eof {
			return s.take(Meta, len(s.window()), at), nil
		}
		if err := s.fill(MaxStatementBytes); err != nil {
			return Statement{}, err
		}
	}
}

// finish ends a statement after at bytes. Rows begin on the line after COPY,
// so the rest of its line belongs to it.
func (s *splitter) finish(at, body int, copies bool) (Statement, bool, error) {
	for copies {
		rest := s.window()[at:]
		end := bytes.IndexByte(rest, '\n')
		if end >= 0 && len(bytes.TrimSpace(rest[:end])) > 0 {
			return Statement{}, false, fault.New(fault.Integrity, "", "text follows COPY FROM stdin in its line, near line %d", s.line)
		}
		if end >= 0 {
			at += end + 1
			break
		}
		if s.eof {
			return Statement{}, false, s.cut()
		}
		if err := s.fill(MaxStatementBytes); err != nil {
			return Statement{}, false, err
		}
	}
	return s.take(SQL, at, body), copies, nil
}

// rows hands on the lines to the one that is \. in pieces.
func (s *splitter) rows() error {
	first := s.line
	for {
		n, done := rowLines(s.window(), s.lineStart, s.eof)
		if n > 0 {
			if err := s.fn(s.take(Rows, n, 0)); err != nil {
				return err
			}
		}
		if done {
			return nil
		}
		if n == 0 && s.eof {
			return fault.New(fault.Integrity, "the file was cut, or is not whole yet", "the script ends inside the rows of a COPY that begin in line %d", first)
		}
		if n == 0 {
			if err := s.fill(MaxStatementBytes); err != nil {
				return err
			}
		}
	}
}

// rowLines returns how many bytes of b are rows, and whether the last of them
// is the line \. that ends them. Of a row longer than b it takes what is there.
func rowLines(b []byte, lineStart, eof bool) (n int, done bool) {
	const enough = 8 // bytes that tell "\.\r\n" from a row
	for n < len(b) {
		rest := b[n:]
		if lineStart && len(rest) < enough && !eof && bytes.IndexByte(rest, '\n') < 0 {
			return n, false
		}
		end := bytes.IndexByte(rest, '\n') + 1
		if end == 0 {
			end = len(rest)
		}
		if lineStart && string(bytes.TrimRight(rest[:end], "\r\n")) == `\.` {
			return n + end, true
		}
		n += end
		lineStart = rest[end-1] == '\n'
	}
	return n, false
}

// nesting finds a statement's end as psql does: a semicolon outside of
// parentheses and of the body of an SQL function.
type nesting struct {
	words  []string // the first few
	parens int
	begins int
	from   bool // the last token was FROM
	copies bool // it is a COPY FROM stdin
}

// step takes the next token and says whether it ends the statement.
func (n *nesting) step(k kind, text []byte) bool {
	switch {
	case k == space || k == comment:
		return false
	case k == word:
		n.word(strings.ToLower(string(text[:min(len(text), 16)])))
		return false
	case k == punct && text[0] == '(':
		n.parens++
	case k == punct && text[0] == ')':
		n.parens = max(0, n.parens-1)
	case k == punct && text[0] == ';':
		return n.parens == 0 && n.begins == 0
	}
	n.from = false
	return false
}

func (n *nesting) word(w string) {
	const first = 4 // CREATE OR REPLACE FUNCTION
	if len(n.words) < first {
		n.words = append(n.words, w)
	}
	if w == "stdin" && n.from && n.words[0] == "copy" {
		n.copies = true
	}
	n.from = w == "from"
	if n.parens > 0 || !n.routine() {
		return
	}
	switch {
	case w == "begin", w == "case" && n.begins > 0:
		n.begins++
	case w == "end" && n.begins > 0:
		n.begins--
	}
}

// routine says whether the statement creates a function or procedure.
func (n *nesting) routine() bool {
	head := strings.Join(n.words, " ") + " "
	for _, what := range [...]string{"function ", "procedure "} {
		if strings.HasPrefix(head, "create "+what) || strings.HasPrefix(head, "create or replace "+what) {
			return true
		}
	}
	return false
}

// String names the kind in messages.
func (k Kind) String() string {
	names := [...]string{"SQL", "meta command", "rows", "blank"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return names[k]
}
