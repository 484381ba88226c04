// Package folders is what kinds of store with real folders have in common: the
// names that they give to what is not yet published, and the order of keys among
// the entries of a folder.
package folders

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

const partialMark = ".partial-"

// Partial names the temporary file of an object. Long names are cut, so that a
// name which the file system takes has a temporary name it takes too.
func Partial(name string) string {
	return "." + name[:min(len(name), 200)] + partialMark + Random()
}

// IsPartial reports whether a file name is one that Partial gives.
func IsPartial(name string) bool {
	i := strings.LastIndex(name, partialMark)
	return i > 0 && name[0] == '.' && IsRandom(name[i+len(partialMark):])
}

// Random returns 16 hex digits that nobody can guess.
func Random() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// IsRandom reports whether s is what Random returns.
func IsRandom(s string) bool {
	return len(s) == 16 && strings.Trim(s, "0123456789abcdef") == ""
}

// Compare orders the entries of a folder as their keys are ordered: a folder sorts
// as if its name ended in a slash, because its keys do.
func Compare[E interface {
	Name() string
	IsDir() bool
}](a, b E) int {
	return strings.Compare(sortName(a.Name(), a.IsDir()), sortName(b.Name(), b.IsDir()))
}

func sortName(name string, folder bool) string {
	if folder {
		return name + "/"
	}
	return name
}

// Overlaps reports whether a folder, with a slash at its end, can hold keys that
// begin with prefix.
func Overlaps(folder, prefix string) bool {
	return strings.HasPrefix(folder, prefix) || strings.HasPrefix(prefix, folder)
}

// Ancestry returns a, a/b, a/b/c for a/b/c, and nothing for the root.
func Ancestry(folder string) []string {
	if folder == "." {
		return nil
	}
	var names []string
	for i, r := range folder {
		if r == '/' {
			names = append(names, folder[:i])
		}
	}
	return append(names, folder)
}
