package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// T66: one of every object comes back equal, in every format, with all that
// belongs to no database, into a fresh cluster: by this program, and by hand with
// PostgreSQL's own.
func TestT66ZooReturnsEqual(t *testing.T) {
	t.Parallel()
	source := shared.Start(t)
	source.CreateDatabase(t, "zoo")
	zoo.Load(t, source, "zoo")
	eachMode(t, func(t *testing.T, mode string) {
		store := newStore(t)
		dbbackup(t, source.Env(), "backup", "cluster", "--store", store, "--mode", mode).must(t, exitOmissions)
		inProcess(t, nil, "verify", "--store", store).must(t, exitOK)
		t.Run("with the tool", func(t *testing.T) {
			target := freshTarget(t)
			dbbackup(t, target.Env(), "restore", "cluster", "--store", store).must(t, exitOK)
			compareClusters(t, source, target)
		})
		t.Run("without it", func(t *testing.T) {
			// globals.sql gives the superuser the source's password.
			target := freshTarget(t, pgtest.WithPassword(source.Password))
			restoreByHand(t, target, filepath.Join(store, onlySet(t, store)), mode)
			compareClusters(t, source, target)
		})
	})
}

// restoreByHand restores the zoo of a set the way that
// docs/runbook-without-the-tool.md says.
func restoreByHand(t *testing.T, target *pgtest.Cluster, set, mode string) {
	t.Helper()
	chunked, err := filepath.Abs("../../scripts/restore-chunked.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{
		"test -e manifest.json && sha256sum -c --quiet SHA256SUMS",
		"psql -X -q -d postgres -f globals.sql",
		"psql -X -q -v ON_ERROR_STOP=1 -d postgres -f databases/zoo.create.sql",
		map[string]string{
			"custom":    pgRestoreByHand("databases/zoo.dump"),
			"directory": pgRestoreByHand("databases/zoo.dir"),
			"chunked":   chunked + " . zoo zoo",
			"plain": `gunzip -c databases/zoo.sql.gz | tail -n 8 | grep -q -- '-- PostgreSQL database dump complete'
				gunzip -c databases/zoo.sql.gz | psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d zoo`,
		}[mode],
	} {
		cmd := exec.Command("sh", "-e", "-c", script) //nolint:gosec // the scripts stand above
		cmd.Dir = set
		cmd.Env = append(target.Env(), "PATH="+target.BinDir+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
}

func pgRestoreByHand(archive string) string {
	return "pg_restore --exit-on-error --section=pre-data -d zoo " + archive +
		"\npg_restore --exit-on-error --section=data -j 2 -d zoo " + archive +
		"\npg_restore --exit-on-error --section=post-data -d zoo " + archive
}

// freshTarget runs a cluster with nothing but a place for the zoo's tablespace:
// on one machine it cannot lie where the source's does.
func freshTarget(t *testing.T, options ...pgtest.Option) *pgtest.Cluster {
	t.Helper()
	c := shared.Start(t, options...)
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
