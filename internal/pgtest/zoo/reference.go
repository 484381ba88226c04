package zoo

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dbbackup/internal/pgtest"
)

// Reference copies a database to another cluster with PostgreSQL's own pg_dump
// and pg_restore, those of the target's version. It keeps its name, which the
// target must not have yet. What another tool restores can be compared with it.
func Reference(tb testing.TB, a *pgtest.Cluster, db string, b *pgtest.Cluster) {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "dump")
	dump := exec.CommandContext(tb.Context(), filepath.Join(b.BinDir, "pg_dump"), "-Fc", "-f", file)
	dump.Env = append(os.Environ(), append(a.Env(), "PGDATABASE="+db)...)
	restore := exec.CommandContext(tb.Context(), filepath.Join(b.BinDir, "pg_restore"), "--create", "--exit-on-error", "-d", "postgres", file)
	restore.Env = append(os.Environ(), b.Env()...)
	for _, cmd := range []*exec.Cmd{dump, restore} {
		if out, err := cmd.CombinedOutput(); err != nil {
			tb.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
}
