package pgcopy

import (
	"fmt"
	"testing"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgtest"
)

// A role that may not ask who the server is backs up all the same, and all of it
// each time.
func TestRoleThatMayNotAsk(t *testing.T) {
	c := shared.Start(t, pgtest.WithHBA("host all all 127.0.0.1/32 trust"))
	c.CreateDatabase(t, "app")
	s := newSite(t, c, "app")
	c.Exec(t, "postgres", "CREATE ROLE reader LOGIN BYPASSRLS; GRANT pg_read_all_data TO reader")
	c.Exec(t, s.db, `REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; CREATE TABLE t AS SELECT i FROM generate_series(1, 3000) i;
		SELECT lo_from_bytea(77, 'x'); GRANT SELECT ON LARGE OBJECT 77 TO reader`)
	s.settle(t)
	reading := *s
	e, err := pg.Resolve(t.Context(), pg.Options{
		Params: pg.Params{"host": c.Host, "port": fmt.Sprint(c.Port), "user": "reader"}, Env: []string{"HOME=" + t.TempDir()}, Application: "dbbackup",
	})
	must(t, err)
	reading.src.Endpoint = e
	first := reading.capture(t, shot{})
	if first.Timeline != 0 {
		t.Errorf("timeline %d, want none", first.Timeline)
	}
	second := reading.capture(t, shot{base: first.base()})
	if reused, _ := second.reused(t, "t"); reused != 0 {
		t.Errorf("%d chunks of a server that nobody knows were reused", reused)
	}
	s.sameRows(t, s.replayed(t, second), "t")

	// With the right to ask: pg_read_all_data lets it look at large objects' pages, too.
	c.Exec(t, s.db, "GRANT EXECUTE ON FUNCTION pg_control_system() TO reader")
	third := reading.capture(t, shot{})
	fourth := reading.capture(t, shot{base: third.base()})
	if reused, read := fourth.reused(t, "t"); reused == 0 || read != 0 {
		t.Errorf("%d chunks reused and %d read", reused, read)
	}
	s.sameRows(t, s.replayed(t, fourth), "t")
}
