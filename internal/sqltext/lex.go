package sqltext

import (
	"bytes"
	"strings"
)

// kind is what a token is.
type kind int

const (
	space kind = iota
	comment
	word   // an unquoted name or keyword
	quoted // "a name"
	str    // '...', E'...' or $$...$$
	number
	punct // one byte of anything else
	unfinished
)

// lex reads the token that begins at b[0]. ok is false when it needs more
// bytes to tell, which it never does with atEOF. An unfinished token is one
// whose end is missing at the end of the input.
func lex(b []byte, atEOF bool) (k kind, length int, ok bool) {
	two := byte(0)
	if len(b) > 1 {
		two = b[1]
	} else if !atEOF && strings.IndexByte("-/eE$", b[0]) >= 0 {
		return 0, 0, false
	}
	switch c := b[0]; {
	case isSpace(c):
		return space, span(b, isSpace), true
	case c == '-' && two == '-':
		return lexLine(b, atEOF)
	case c == '/' && two == '*':
		return lexComment(b, atEOF)
	case c == '\'':
		return lexQuoted(b, 1, str, false, atEOF)
	case (c == 'e' || c == 'E') && two == '\'':
		return lexQuoted(b, 2, str, true, atEOF)
	case c == '"':
		return lexQuoted(b, 1, quoted, false, atEOF)
	case c == '$':
		return lexDollar(b, atEOF)
	case isWordStart(c):
		n := span(b, isWordPart)
		return word, n, n < len(b) || atEOF
	case isDigit(c):
		n := span(b, isWordPart)
		return number, n, n < len(b) || atEOF
	}
	return punct, 1, true
}

func isSpace(c byte) bool     { return c == ' ' || c >= '\t' && c <= '\r' }
func isDigit(c byte) bool     { return c >= '0' && c <= '9' }
func isWordStart(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80 }
func isWordPart(c byte) bool  { return isWordStart(c) || isDigit(c) || c == '$' }

// span returns how many leading bytes satisfy is.
func span(b []byte, is func(byte) bool) int {
	for i, c := range b {
		if !is(c) {
			return i
		}
	}
	return len(b)
}

// lexLine reads to the end of the line, without it.
func lexLine(b []byte, atEOF bool) (kind, int, bool) {
	if n := bytes.IndexByte(b, '\n'); n >= 0 {
		return comment, n, true
	}
	return comment, len(b), atEOF
}

func lexComment(b []byte, atEOF bool) (kind, int, bool) {
	depth := 1
	for i := 2; i+1 < len(b); i++ {
		switch {
		case b[i] == '/' && b[i+1] == '*':
			depth++
			i++
		case b[i] == '*' && b[i+1] == '/':
			depth--
			i++
		}
		if depth == 0 {
			return comment, i + 1, true
		}
	}
	return unfinished, len(b), atEOF
}

// lexQuoted reads to the quote that ends what the quote at b[from-1] began. A
// doubled quote does not end it.
func lexQuoted(b []byte, from int, k kind, escapes, atEOF bool) (kind, int, bool) {
	end := b[from-1]
	for i := from; i < len(b); i++ {
		switch {
		case escapes && b[i] == '\\':
			i++
		case b[i] != end:
		case i+1 == len(b) && !atEOF:
			return 0, 0, false
		case i+1 < len(b) && b[i+1] == end:
			i++
		default:
			return k, i + 1, true
		}
	}
	return unfinished, len(b), atEOF
}

func lexDollar(b []byte, atEOF bool) (kind, int, bool) {
	n := 1 + span(b[1:], func(c byte) bool { return isWordStart(c) || isDigit(c) })
	if n == len(b) && !atEOF {
		return 0, 0, false
	}
	if n == len(b) || b[n] != '$' || n > 1 && isDigit(b[1]) {
		return punct, 1, true
	}
	tag := b[:n+1]
	if end := bytes.Index(b[len(tag):], tag); end >= 0 {
		return str, len(tag) + end + len(tag), true
	}
	return unfinished, len(b), atEOF
}

// token is a token of a text that is there in whole.
type token struct {
	kind kind
	text string
	at   int // offset in the text
}

// tokens returns the tokens of sql but for spaces and comments.
func tokens(sql string) []token {
	var list []token
	b := []byte(sql)
	for at := 0; at < len(b); {
		k, n, _ := lex(b[at:], true)
		if k != space && k != comment {
			list = append(list, token{k, sql[at : at+n], at})
		}
		at += n
	}
	return list
}

// is says whether t is the keyword, which is given in lower case.
func (t token) is(keyword string) bool {
	return t.kind == word && strings.EqualFold(t.text, keyword)
}

// name returns the identifier that t is.
func (t token) name() (string, bool) {
	switch t.kind {
	case word:
		return fold(t.text), true
	case quoted:
		return strings.ReplaceAll(t.text[1:len(t.text)-1], `""`, `"`), true
	}
	return "", false
}

// fold lowers ASCII letters, as the server does with unquoted names in UTF-8
// databases.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// value returns the content of a '...' string, or of an E'...' string as
// PostgreSQL's tools write it: backslashes doubled, no other escapes.
func (t token) value() (string, bool) {
	if t.kind != str || t.text[0] == '$' {
		return "", false
	}
	if t.text[0] == '\'' {
		return strings.ReplaceAll(t.text[1:len(t.text)-1], "''", "'"), true
	}
	return strings.NewReplacer("''", "'", `\\`, `\`).Replace(t.text[2 : len(t.text)-1]), true
}

func quoteName(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// quoteString writes a string for sessions with standard_conforming_strings=on,
// which all of PostgreSQL's tools set.
func quoteString(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
