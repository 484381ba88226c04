package pgarchive

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
)

// markedTables have indexes that also alter their table, partitions whose
// indexes are attached, foreign keys, and a view that needs a primary key.
const markedTables = `
	CREATE TABLE marked (a int PRIMARY KEY, b int NOT NULL, c int);
	CREATE UNIQUE INDEX marked_b ON marked (b);
	CREATE INDEX marked_c ON marked (c);
	CREATE INDEX marked_plain ON marked (a, b);
	ALTER TABLE marked REPLICA IDENTITY USING INDEX marked_b;
	ALTER TABLE marked CLUSTER ON marked_c;
	CREATE TABLE parent (k int PRIMARY KEY, v int) PARTITION BY RANGE (k);
	CREATE TABLE leaf PARTITION OF parent FOR VALUES FROM (0) TO (10);
	CREATE INDEX parent_v ON parent (v);
	CREATE TABLE child (k int REFERENCES parent, a int REFERENCES marked);
	CREATE MATERIALIZED VIEW grouped AS SELECT a, b, c FROM marked GROUP BY a;
	CREATE INDEX grouped_b ON grouped (b);
	COMMENT ON INDEX marked_c IS 'follows its index';
	CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER t AFTER INSERT ON marked FOR EACH ROW EXECUTE FUNCTION noop();`

func markedArchive(t *testing.T) (*pgtest.Cluster, *TOC, string) {
	t.Helper()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, markedTables)
	path := dump(t, c, db, "-Fc")
	return c, open(t, path, WithoutSQL()), path
}

func TestPostDataPhasesHoldAllOfTheSectionOnce(t *testing.T) {
	c, toc, path := markedArchive(t)
	var want, got []int
	for line := range strings.Lines(pgTool(t, c, "pg_restore", "-l", "--section=post-data", path)) {
		id, _, ok := strings.Cut(line, ";")
		if number, err := strconv.Atoi(id); ok && err == nil {
			want = append(want, number)
		}
	}
	for _, phase := range toc.PostData(nil) {
		got = append(got, phase.IDs...)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 10 || !slices.Equal(got, want) {
		t.Errorf("entries in phases: got %v, want pg_restore's post-data %v", got, want)
	}
	var some []int
	for _, phase := range toc.PostData(want[:3]) {
		some = append(some, phase.IDs...)
	}
	if slices.Sort(some); !slices.Equal(some, want[:3]) {
		t.Errorf("phases of the entries %v: got %v", want[:3], some)
	}
}

func TestPostDataPhasesKeepWhatDeadlocksApart(t *testing.T) {
	_, toc, _ := markedArchive(t)
	phaseOf := map[int]int{}
	parallel := map[int]bool{}
	for i, phase := range toc.PostData(nil) {
		for _, id := range phase.IDs {
			phaseOf[id], parallel[id] = i, phase.Parallel
		}
	}
	for _, tt := range []struct {
		desc, tag string
		parallel  bool
	}{
		{"INDEX", "marked_plain", true}, {"CONSTRAINT", "marked marked_pkey", true},
		{"INDEX", "marked_b", false}, {"INDEX", "marked_c", false}, {"COMMENT", "INDEX marked_c", false},
		{"INDEX ATTACH", "leaf_pkey", false}, {"FK CONSTRAINT", "child child_a_fkey", true}, {"TRIGGER", "marked t", false},
	} {
		if got := parallel[find(t, toc, tt.desc, "public", tt.tag).ID]; got != tt.parallel {
			t.Errorf("%s %s is restored in parallel: got %v, want %v", tt.desc, tt.tag, got, tt.parallel)
		}
	}
	for i := range toc.Entries {
		e := &toc.Entries[i]
		for _, id := range e.Dependencies {
			if before, ok := phaseOf[id]; ok && before > phaseOf[e.ID] {
				t.Errorf("%s is in phase %d, and depends on entry %d of phase %d", e, phaseOf[e.ID], id, before)
			}
		}
	}
	if attach, key := find(t, toc, "INDEX ATTACH", "public", "leaf_pkey"), find(t, toc, "FK CONSTRAINT", "public", "child child_k_fkey"); phaseOf[attach.ID] >= phaseOf[key.ID] {
		t.Errorf("indexes are attached in phase %d, and the foreign key that needs them comes in phase %d", phaseOf[attach.ID], phaseOf[key.ID])
	}
}
