package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"dbbackup/internal/pgtest"
)

// TestScripts runs the scripts in testdata as a user would type them. Those
// that need a server find it by PGHOST and the rest, with a database $DB of
// their own.
func TestScripts(t *testing.T) {
	t.Parallel()
	server := shared.Cluster(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			db := server.Database(t)
			env.Vars = append(env.Vars, server.Env()...)
			env.Vars = append(env.Vars, "DB="+db, "DBBACKUP_CONFIG=/dev/null", "GORACE=atexit_sleep_ms=0", "PGBIN="+pgtest.BinDir(t, 0))
			return nil
		},
	})
}
