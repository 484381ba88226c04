package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// T66: one of every object comes back equal, in every format, with all that
// belongs to no database. The target is a fresh cluster.
func TestT66ZooReturnsEqual(t *testing.T) {
	source := pgtest.Start(t)
	source.CreateDatabase(t, "zoo")
	zoo.Load(t, source, "zoo")
	eachMode(t, func(t *testing.T, mode string) {
		store := newStore(t)
		dbbackup(t, source.Env(), "backup", "cluster", "--store", store, "--mode", mode).must(t, exitOmissions)
		dbbackup(t, nil, "verify", "--store", store).must(t, exitOK)
		target := freshTarget(t)
		dbbackup(t, target.Env(), "restore", "cluster", "--store", store).must(t, exitOK)
		compareClusters(t, source, target)
	})
}

// freshTarget runs a cluster with nothing but a place for the zoo's tablespace:
// on one machine it cannot lie where the source's does.
func freshTarget(t *testing.T, options ...pgtest.Option) *pgtest.Cluster {
	t.Helper()
	c := pgtest.Start(t, options...)
	makeTablespace(t, c, "zoo_space")
	return c
}

func makeTablespace(t testing.TB, c *pgtest.Cluster, name string) {
	t.Helper()
	dir, err := c.MakeDir(name)
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(t, "postgres", fmt.Sprintf("CREATE TABLESPACE %s LOCATION '%s'", pgtest.Quote(name), dir))
}

// compareClusters fails the test with every difference between two clusters,
// except in the properties of the tablespace that freshTarget made: what is
// there is kept.
func compareClusters(t *testing.T, source, target *pgtest.Cluster) {
	t.Helper()
	differences, err := zoo.DiffClusters(context.Background(), source, target)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range differences {
		if !strings.HasPrefix(d, "tablespace zoo_space: ") {
			t.Error(d)
		}
	}
}
