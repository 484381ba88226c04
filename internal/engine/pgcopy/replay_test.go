package pgcopy

import (
	"testing"

	"dbbackup/internal/backupset"
	"dbbackup/internal/engine/pgdump"
)

// While large tables are loaded VACUUM passes them over, as autovacuum does where it
// does not get the lock at once; rows go in meanwhile, and small tables are left alone.
func TestVacuumStaysAwayFromWhatIsLoaded(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	c.Exec(t, s.db, `CREATE TABLE "Large" (i int); CREATE TABLE small (i int)`)
	p := &replay{
		target: pgdump.Target{Endpoint: s.src.Endpoint, Tools: s.src.Tools, Superuser: true, VersionNum: c.VersionNum},
		load:   Load{Schema: pgdump.Load{Database: s.db}},
	}
	jobs := []loadJob{
		{table: &backupset.ChunkedTable{Schema: "public", Name: "Large"}, chunk: &backupset.Chunk{Piece: backupset.Piece{RawBytes: vacuumedBytes}}},
		{table: &backupset.ChunkedTable{Schema: "public", Name: "small"}, chunk: &backupset.Chunk{Piece: backupset.Piece{RawBytes: 1}}},
	}
	vacuumed := func(table string) bool {
		t.Helper()
		before := c.QueryString(t, s.db, "SELECT pg_relation_size('"+table+"')")
		c.Exec(t, s.db, "INSERT INTO "+table+" SELECT 1 FROM generate_series(1, 1000)")
		c.Exec(t, s.db, "DELETE FROM "+table)
		c.Exec(t, s.db, "VACUUM (SKIP_LOCKED) "+table) // it cuts off what is empty
		return c.QueryString(t, s.db, "SELECT pg_relation_size('"+table+"')") == before
	}
	release := p.keepVacuumAway(t.Context(), jobs)
	if vacuumed(`"Large"`) {
		t.Error("a large table is vacuumed while it is loaded")
	}
	eventually(t, "a small table is not locked", func() bool { return vacuumed("small") })
	release()
	eventually(t, "the lock is given back", func() bool { return vacuumed(`"Large"`) })
}
