package pgtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRemoveAbandoned(t *testing.T) {
	parent := t.TempDir()
	long := time.Now().Add(-2 * abandonedAfter)
	mk := func(name string, modified time.Time) string {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, modified, modified); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dead, young, other := mk(tempPrefix+"dead", long), mk(tempPrefix+"young", time.Now()), mk("other", long)
	held := mk(tempPrefix+"held", time.Now())
	lock, err := lockDir(held)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := os.Chtimes(held, long, long); err != nil {
		t.Fatal(err)
	}

	removeAbandoned(parent)

	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("a dead process's folder is still there: %v", err)
	}
	for _, dir := range []string{young, other, held} {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("removed too much: %v", err)
		}
	}
}
