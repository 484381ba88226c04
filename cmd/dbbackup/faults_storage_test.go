package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// newTmpfs mounts a small file system to be a store, until the test is over.
func newTmpfs(t testing.TB, options string) string {
	t.Helper()
	needRoot(t)
	path := t.TempDir()
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, options+",mode=0700"); err != nil {
		cannot(t, "mount tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return path
}
