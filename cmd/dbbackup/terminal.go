package main

import "golang.org/x/sys/unix"

// isTTY reports whether a file descriptor is a terminal.
func isTTY(fd uintptr) bool {
	_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS) //nolint:gosec // a descriptor fits
	return err == nil
}
