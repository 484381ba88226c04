package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{4, 1}, 2.5},
		{[]float64{9, 1, 2}, 2},
		{[]float64{9, 1, 2, 4}, 3},
	} {
		if got := median(tt.values); got != tt.want {
			t.Errorf("median of %v: got %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestMarkdownJudges(t *testing.T) {
	run := func(seconds float64, bytes int64) cost {
		return cost{wall: time.Duration(seconds * float64(time.Second)), bytes: bytes}
	}
	r := results{
		speed: []speed{
			{contest{mode: "plain", rival: "a | b", maxTime: 0.6, maxSize: 1.02}, []cost{run(5, 103), run(6, 103), run(90, 103)}, []cost{run(10, 100)}},
			{contest{mode: "custom", rival: "c", maxTime: 1.03}, []cost{run(104, 1)}, []cost{run(100, 1)}},
		},
		memory: []memory{{"plain", 63e6, 64e6, 1}, {"custom", 1, 1, 65e6}},
	}
	text := r.parts()[archivesPart]
	for _, want := range []string{
		"| plain | `a \\| b` | 6.0 (5.0 6.0 90.0) | 10.0 (10.0) | 0.60 of 0.60: met | 1.030 of 1.02: missed |",
		"1.04 of 1.03: missed | 1.000 |",
		"| plain | 63 MB | 64 MB | 0 MB | met |",
		"| custom | 0 MB | 0 MB | 65 MB | missed |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("lacks %q:\n%s", want, text)
		}
	}
}

func TestReplaceBetweenMarks(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(page, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	beginMark, endMark := marks("some")
	write("before\n" + beginMark + "old\n" + endMark + "after\n")
	for range 2 {
		if err := replaceBetweenMarks(page, "some", "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if want := "before\n" + beginMark + "\nnew\n\n" + endMark + "after\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	write("no marks\n")
	if err := replaceBetweenMarks(page, "some", "new\n"); err == nil {
		t.Error("a page without marks is accepted")
	}
}

// The page that make bench writes must have its marks.
func TestBenchmarksPageHasMarks(t *testing.T) {
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{archivesPart, nativePart, storesPart} {
		if err := replaceBetweenMarks(page, part, "new\n"); err != nil {
			t.Error(err)
		}
	}
}
