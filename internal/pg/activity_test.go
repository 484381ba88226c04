package pg

import (
	"testing"

	"dbbackup/internal/fault"
)

func TestBlockersAndTerminateBackends(t *testing.T) {
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE t (i int)")
	holder := c.Connect(t, db)
	if _, err := holder.PgConn().Exec(t.Context(), "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").ReadAll(); err != nil {
		t.Fatal(err)
	}
	const application = "pg test waiter"
	e, err := Resolve(t.Context(), Options{Params: paramsOf(c), Env: hermetic(t), Application: application})
	if err != nil {
		t.Fatal(err)
	}
	waiter := connect(t, e, db)
	ended := make(chan error, 1)
	go func() { ended <- waiter.Exec(t.Context(), "wait", "SELECT * FROM public.t") }()

	watcher := connect(t, resolve(t, paramsOf(c)), "postgres")
	var found []Blocker
	eventually(t, "somebody waits", func() bool {
		if found, err = watcher.Blockers(t.Context(), application); err != nil {
			t.Fatal(err)
		}
		return len(found) > 0
	})
	got := found[0]
	if len(found) != 1 || got.PID != int(holder.PgConn().PID()) || got.User != c.User || got.State != "idle in transaction" ||
		got.Query != "BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE" {
		t.Errorf("blockers %+v", found)
	}
	if n, err := watcher.TerminateBackends(t.Context(), "another application"); err != nil || n != 0 {
		t.Errorf("ended %d sessions of another application, %v", n, err)
	}
	if n, err := watcher.TerminateBackends(t.Context(), application); err != nil || n != 1 {
		t.Errorf("ended %d sessions, %v; want 1", n, err)
	}
	wantKind(t, <-ended, fault.Unavailable)
}
