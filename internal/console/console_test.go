package console_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"dbbackup/internal/console"
	"dbbackup/internal/report"
)

// A name with line feeds, quotes or terminal codes must not look like something
// that the program says.
var hostile = "x\n2026-01-01 00:00:00 info  done\x1b[2K\u2028 y=\"z\""

func TestTextLinesAreOnePerNotice(t *testing.T) {
	var out bytes.Buffer
	r, err := console.NewReporter(&out, console.Options{Format: "text"})
	if err != nil {
		t.Fatal(err)
	}
	r.Info(hostile, report.F("database", hostile), report.F("empty", ""), report.F("because", errors.New("a\nb")))
	got := out.String()
	if strings.Count(got, "\n") != 1 || strings.ContainsAny(got, "\x1b\u2028") {
		t.Errorf("got %q, want one line without control characters", got)
	}
	for _, want := range []string{`empty=""`, `because="a\nb"`} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want it to contain %s", got, want)
		}
	}
}

func TestTextLinesFitTheTerminal(t *testing.T) {
	var out bytes.Buffer
	r, err := console.NewReporter(&out, console.Options{Format: "text", Columns: 60})
	if err != nil {
		t.Fatal(err)
	}
	r.Warn("a message of some words", report.F("one", strings.Repeat("ä", 20)), report.F("two", strings.Repeat("b c ", 30)))
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) < 3 {
		t.Fatalf("got %q, want several lines", lines)
	}
	for i, line := range lines {
		if utf8.RuneCountInString(line) >= 60 {
			t.Errorf("line %q does not fit", line)
		}
		if indented := strings.HasPrefix(line, strings.Repeat(" ", len("15:04:05 warn  "))); indented != (i > 0) {
			t.Errorf("line %d is %q, want all but the first indented", i, line)
		}
	}
}

func TestJSONLines(t *testing.T) {
	var out bytes.Buffer
	r, err := console.NewReporter(&out, console.Options{Format: "json", Quiet: true})
	if err != nil {
		t.Fatal(err)
	}
	r.Info("not wanted")
	r.Warn(hostile, report.F("n", 7), report.F("list", []string{"a"}), report.F("because", errors.New("broken")))
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%q: %v", out.String(), err)
	}
	if line["msg"] != hostile || line["level"] != "warning" || line["n"] != 7.0 || line["because"] != "broken" {
		t.Errorf("got %v", line)
	}
}

func TestUnknownFormatIsRefused(t *testing.T) {
	if _, err := console.NewReporter(&bytes.Buffer{}, console.Options{Format: "xml"}); err == nil {
		t.Error("a log in xml was begun")
	}
}

func TestTable(t *testing.T) {
	table := console.NewTable(8, "DATABASE", ">SIZE", "RESULT")
	table.Add("app", "1 GB", "ok")
	table.Add("a_name_too_long", "20 GB", "FAILED")
	var out bytes.Buffer
	if err := table.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := "DATABASE   SIZE  RESULT\napp        1 GB  ok\na_name_…  20 GB  FAILED\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
