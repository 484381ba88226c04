// Package faultproxy stands between a program and a real HTTP server and breaks
// some of what passes, for tests only. Which requests a fault happens to follows
// from a seed, and every fault counts how often it fired: a test whose fault did
// not happen proves nothing, and must fail.
package faultproxy
