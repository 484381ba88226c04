// Package storeserver runs real servers of the kinds of remote stores, for
// tests only: each on a free port of the loopback interface, with its data in a
// folder of the test's own, gone when the test or its process ends.
//
// The programs are those that make tools builds into bin/tools; one in PATH
// does as well. Where one is missing the test is skipped, or fails where CI is
// set.
package storeserver
