package store

import (
	"fmt"
	"strings"
)

// CheckKey says why a key may not be used, or returns nil. A key is made of
// segments joined by slashes. No segment is empty, begins with a dot (those
// names are a store's own: temporary files, its lock) or holds a NUL. The first
// segment is not lost+found, which belongs to the file system.
func CheckKey(key string) error {
	if strings.ContainsRune(key, 0) {
		return fmt.Errorf("key %q holds a NUL", key)
	}
	for i, segment := range strings.Split(key, "/") {
		switch {
		case segment == "":
			return fmt.Errorf("key %q has an empty segment", key)
		case segment[0] == '.':
			return fmt.Errorf("key %q has a segment that begins with a dot", key)
		case i == 0 && segment == "lost+found":
			return fmt.Errorf("key %q lies in lost+found", key)
		}
	}
	return nil
}
