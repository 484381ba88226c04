package main

import (
	"strings"
	"testing"
)

// A set in which a database failed keeps the others, and says so wherever
// somebody could take it for a whole one (B4).
func TestPartialSetIsNeverTakenForAWholeOne(t *testing.T) {
	t.Parallel()
	source := shared.Start(t)
	source.CreateDatabase(t, "good")
	source.CreateDatabase(t, "bad")
	source.Exec(t, "good", "CREATE TABLE t AS SELECT 7 AS seven")
	store := newStore(t)
	failing := shim(t, source, `case "$*" in *"dbname='bad'"*) echo "no luck" >&2; exit 1;; esac; exec "$real" "$@"`)
	backup := dbbackup(t, append(source.Env(), failing...), "backup", "cluster", "--store", store)
	backup.want(t, exitFailed, "bad", "no luck")
	if !strings.Contains(backup.stdout, "good") || !strings.Contains(backup.stdout, "failed") {
		t.Errorf("the table: got %s, want good as ok and bad as failed", backup.stdout)
	}

	list := inProcess(t, nil, "list", "--store", store).must(t, exitOK)
	if !strings.Contains(list.stdout, "PARTIAL") || !strings.Contains(list.stdout, "bad") {
		t.Errorf("list: got %s, want PARTIAL and the failed database", list.stdout)
	}

	target := shared.Start(t)
	latest := dbbackup(t, target.Env(), "restore", "cluster", "--store", store)
	latest.want(t, exitNotFound, "passed over", "name it with --set")
	if hasDatabase(t, target, "good") {
		t.Error("latest restored a partial set")
	}

	named := dbbackup(t, target.Env(), "restore", "cluster", "--store", store, "--set", onlySet(t, store))
	named.want(t, exitOmissions, "will be missing", "bad")
	if got := target.QueryString(t, "good", "SELECT seven FROM t"); got != "7" {
		t.Errorf("the good database: got %q, want 7", got)
	}

	single := dbbackup(t, target.Env(), "restore", "single", "good", "--target-db", "good2", "--store", store)
	single.want(t, exitOK)
}
