package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// What needs a library of the source's preloaded ones is drilled with it; one that
// is not installed here is named.
func TestDrillPreloadsLibrariesOfTheSource(t *testing.T) {
	t.Parallel()
	elsewhere := drillDir(t)
	plain := shared.Cluster(t)
	libraries := plain.QueryString(t, "postgres", "SELECT setting FROM pg_config() WHERE name = 'PKGLIBDIR'")
	text, err := os.ReadFile(filepath.Join(libraries, "auto_explain.so"))
	if err != nil {
		t.Skipf("no contrib library is installed: %v", err)
	}
	writeFile(t, filepath.Join(elsewhere, "only_there.so"), text, 0o644)
	c := shared.Start(t, pgtest.WithSetting("dynamic_library_path", "$libdir:"+elsewhere),
		pgtest.WithSetting("shared_preload_libraries", "pg_stat_statements, only_there"))
	c.CreateDatabase(t, "app")
	c.Exec(t, "app", "CREATE EXTENSION pg_stat_statements; CREATE MATERIALIZED VIEW busy AS SELECT count(*) FROM pg_stat_statements")
	store, folder := newStore(t), drillDir(t)
	dbbackup(t, c.Env(), "backup", "cluster", "--store", store, "--mode", "chunked").must(t, exitOK, exitOmissions)
	got := dbbackup(t, c.Env(), "verify", "--drill", "--drill-dir", folder, "--store", store)
	got.want(t, exitOK, "libraries=pg_stat_statements")
	if !strings.Contains(got.stdout+got.stderr, "library only_there, which the source preloads, is not installed here") {
		t.Errorf("got %s%s, want the library named that is missing", got.stdout, got.stderr)
	}
	wantGone(t, folder)

	// So is a single database.
	single, folder := captured(t, c, "app", "--mode", "chunked"), drillDir(t)
	dbbackup(t, c.Env(), "verify", "--drill", "--drill-dir", folder, "--store", single).
		want(t, exitOK, "libraries=pg_stat_statements")
}
