//go:build matrix

package matrix

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// zooDatabase holds the zoo of each source.
const zooDatabase = "zoo"

// declaredOmissions is the exit code of a backup that says what it left out:
// the zoo has foreign tables and a subscription.
const declaredOmissions = 3

// A name is SOURCE-TARGET/MODE, e.g. 13-18/plain.
func TestRoundTrips(t *testing.T) {
	versions := majors(t)
	for i, version := range versions {
		source := newSource(t, version)
		for _, newer := range versions[i:] {
			t.Run(fmt.Sprintf("%d-%d", version, newer), func(t *testing.T) {
				reference := newReference(t, source, newer)
				for _, mode := range modes(version, newer) {
					t.Run(mode, func(t *testing.T) { roundTrip(t, source, reference, newer, mode) })
				}
			})
		}
	}
}

// modes are the formats to test. A folder is read by the same pg_restore as an
// archive, so that trying it on one's own version is enough.
func modes(source, target int) []string {
	if source == target {
		return []string{"custom", "plain", "directory", "chunked"}
	}
	return []string{"custom", "plain", "chunked"}
}

// majors are the versions to test, oldest first, from MATRIX_VERSIONS.
func majors(t *testing.T) []int {
	t.Helper()
	var list []int
	for _, field := range strings.Fields(required(t, "MATRIX_VERSIONS")) {
		major, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 && major <= list[len(list)-1] {
			t.Fatalf("MATRIX_VERSIONS: %d after %d is not in order", major, list[len(list)-1])
		}
		list = append(list, major)
	}
	if len(list) == 0 {
		t.Fatal("MATRIX_VERSIONS names no version")
	}
	return list
}

func required(t *testing.T, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		t.Fatalf("%s is not set: run scripts/matrix.sh", variable)
	}
	return value
}

// newSource runs a cluster of the version that holds the zoo and some databases
// whose names are traps.
func newSource(t *testing.T, major int) *pgtest.Cluster {
	t.Helper()
	c := pgtest.Start(t, pgtest.WithMajor(major))
	c.CreateDatabase(t, zooDatabase)
	zoo.Load(t, c, zooDatabase)
	for i, name := range zoo.HostileDatabases()[:4] {
		c.CreateDatabase(t, name)
		c.Exec(t, name, fmt.Sprintf("CREATE TABLE t AS SELECT i, repeat('x', i) FROM generate_series(1, %d) i", 100+i))
	}
	return c
}

// newTarget runs a cluster with nothing but a place for the zoo's tablespace: on
// one machine it cannot lie where the source's does. It has the source's
// password, which globals bring along.
func newTarget(t *testing.T, source *pgtest.Cluster, major int) *pgtest.Cluster {
	t.Helper()
	c := pgtest.Start(t, pgtest.WithMajor(major), pgtest.WithPassword(source.Password))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the log of PostgreSQL %d:\n%s", major, c.Log())
		}
	})
	dir, err := c.MakeDir("zoo_space")
	if err != nil {
		t.Fatal(err)
	}
	c.Exec(t, "postgres", fmt.Sprintf("CREATE TABLESPACE zoo_space LOCATION '%s'", dir))
	return c
}

// newReference restores the source's zoo with PostgreSQL's own tools.
func newReference(t *testing.T, source *pgtest.Cluster, major int) *pgtest.Cluster {
	t.Helper()
	c := newTarget(t, source, major)
	dir := t.TempDir()
	globals, dump := filepath.Join(dir, "globals.sql"), filepath.Join(dir, "dump")
	command(t, source, "pg_dumpall", "--globals-only", "--file="+globals)
	// Errors are expected: the bootstrap role and the tablespace exist.
	command(t, c, "psql", "--no-psqlrc", "--quiet", "--output=/dev/null", "--file="+globals, "--dbname=postgres")
	command(t, source, "pg_dump", "--format=custom", "--file="+dump, zooDatabase)
	command(t, c, "pg_restore", "--create", "--exit-on-error", "--dbname=postgres", dump)
	return c
}

// command runs a client program of the cluster's version on the cluster.
func command(t *testing.T, c *pgtest.Cluster, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.BinDir, program), args...)
	cmd.Env = append(os.Environ(), c.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s of PostgreSQL %d: %v\n%s", program, c.VersionNum/10000, err, out)
	}
}

// roundTrip backs the source up, verifies the set, restores it into a fresh
// cluster, and compares.
func roundTrip(t *testing.T, source, reference *pgtest.Cluster, major int, mode string) {
	target := newTarget(t, source, major)
	store := filepath.Join(t.TempDir(), "store")
	if code := dbbackup(t, source, "backup", "cluster", "--store", store, "--mode", mode); code != 0 && code != declaredOmissions {
		t.Fatalf("backup ended with %d", code)
	}
	if code := dbbackup(t, source, "verify", "latest", "--store", store); code != 0 {
		t.Fatalf("verify ended with %d", code)
	}
	if code := dbbackup(t, target, "restore", "cluster", "--store", store); code != 0 {
		t.Fatalf("restore ended with %d", code)
	}
	compareContent(t, source, target)
	zoo.Compare(t, reference, zooDatabase, target, zooDatabase)
}

// dbbackup runs the program as the cluster's superuser with the client tools of
// the cluster's version, and returns its exit code. What it says is shown when
// the test fails.
func dbbackup(t *testing.T, c *pgtest.Cluster, args ...string) int {
	t.Helper()
	args = append(args, "--pg-bin", c.BinDir, "-h", c.Host, "-p", strconv.Itoa(c.Port), "-U", c.User)
	if args[0] == "verify" {
		args = args[:len(args)-6] // it needs the tools, and no server
	}
	cmd := exec.Command(required(t, "MATRIX_DBBACKUP"), args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+c.Password)
	out, err := cmd.CombinedOutput()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("dbbackup %q\n%s", args, out)
		}
	})
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode()
}

var (
	// definition matches a difference in the text of a definition, whose kind is
	// in capitals.
	definition = regexp.MustCompile(`^database "(?s:.*?)": (?:[A-Z]{2,}[A-Z ]* |preamble)`)
	// ownWay matches what two clusters may print differently even when they are
	// of one version: a policy's roles come in the order in which they were made.
	ownWay = regexp.MustCompile(`^database "(?s:.*?)": POLICY `)
	// placed matches the tablespace that newTarget made, and a restore leaves.
	placed = regexp.MustCompile(`^tablespace zoo_space: `)
)

// compareContent fails the test with every difference between two clusters but
// those in how they print the same definition: comparing with a reference on
// the target's version is for these.
func compareContent(t *testing.T, source, target *pgtest.Cluster) {
	t.Helper()
	differences, err := zoo.DiffClusters(context.Background(), source, target)
	if err != nil {
		t.Fatal(err)
	}
	tolerated := definition
	if source.VersionNum == target.VersionNum {
		tolerated = ownWay
	}
	for _, d := range differences {
		if !tolerated.MatchString(d) && !placed.MatchString(d) {
			t.Error(d)
		}
	}
}
