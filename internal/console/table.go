package console

import (
	"fmt"
	"io"
	"strings"
)

// Table is a result in columns that fits a screen: two spaces between columns,
// none at the end of a line, and names cut to a width. What is cut is whole in
// the JSON.
type Table struct {
	nameWidth int
	right     []bool
	rows      [][]string
}

// NewTable begins a table. The first column holds names; a heading that begins
// with > is of a column of numbers, which are aligned to the right.
func NewTable(nameWidth int, headings ...string) *Table {
	t := &Table{nameWidth: nameWidth}
	for i, heading := range headings {
		text, right := strings.CutPrefix(heading, ">")
		headings[i], t.right = text, append(t.right, right)
	}
	t.rows = [][]string{headings}
	return t
}

// Add adds a row, a cell for each heading.
func (t *Table) Add(cells ...string) {
	cells[0] = Cut(cells[0], t.nameWidth)
	t.rows = append(t.rows, cells)
}

// Print writes the table.
func (t *Table) Print(w io.Writer) error {
	widths := make([]int, len(t.right))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], columnsOf(cell))
		}
	}
	for _, row := range t.rows {
		var b strings.Builder
		for i, cell := range row {
			space := strings.Repeat(" ", widths[i]-columnsOf(cell))
			if t.right[i] {
				cell, space = space+cell, ""
			}
			b.WriteString(cell + space + "  ")
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(b.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// Cut shortens a text to a width.
func Cut(text string, width int) string {
	if runes := []rune(text); len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return text
}
