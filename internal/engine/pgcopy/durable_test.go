package pgcopy

import (
	"testing"

	"dbbackup/internal/pg"
	"dbbackup/internal/pgtest"
)

// What a proof may start from waits for all transactions that the snapshot sees as
// ended. A moment before the snapshot is as good only if none ended between.
func TestEarlierMomentStandsOnlyIfNothingEndedSince(t *testing.T) {
	t.Parallel()
	c := shared.Start(t, pgtest.WithHBA("host all all 127.0.0.1/32 trust"), pgtest.WithSetting("autovacuum", "off"))
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, "CREATE TABLE t (i int)")
	asked := func() pg.Moment {
		conn, err := s.src.Endpoint.Connect(t.Context(), s.db)
		must(t, err)
		defer conn.Close(t.Context())
		m, err := conn.Moment(t.Context())
		must(t, err)
		return m
	}
	takes := func(before pg.Moment) pg.Moment {
		var got *capture
		s.capture(t, shot{quiet: true, tune: func(c *capture) { c.req.Before, got = before, c }})
		return got.ended
	}
	for name, between := range map[string]string{
		"nothing":                 "SELECT pg_sleep(0)",
		"asynchronous commit":     "SET synchronous_commit = off; INSERT INTO t VALUES (1)",
		"a transaction took back": "BEGIN; INSERT INTO t VALUES (1); ROLLBACK",
	} {
		before := asked()
		c.Exec(t, s.db, between)
		if got, want := takes(before) == before, name == "nothing"; got != want {
			t.Errorf("%s between: the earlier moment stands: %t, want %t", name, got, want)
		}
	}
	if got := takes(pg.Moment{}); got.Visible == "" || got.At.IsZero() {
		t.Errorf("without an earlier moment: got %+v", got)
	}
}
