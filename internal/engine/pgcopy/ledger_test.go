package pgcopy

import "testing"

// Whoever takes over an interrupted replay of other options must not rely on what was
// made of rows, and nobody goes on with the former options after that.
func TestContinues(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	e := source(t, c).Endpoint
	for name, tt := range map[string]struct {
		options, step string
		want, again   bool // asked for the options "new", and then for the former ones
	}{
		"the same options":   {"new", "chunk 1 0", true, false},
		"instead, with rows": {"old", "chunk 1 0", true, false},
		"past the rows":      {"old", postDataStep + "0 begun", false, true},
		"past a refresh":     {"old", refreshStep + "v", false, true},
		"others":             {"other", "chunk 1 0", false, false},
		"what was refused":   {"", "chunk 1 0", false, false},
	} {
		db := c.Database(t)
		conn, err := e.ConnectStream(t.Context(), db)
		must(t, err)
		must(t, makeLedger(t.Context(), conn, tt.options))
		must(t, conn.Exec(t.Context(), "note", noted(tt.step)))
		must(t, conn.Close(t.Context()))
		got, err := Continues(t.Context(), e, db, "new", "old")
		must(t, err)
		again, err := Continues(t.Context(), e, db, "old", "old")
		must(t, err)
		if got != tt.want || again != tt.again {
			t.Errorf("%s: got %t, then %t, want %t, then %t", name, got, again, tt.want, tt.again)
		}
	}
}
