package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sirupsen/logrus"

	"dbbackup/internal/report"
)

// fieldsKey holds the fields of a log entry in the order in which they were
// given, which logrus itself does not keep.
const fieldsKey = "fields"

func ordered(fields []report.Field) logrus.Fields { return logrus.Fields{fieldsKey: fields} }

func fieldsOf(e *logrus.Entry) []report.Field {
	fields, _ := e.Data[fieldsKey].([]report.Field)
	return fields
}

// shown is a field's value as text, or as a number or a list.
func shown(value any) any {
	switch v := value.(type) {
	case error:
		return v.Error()
	case fmt.Stringer:
		return v.String()
	}
	return value
}

// jsonLines formats log lines as JSON objects. Their keys time, level and msg
// are an interface for programs, and so are the fields' names.
type jsonLines struct{}

func (jsonLines) Format(e *logrus.Entry) ([]byte, error) {
	line := map[string]any{}
	for _, f := range fieldsOf(e) {
		line[f.Key] = shown(f.Value)
	}
	line["time"], line["level"], line["msg"] = e.Time.Format(time.RFC3339), e.Level.String(), e.Message
	text, err := json.Marshal(line)
	return append(text, '\n'), err
}

// textLines formats log lines for people:
//
//	2026-01-02 03:04:05 info  capture begins  database=app  mode=custom
//
// The time is local. On a terminal (columns above 0) the date is left out, and
// what does not fit the width goes to further lines, indented.
type textLines struct{ columns int }

func (f textLines) Format(e *logrus.Entry) ([]byte, error) {
	layout := "2006-01-02 15:04:05"
	if f.columns > 0 {
		layout = "15:04:05"
	}
	level := e.Level.String()
	if e.Level == logrus.WarnLevel {
		level = "warn"
	}
	head := fmt.Sprintf("%s %-5s ", e.Time.Format(layout), level)
	parts := []string{oneLine(e.Message)}
	for _, field := range fieldsOf(e) {
		parts = append(parts, field.Key+"="+quoted(fmt.Sprint(shown(field.Value))))
	}
	var b bytes.Buffer
	if f.columns == 0 {
		b.WriteString(head + strings.Join(parts, "  ") + "\n")
		return b.Bytes(), nil
	}
	for i, line := range fitted(parts, f.columns-1-len(head)) {
		if i > 0 {
			head = strings.Repeat(" ", len(head))
		}
		b.WriteString(head + line + "\n")
	}
	return b.Bytes(), nil
}

// fitted joins parts into lines of a width, keeping each whole where it fits.
func fitted(parts []string, width int) []string {
	var lines []string
	for _, part := range parts {
		if n := len(lines); n > 0 && columnsOf(lines[n-1])+2+columnsOf(part) <= width {
			lines[n-1] += "  " + part
			continue
		}
		lines = append(lines, Wrap(part, width)...)
	}
	return lines
}

func columnsOf(s string) int { return len([]rune(s)) }

// oneLine keeps a message from looking like several.
func oneLine(s string) string { return strings.Join(strings.FieldsFunc(s, isControl), " ") }

func isControl(r rune) bool { return r == 0x2028 || r == 0x2029 || unicode.IsControl(r) }

// quoted quotes a value that could be taken for something else.
func quoted(s string) string {
	special := func(r rune) bool {
		return r == ' ' || r == '"' || r == '=' || r == unicode.ReplacementChar || isControl(r)
	}
	if s == "" || strings.ContainsFunc(s, special) {
		return strconv.Quote(s)
	}
	return s
}
