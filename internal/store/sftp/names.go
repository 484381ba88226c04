package sftp

import (
	"cmp"
	"os"
	"strings"
)

const partialMark = ".partial-"

// partialName names the temporary file of an object. Long names are cut, so
// that a name which the file system takes has a temporary name it takes too.
func partialName(name string) string {
	return "." + name[:min(len(name), 200)] + partialMark + random()
}

// ownName reports whether a file name is one that this package gives to what
// is not yet published.
func ownName(name string) bool {
	i := strings.LastIndex(name, partialMark)
	return i > 0 && name[0] == '.' && isRandom(name[i+len(partialMark):])
}

func isRandom(s string) bool {
	return len(s) == 16 && strings.Trim(s, "0123456789abcdef") == ""
}

// compareNames orders the entries of a folder as their keys are ordered.
func compareNames(a, b os.FileInfo) int { return cmp.Compare(sortName(a), sortName(b)) }

func sortName(info os.FileInfo) string {
	if info.IsDir() {
		return info.Name() + "/"
	}
	return info.Name()
}
