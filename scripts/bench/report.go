package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// maxPeakRSS is the target for dbbackup's own memory, in bytes.
const maxPeakRSS = 64e6

// The parts of a page, each between its marks.
const (
	archivesPart = "archives"
	nativePart   = "native"
	storesPart   = "stores"
)

// marks are those in a page between which a part's tables stand.
func marks(part string) (begin, end string) {
	return "<!-- bench " + part + ": begin -->\n", "<!-- bench " + part + ": end -->\n"
}

// results is all that a page shows.
type results struct {
	setting []string // paragraphs and list items
	speed   []speed
	memory  []memory
	native  *native
	stores  *stores
}

// parts are the tables of what was measured, each with what it was measured on.
func (r results) parts() map[string]string {
	var setting strings.Builder
	for i, line := range r.setting {
		if i > 0 && !strings.HasPrefix(r.setting[i-1], "- ") {
			setting.WriteString("\n")
		}
		setting.WriteString(line + "\n")
	}
	parts := map[string]string{}
	if r.native != nil {
		parts[nativePart] = setting.String() + r.native.markdown()
	}
	if r.stores != nil {
		parts[storesPart] = setting.String() + r.stores.markdown()
	}
	if len(r.speed) > 0 {
		parts[archivesPart] = setting.String() + r.archives()
	}
	return parts
}

// archives is the tables of the modes in which pg_dump captures.
func (r results) archives() string {
	var out strings.Builder
	out.WriteString("\n| dbbackup | instead | dbbackup, s | instead, s | time | size | CPU, s |\n|---|---|---|---|---|---|---|\n")
	for _, s := range r.speed {
		out.WriteString(s.row())
	}
	out.WriteString("\nTimes are medians, with every run in brackets; ratios are dbbackup's part of the other's. CPU is dbbackup's\n" +
		"and the other's, children included, the server's excepted.\n")
	out.WriteString("\n| peak memory of dbbackup | full database | a tenth of it | 10,000 tables | target 64 MB |\n|---|---|---|---|---|\n")
	for _, m := range r.memory {
		fmt.Fprintf(&out, "| %s | %s | %s | %s | %s |\n", m.mode, megabytes(m.mixed), megabytes(m.small), megabytes(m.tables),
			verdict(float64(max(m.mixed, m.small, m.tables)), maxPeakRSS))
	}
	out.WriteString("\nMemory is the high-water mark of resident memory (VmHWM) of dbbackup's own process, read from outside every 5 ms.\n")
	return out.String()
}

func (s speed) row() string {
	ours, theirs := seconds(s.ours), seconds(s.theirs)
	ratio := median(ours) / median(theirs)
	return fmt.Sprintf("| %s | `%s` | %s | %s | %.2f of %.2f: %s | %s | %.0f / %.0f |\n",
		s.mode, strings.ReplaceAll(s.rival, "|", `\|`), listed(ours), listed(theirs),
		ratio, s.maxTime, verdict(ratio, s.maxTime), s.sizeRatio(), median(cpu(s.ours)), median(cpu(s.theirs)))
}

func (s speed) sizeRatio() string {
	ratio := median(stored(s.ours)) / median(stored(s.theirs))
	if s.maxSize == 0 {
		return fmt.Sprintf("%.3f", ratio)
	}
	return fmt.Sprintf("%.3f of %.2f: %s", ratio, s.maxSize, verdict(ratio, s.maxSize))
}

func verdict(value, target float64) string {
	if value <= target {
		return "met"
	}
	return "missed"
}

// listed is a median followed by the values it comes from.
func listed(values []float64) string {
	each := make([]string, len(values))
	for i, v := range values {
		each[i] = fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.1f (%s)", median(values), strings.Join(each, " "))
}

func seconds(runs []cost) []float64 {
	return column(runs, func(c cost) float64 { return c.wall.Seconds() })
}

func cpu(runs []cost) []float64 {
	return column(runs, func(c cost) float64 { return c.cpu.Seconds() })
}

func stored(runs []cost) []float64 {
	return column(runs, func(c cost) float64 { return float64(c.bytes) })
}

func column(runs []cost, of func(cost) float64) []float64 {
	values := make([]float64, len(runs))
	for i, run := range runs {
		values[i] = of(run)
	}
	return values
}

// median of at least one value; of an even number, the mean of the middle two.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func megabytes(bytes int64) string {
	return fmt.Sprintf("%.0f MB", float64(bytes)/1e6)
}

// replaceBetweenMarks puts text into a page in place of what stood between a
// part's marks.
func replaceBetweenMarks(page, part, text string) error {
	beginMark, endMark := marks(part)
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, begun := strings.Cut(string(old), beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !begun || !ended {
		return errors.New(page + " lacks the marks between which the tables stand")
	}
	return os.WriteFile(page, []byte(before+beginMark+"\n"+text+"\n"+endMark+after), 0o644)
}
