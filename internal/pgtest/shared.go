package pgtest

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Shared is one cluster for all tests of a package, started when the first of
// them asks for it:
//
//	var shared pgtest.Shared
//
//	func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }
//
//	func TestSomething(t *testing.T) {
//		c := shared.Cluster(t)
//		db := c.Database(t)
//		...
//
// Tests that change settings, roles or the server's state start their own, for
// which initdb needs to run only once:
//
//	c := shared.Start(t)
type Shared struct {
	Options []Option

	once    sync.Once
	cluster *Cluster
	err     error

	templateOnce sync.Once
	template     *Cluster
	templateErr  error
}

// Cluster returns the package's cluster. It lives until Run returns.
func (s *Shared) Cluster(tb testing.TB) *Cluster {
	tb.Helper()
	BinDir(tb, apply(s.Options).major)
	s.once.Do(func() { s.cluster, s.err = Open(s.Options...) })
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return s.cluster
}

// Start is the function Start, but faster.
func (s *Shared) Start(tb testing.TB, opts ...Option) *Cluster {
	tb.Helper()
	cfg := apply(opts)
	BinDir(tb, cfg.major)
	if cfg.major != 0 || cfg.initdbArgs != nil || cfg.detached {
		return Start(tb, opts...)
	}
	s.templateOnce.Do(func() { s.template, s.templateErr = openTemplate() })
	if s.templateErr != nil {
		tb.Fatal(s.templateErr)
	}
	return Start(tb, append(opts, like(s.template))...)
}

// Run runs the package's tests, closes the cluster and returns the exit code.
func (s *Shared) Run(m *testing.M) int {
	code := m.Run()
	for _, c := range []*Cluster{s.cluster, s.template} {
		if c == nil {
			continue
		}
		if err := c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "close shared cluster:", err)
			return 1
		}
	}
	return code
}
