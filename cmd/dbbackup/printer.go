package main

import (
	"fmt"
	"io"
	"strings"

	"dbbackup/internal/console"
)

// printer prints lines and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// wrapped prints a paragraph; its first line begins with first, the others
// with as many spaces.
func (p *printer) wrapped(first, text string) {
	width := len([]rune(first))
	for i, line := range console.Wrap(text, helpWidth-width) {
		if i > 0 {
			first = strings.Repeat(" ", width)
		}
		p.line("%s", strings.TrimRight(first+line, " "))
	}
}

// labelled prints a text in lines beside a label.
func (p *printer) labelled(label, format string, args ...any) {
	p.wrapped(fmt.Sprintf("%-10s ", label), fmt.Sprintf(format, args...))
}
