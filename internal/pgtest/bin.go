package pgtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// debianBin is where Debian keeps the server binaries of each major version.
const debianBin = "/usr/lib/postgresql/*/bin"

// BinDir returns the folder with the server binaries of a major version, or of
// the preferred one when major is 0. Without one the test is skipped, or fails
// where CI is set.
func BinDir(tb testing.TB, major int) string {
	tb.Helper()
	dir, err := FindBinDir(major)
	if err != nil {
		unavailable(tb, err)
	}
	return dir
}

// FindBinDir is BinDir without a test. Preferred is the first folder of
// PGTEST_BIN, else the newest version installed the way Debian does, else the
// one in PATH.
func FindBinDir(major int) (string, error) {
	for _, dir := range binDirs() {
		if m, err := majorOf(dir); err == nil && (major == 0 || m == major) {
			return dir, nil
		}
	}
	if major == 0 {
		return "", fmt.Errorf("find PostgreSQL server binaries: none in PGTEST_BIN, %s or PATH", debianBin)
	}
	return "", fmt.Errorf("find PostgreSQL %d server binaries: none in PGTEST_BIN, %s or PATH", major, debianBin)
}

// binDirs lists the folders to look in, best first.
func binDirs() []string {
	if list := os.Getenv("PGTEST_BIN"); list != "" {
		return filepath.SplitList(list)
	}
	dirs, _ := filepath.Glob(debianBin) // the pattern is constant and valid
	slices.SortFunc(dirs, func(a, b string) int { return debianMajor(b) - debianMajor(a) })
	if initdb, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(initdb))
	}
	return dirs
}

func debianMajor(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

// majorOf asks the server binary in dir for its major version.
func majorOf(dir string) (int, error) {
	out, err := exec.CommandContext(context.Background(), filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("run postgres --version in %s: %w", dir, err)
	}
	// postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1), or ... 18beta1
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return 0, fmt.Errorf("read version of postgres in %s: got %q", dir, out)
	}
	digits := strings.IndexFunc(fields[2], func(r rune) bool { return r < '0' || r > '9' })
	if digits < 0 {
		digits = len(fields[2])
	}
	return strconv.Atoi(fields[2][:digits])
}

// unavailable ends a test that has no PostgreSQL.
func unavailable(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("CI") != "" {
		tb.Fatalf("this test needs PostgreSQL, and CI is set: %v", err)
	}
	tb.Skipf("this test needs PostgreSQL: %v", err)
}
