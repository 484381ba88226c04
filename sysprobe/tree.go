package sysprobe

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tree reads the small files in which a kernel tells about itself, below a
// root. What cannot be read is unknown: kernels and containers leave files out.
type tree struct{ root string }

func (t tree) path(name string) string { return filepath.Join(t.root, "/", name) }

// text returns a file's content without surrounding white space.
func (t tree) text(name string) string {
	b, err := os.ReadFile(t.path(name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// number returns the one number in a file.
func (t tree) number(name string) (int64, bool) {
	n, err := strconv.ParseInt(t.text(name), 10, 64)
	return n, err == nil
}

// setting returns a number that fits an int, or Unknown.
func (t tree) setting(name string) int {
	n, ok := t.number(name)
	if !ok {
		return Unknown
	}
	return int(n)
}

// field returns the value of a key in lines of key and value, which is how
// /proc/self/status (with a colon) and a cgroup's memory.stat are written.
func (t tree) field(name, key string) (string, bool) {
	for line := range strings.Lines(t.text(name)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if c, w, colon := strings.Cut(line, ":"); colon {
			k, v, ok = strings.TrimSpace(c), w, true
		}
		if ok && k == key {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}

// names lists a folder, sorted.
func (t tree) names(dir string) []string {
	entries, err := os.ReadDir(t.path(dir))
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// bracketed splits a list like "always [madvise] never" into the chosen word
// and all words. A single word without brackets is chosen.
func bracketed(list string) (chosen string, all []string) {
	for word := range strings.FieldsSeq(list) {
		name := strings.Trim(word, "[]")
		if name != word {
			chosen = name
		}
		all = append(all, name)
	}
	if chosen == "" && len(all) == 1 {
		chosen = all[0]
	}
	return chosen, all
}
