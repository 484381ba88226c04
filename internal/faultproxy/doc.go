// Package faultproxy stands between a program and a real HTTP server and breaks
// some of what passes, for tests only. Which requests a fault happens to is
// counted, or follows from a seed where requests come one by one; and every fault
// counts how often it fired: a test whose fault did not happen proves nothing, and
// must fail.
package faultproxy
